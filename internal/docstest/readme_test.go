package docstest

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

// The program on the front page is the one in the repository, and prints what
// the page says.
func TestQuickstart(t *testing.T) {
	var program, output string
	for _, f := range fences(read(t, "README.md")) {
		switch f.language {
		case "go":
			program = f.text
		case "text":
			output = f.text
		}
	}
	const file = "examples/quickstart/main.go"
	if program != read(t, file) {
		t.Errorf("the program in README.md is not that in %s", file)
	}
	command := exec.CommandContext(t.Context(), "go", "run", "./examples/quickstart")
	command.Dir = root
	command.Env = append(command.Environ(), "TMPDIR="+t.TempDir())
	var problems bytes.Buffer
	command.Stderr = &problems
	printed, err := command.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &problems)
	}
	if string(printed) != output {
		t.Errorf("the program prints\n%s\nand README.md says\n%s", printed, output)
	}
}

// The front page names every page of the documentation, directly or by way of
// the index.
func TestPagesAreFound(t *testing.T) {
	index := read(t, "docs/README.md") + read(t, "README.md")
	for _, path := range pages(t) {
		if name, ok := strings.CutPrefix(path, "docs/"); ok && name != "README.md" && !strings.Contains(index, "("+name+")") {
			t.Errorf("docs/README.md does not list %s", name)
		}
	}
}
