package audit

import (
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// Report is what an audit found.
type Report struct {
	Checks []*Finding
}

// Finding is the outcome of one check.
type Finding struct {
	What       string
	Found      string // if there are no violations
	Violations []string
}

func (r *Report) begin(what string) *Finding {
	f := &Finding{What: what}
	r.Checks = append(r.Checks, f)
	return f
}

func (f *Finding) violate(format string, args ...any) {
	f.Violations = append(f.Violations, fmt.Sprintf(format, args...))
}

// Violations is how many there are.
func (r *Report) Violations() (n int) {
	for _, f := range r.Checks {
		n += len(f.Violations)
	}
	return n
}

// shown is how many violations of each check are written out.
const shown = 10

// WriteTo writes the report for people.
func (r *Report) WriteTo(w io.Writer) (int64, error) {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = text.FormatDefault
	t.AppendHeader(table.Row{"audit", "found", ""})
	for _, f := range r.Checks {
		if len(f.Violations) == 0 {
			t.AppendRow(table.Row{f.What, f.Found, "PASS"})
			continue
		}
		lines := f.Violations
		if len(lines) > shown {
			lines = append(lines[:shown:shown], fmt.Sprintf("and %d more", len(f.Violations)-shown))
		}
		t.AppendRow(table.Row{f.What, strings.Join(lines, "\n"), "FAIL"})
	}
	n, err := io.WriteString(w, t.Render()+"\n")
	return int64(n), err
}
