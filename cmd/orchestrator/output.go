package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/ringmaster-dev/ringmaster/internal/render"
)

// outputFlag gives a command -o.
func (c *cli) outputFlag(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&c.format, "output", "o", "table", "how to print: table for people, json for scripts (the API's own documents)")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	before := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if c.format != "table" && c.format != "json" {
			return usage("--output %q: expected table or json", c.format)
		}
		if before != nil {
			return before(cmd, args)
		}
		return nil
	}
}

// print writes v as JSON, or whatever people writes for people.
func (c *cli) print(v any, people func() error) error {
	if c.format != "json" {
		return people()
	}
	return c.printJSON(v)
}

func (c *cli) printJSON(v any) error {
	e := json.NewEncoder(c.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// newTable returns a table for people. Cells are made safe when it is printed.
func (c *cli) newTable(header ...any) table.Writer { return c.tableTo(c.out, header...) }

func (c *cli) tableTo(w io.Writer, header ...any) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft = ""
	style.Box.PaddingRight = "  "
	style.Format.Header = text.FormatUpper
	t.SetStyle(style)
	t.SuppressTrailingSpaces()
	t.AppendHeader(table.Row(header))
	return t
}

// nothing says that a list is empty, and what would fill it.
func (c *cli) nothing(format string, args ...any) error {
	_, err := fmt.Fprintf(c.err, format+"\n", args...)
	return err
}

// utcFlag gives a command that shows times --utc.
func (c *cli) utcFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&c.utc, "utc", false, "show times in UTC rather than in this machine's zone")
}

const clockLayout = "2006-01-02 15:04:05.000"

// clock says when something was, in the zone that was asked for.
func (c *cli) clock(t time.Time, layout string) string {
	if c.utc {
		return t.UTC().Format(layout)
	}
	return t.Local().Format(layout)
}

// when says when something was, and how long ago that is.
func (c *cli) when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return c.clock(t, clockLayout+" MST") + " (" + c.ago(t) + ")"
}

func (c *cli) ago(t time.Time) string { return render.Since(t, c.now()) }

// pairs writes names and values in two columns; empty values are left out.
func (c *cli) pairs(w io.Writer, pairs ...string) {
	width := 0
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			width = max(width, len(pairs[i]))
		}
	}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(w, "%s  %s\n", c.style.Faint(fmt.Sprintf("%-*s", width, pairs[i])), pairs[i+1])
		}
	}
}

// inline shows a JSON value in one line of at most n characters.
func inline(raw json.RawMessage, n int) string {
	if len(raw) == 0 || string(raw) == "null" {
		return ""
	}
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return render.Shorten(render.Clean(string(raw)), n)
	}
	return render.Shorten(render.Clean(b.String()), n)
}
