package testkit_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var fence = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

// What docs/testing.md shows are the examples, word for word.
func TestPageShowsTheExamples(t *testing.T) {
	examples := read(t, "example_test.go") + read(t, "example_participants_test.go") + read(t, "example_foreach_test.go") + read(t, "example_waits_test.go")
	blocks := fence.FindAllStringSubmatch(read(t, "../docs/testing.md"), -1)
	if len(blocks) < 10 {
		t.Fatalf("the page has only %d blocks of code", len(blocks))
	}
	for _, block := range blocks {
		text := block[2]
		var body strings.Builder // as it is inside of a function
		for line := range strings.Lines(text) {
			if line != "\n" {
				body.WriteString("\t")
			}
			body.WriteString(line)
		}
		if block[1] == "text" {
			text = "// " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n\t// ") + "\n"
		}
		if !strings.Contains(examples, text) && !strings.Contains(examples, body.String()) {
			t.Errorf("no example has this:\n%s", text)
		}
	}
}

// The page speaks of every function that has an example.
func TestPageShowsEveryExample(t *testing.T) {
	page := read(t, "../docs/testing.md")
	examples := read(t, "example_test.go") + read(t, "example_participants_test.go") + read(t, "example_foreach_test.go") + read(t, "example_waits_test.go")
	for _, m := range regexp.MustCompile(`(?m)^func Example(?:Kit_|Run_)?([A-Z]\w*?)(?:_[a-z]\w*)?\(\)`).FindAllStringSubmatch(examples, -1) {
		if !strings.Contains(page, m[1]+"(") {
			t.Errorf("the page does not show %s", m[1])
		}
	}
}
