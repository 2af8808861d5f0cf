package render_test

import (
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/internal/render"
)

func draw(steps ...string) string { // "name: after after"
	index := map[string]int{}
	var nodes []render.Node
	for i, s := range steps {
		name, after, _ := strings.Cut(s, ":")
		index[name] = i
		n := render.Node{Symbol: "o", Cells: []string{name}}
		for _, a := range strings.Fields(after) {
			n.After = append(n.After, index[a])
		}
		nodes = append(nodes, n)
	}
	return "\n" + strings.Join(render.Graph(nodes), "\n")
}

func TestGraphsAreDrawnTopDown(t *testing.T) {
	for _, c := range []struct {
		name, got, want string
	}{
		{"a chain", draw("a", "b:a", "c:b"), `
o a
o b
o c`},
		{"a diamond", draw("a", "b:a", "c:a", "d:b c"), `
o   a
├─╮
o │ b
│ o c
├─╯
o   d`},
		{"three branches of unequal length", draw("a", "b:a", "c:a", "d:a", "e:c", "f:b e d"), `
o     a
├─┬─╮
o │ │ b
│ o │ c
│ o │ e
│ │ o d
├─┴─╯
o     f`},
		{"two roots", draw("a", "b", "c:a b"), `
o   a
│ o b
├─╯
o   c`},
		{"an edge across a step", draw("a", "b:a", "c:a b"), `
o   a
├─╮
o │ b
├─╯
o   c`},
	} {
		if c.got != c.want {
			t.Errorf("%s:%s\nwant:%s", c.name, c.got, c.want)
		}
	}
}

func TestNotesStandBelowTheirStep(t *testing.T) {
	got := render.Graph([]render.Node{
		{Symbol: "✔", Cells: []string{"create", "succeeded"}},
		{Symbol: "✘", Cells: []string{"pay", "failed"}, After: []int{0}, Notes: []string{"card_declined: no"}},
		{Symbol: "○", Cells: []string{"deliver", "pending"}, After: []int{1}},
	})
	want := []string{"✔ create   succeeded", "✘ pay      failed", "│   card_declined: no", "○ deliver  pending"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
}

func TestTextFromElsewhereCannotHarmATerminal(t *testing.T) {
	for in, want := range map[string]string{
		"plain é 日本":      "plain é 日本",
		"a\x1b[2Jb":       `a\u001b[2Jb`,
		"two\nlines":      "two⏎ lines",
		"\u202eevil":      `\u202eevil`,
		"bell\a and \x00": `bell\u0007 and \u0000`,
	} {
		if got := render.Clean(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestTimesAreSaidAsPeopleSayThem(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 1234 * time.Microsecond: "1.2ms", 345678 * time.Microsecond: "346ms", 2345 * time.Millisecond: "2.3s",
		90 * time.Second: "1m30s", 2 * time.Hour: "2h", 26*time.Hour + time.Minute: "1d2h", -time.Second: "-1s",
	} {
		if got := render.Duration(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	now := time.Now()
	if got := render.Since(now.Add(-90*time.Second), now); got != "1m30s ago" {
		t.Error(got)
	}
	if got := render.Since(now.Add(3*time.Second), now); got != "in 3s" {
		t.Error(got)
	}
}

func TestColoursAreOnlyThereWhenAskedFor(t *testing.T) {
	if got := (render.Style{}).State("failed", "x"); got != "x" {
		t.Errorf("%q", got)
	}
	if got := (render.Style{Color: true}).State("failed", "x"); got != "\x1b[31mx\x1b[0m" {
		t.Errorf("%q", got)
	}
}
