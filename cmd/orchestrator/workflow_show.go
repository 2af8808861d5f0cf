package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/internal/render"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

func (c *cli) showWorkflow(w rest.Workflow) error {
	state := "not active"
	if w.Active {
		state = c.style.State("active", "active: new runs use it")
	}
	wf, err := definitions.Parse(w.Definition)
	if err != nil {
		c.pairs(c.out, "workflow", c.style.Bold(render.Clean(w.Name)), "version", w.Version, "kind", w.Kind, "state", state, "registered", c.ago(w.Registered))
		return c.nothing("The definition is not one that this program can draw: %v", err)
	}
	top, steps := fieldsOf(wf.JSON())
	deadline := ""
	if d := wf.Deadline(); d > 0 {
		deadline = render.Duration(d) + " after the start"
	}
	pairs := []string{
		"workflow", c.style.Bold(render.Clean(w.Name)), "description", render.Clean(wf.Description()),
		"version", w.Version, "kind", w.Kind, "state", state, "registered", c.ago(w.Registered), "deadline", deadline,
	}
	for _, f := range top {
		if !slices.Contains(drawnTopFields, f.name) {
			pairs = append(pairs, strings.ReplaceAll(f.name, "_", " "), f.text())
		}
	}
	c.pairs(c.out, pairs...)
	fmt.Fprintln(c.out)
	var nodes []render.Node
	for i := range wf.Len() {
		n := c.definitionNode(wf.Step(i))
		if i < len(steps) {
			n.Notes = c.definitionNotes(wf, wf.Step(i), steps[i])
		}
		nodes = append(nodes, n)
	}
	for _, line := range render.Graph(nodes) {
		fmt.Fprintln(c.out, line)
	}
	return nil
}

func (c *cli) definitionNode(s *definitions.Step) render.Node {
	undo, does := "cannot be undone", s.Action
	switch {
	case s.Prepare != "":
		does, undo = s.Prepare, "then "+s.Commit+" or "+s.Abort
	case s.Compensation != "":
		undo = "undone by " + s.Compensation
	case s.Pivot:
		undo = "pivot: from here on only forward"
	case s.AfterPivot:
		undo = "after the pivot: tried until it succeeds"
	case s.NoCompensation != "":
		undo = "not undone: " + s.NoCompensation
	}
	symbol := "○"
	if s.Pivot {
		symbol = "◆"
	}
	if !s.Kind.HasTask() {
		return render.Node{
			After: s.Preds, Symbol: symbol, Cells: []string{render.Clean(s.Name), render.Clean(waitText(s))}, PaintCell: c.boldFirst,
		}
	}
	if s.Kind == definitions.StepChild {
		return render.Node{
			After: s.Preds, Symbol: symbol, PaintCell: c.boldFirst,
			Cells: []string{render.Clean(s.Name), render.Clean("runs workflow " + s.Workflow), "", render.Clean(undo)},
		}
	}
	return render.Node{
		After: s.Preds, Symbol: symbol,
		Cells:     []string{render.Clean(s.Name), render.Clean(s.Service + "/" + does), "timeout " + render.Duration(s.Timeout), render.Clean(undo)},
		PaintCell: c.boldFirst,
	}
}

// waitText says what a step without a task does.
func waitText(s *definitions.Step) string {
	if s.Kind == definitions.StepChoice {
		names := make([]string, len(s.Cases))
		for i, c := range s.Cases {
			names[i] = c.Name
		}
		return "takes one of " + strings.Join(names, ", ")
	}
	if s.Signal != "" && s.Timeout > 0 {
		return "waits for signal " + s.Signal + " for " + render.Duration(s.Timeout)
	} else if s.Signal != "" {
		return "waits for signal " + s.Signal
	}
	if s.HasSleepUntil {
		return "sleeps until a time that an expression yields"
	}
	return "sleeps " + render.Duration(s.Sleep)
}

func (c *cli) boldFirst(column int, text string) string {
	if column == 0 {
		return c.style.Bold(text)
	}
	return text
}

// drawnTopFields are those of a workflow that showWorkflow says in its own words.
var drawnTopFields = []string{"kind", "name", "description", "deadline", "steps", "participants"}

// drawnFields are those of a step that its line of the graph says, or that
// definitionNotes says in its own words.
var drawnFields = []string{
	"name", "service", "action", "compensation", "no_compensation", "pivot", "timeout",
	"prepare", "commit", "abort", "sleep", "signal", "after", "retry", "compensation_retry", "phase_two_retry",
}

// definitionNotes says the rest of a step: what it comes after, how it is
// retried, and whatever else the definition sets.
func (c *cli) definitionNotes(wf *definitions.Workflow, s *definitions.Step, set fields) []string {
	var notes []string
	say := func(name, text string) {
		if text != "" {
			notes = append(notes, c.style.Faint(name+":")+" "+text)
		}
	}
	var after []string
	for _, p := range s.Preds {
		after = append(after, render.Clean(wf.Step(p).Name))
	}
	say("after", strings.Join(after, ", "))
	for _, f := range set {
		if !slices.Contains(drawnFields, f.name) {
			say(strings.ReplaceAll(f.name, "_", " "), f.text())
		}
	}
	if s.Kind.HasTask() {
		say("retry", retryText(s.Retry))
	}
	if s.Compensation != "" {
		say("compensation retry", retryText(s.CompensationRetry))
	}
	if s.Prepare != "" {
		say("phase two retry", retryText(s.PhaseTwoRetry))
	}
	return notes
}

// retryText says a retry policy in words.
func retryText(p definitions.RetryPolicy) string {
	var text string
	switch p.MaxAttempts {
	case 1:
		return "none: one attempt"
	case definitions.Unlimited:
		text = "until it succeeds"
	default:
		text = fmt.Sprintf("up to %d attempts", p.MaxAttempts)
	}
	text += ", after " + render.Duration(p.Initial)
	if p.Multiplier > 1 && p.Max > p.Initial {
		text += fmt.Sprintf(", then %g times as long, up to %s", p.Multiplier, render.Duration(p.Max))
	}
	if p.MaxElapsed > 0 {
		text += ", for at most " + render.Duration(p.MaxElapsed)
	}
	if len(p.NonRetryable) > 0 {
		text += ", not after " + render.Clean(strings.Join(p.NonRetryable, ", "))
	}
	return text
}

// fields are those of an object of a definition, in order.
type fields []field

type field struct {
	name string
	raw  json.RawMessage
}

// maxFieldText bounds how much of an expression is shown.
const maxFieldText = 160

// text shows a field's value in one line.
func (f field) text() string {
	var s string
	if json.Unmarshal(f.raw, &s) == nil {
		return render.Shorten(render.Clean(strings.Join(strings.Fields(s), " ")), maxFieldText)
	}
	return inline(f.raw, maxFieldText)
}

// fieldsOf takes a canonical definition apart: its own fields, and those of
// each of its steps or participants.
func fieldsOf(definition []byte) (top fields, steps []fields) {
	top = object(definition)
	for _, f := range top {
		if f.name != "steps" && f.name != "participants" {
			continue
		}
		var list []json.RawMessage
		if json.Unmarshal(f.raw, &list) != nil {
			continue
		}
		for _, raw := range list {
			steps = append(steps, object(raw))
		}
	}
	return top, steps
}

// object reads the fields of a JSON object; what is none has none.
func object(raw []byte) fields {
	var found fields
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil
	}
	for d.More() {
		t, err := d.Token()
		name, isName := t.(string)
		var value json.RawMessage
		if err != nil || !isName || d.Decode(&value) != nil {
			return found
		}
		found = append(found, field{name, value})
	}
	return found
}
