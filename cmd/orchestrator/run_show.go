package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/internal/render"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

func (c *cli) runShow() *cobra.Command {
	var full bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show a run and draw its steps",
		Long: `Shows a run, what it waits for, and each step with its state, its attempts and
its error, drawn as the graph that they form. What to do about a stalled run is
said below it.`,
		Example: "  orchestrator run show order-1042\n  orchestrator run show order-1042 --full\n  orchestrator run show order-1042 -o json | jq '.steps[] | {name, state}'",
		Args:    args("ID"),
		RunE: func(cmd *cobra.Command, given []string) error {
			cl, err := c.connect()
			if err != nil {
				return err
			}
			run, err := cl.Get(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			return c.print(run, func() error {
				c.showRun(run, full)
				return c.children(cmd.Context(), cl, run)
			})
		},
	}
	cmd.Flags().BoolVar(&full, "full", false, "inputs, outputs and stacks in full")
	c.utcFlag(cmd)
	c.outputFlag(cmd)
	return cmd
}

func (c *cli) showRun(r rest.RunDetail, full bool) {
	width := 100
	if full {
		width = 1 << 20
	}
	status := c.style.State(r.Status, statusText(r.Run))
	if r.FailedStep != "" {
		status += ", by step " + render.Clean(r.FailedStep)
	}
	var tags []string
	for _, name := range slices.Sorted(maps.Keys(r.Tags)) {
		tags = append(tags, render.Clean(name+"="+r.Tags[name]))
	}
	pairs := []string{
		"run", c.style.Bold(render.Clean(r.ID)), "workflow", render.Clean(r.Workflow) + " " + c.style.Faint(r.Version),
		"status", status, "error", render.Shorten(render.Clean(r.Error), width),
		"started", c.when(r.Created), "ended", c.ended(r.Run),
		"key", keyText(r.Run), "tags", strings.Join(tags, " "),
		"child of", childOf(r.Run), "retry of", render.Clean(r.RetryOf), "deadline", c.deadline(r),
		"input", inline(r.Input, width), "output", inline(r.Output, width),
	}
	if r.Decision != "" {
		pairs = append(pairs, "decision", r.Decision)
	}
	if r.Heuristic {
		pairs = append(pairs, "heuristic", "a participant has decided by itself: see the run's history")
	}
	for _, l := range r.Locks {
		pairs = append(pairs, "lock", lockText(r.Run, l))
	}
	for _, s := range r.Signals {
		pairs = append(pairs, "keeps", render.Clean(strings.TrimSuffix("signal "+s.Name+" ("+s.ID+")", " ()")))
	}
	for _, w := range r.Waiting {
		pairs = append(pairs, "waits", render.Clean(w))
	}
	c.pairs(c.out, pairs...)
	fmt.Fprintln(c.out)
	for _, line := range render.Graph(c.stepNodes(&r, full)) {
		fmt.Fprintln(c.out, line)
	}
	c.adviseStalled(r)
}

// lockText tells of a lock whether the run holds it.
func lockText(r rest.Run, l rest.RunLock) string {
	text := render.Clean(l.Name)
	if l.Shared {
		text += " (shared)"
	}
	switch {
	case client.Ended(r.Status):
		return text + ", released"
	case l.Token == 0:
		return text + ", not held yet"
	}
	return text + ", held under token " + fmt.Sprint(l.Token)
}

// keyText leaves out a key that says nothing new.
func keyText(r rest.Run) string {
	if r.Key == r.ID {
		return ""
	}
	return render.Clean(r.Key)
}

func (c *cli) ended(r rest.Run) string {
	if r.Ended == nil {
		return ""
	}
	return c.when(*r.Ended) + ", after " + render.Duration(r.Ended.Sub(r.Created))
}

// deadline of a run that may still miss it.
func (c *cli) deadline(r rest.RunDetail) string {
	if r.Ended != nil {
		return ""
	}
	return c.whenPtr(r.Deadline)
}

func (c *cli) whenPtr(t *time.Time) string {
	if t == nil {
		return ""
	}
	return c.when(*t)
}

func (c *cli) stepNodes(r *rest.RunDetail, full bool) []render.Node {
	steps := r.Steps
	index := map[string]int{}
	for i, s := range steps {
		index[s.Name] = i
	}
	nodes := make([]render.Node, len(steps))
	for i, s := range steps {
		n := render.Node{
			Symbol: render.Symbol(s.State),
			Paint:  func(text string) string { return c.style.State(s.State, text) },
			Cells:  []string{render.Clean(s.Name), stateText(r, s), attemptsText(s), c.tookText(s), render.Clean(s.Worker)},
			Notes:  c.stepNotes(s, full),
			PaintCell: func(column int, text string) string {
				switch column {
				case 0:
					return c.style.Bold(text)
				case 1:
					return c.style.State(s.State, text)
				}
				return text
			},
		}
		for _, a := range s.After {
			if p, ok := index[a]; ok {
				n.After = append(n.After, p)
			}
		}
		if s.Pivot {
			n.Cells[0] += " ◆"
		}
		nodes[i] = n
	}
	return nodes
}

// stateText is a step's state. What was never begun is pending only as long as
// it may yet be.
func stateText(r *rest.RunDetail, s rest.Step) string {
	if s.State == "pending" && client.Ended(r.Status) {
		return "not run"
	}
	return s.State
}

func attemptsText(s rest.Step) string {
	if s.Items != nil {
		return itemsText(s.Items)
	}
	if s.Attempts == 0 && s.CompensationAttempts == 0 {
		return ""
	}
	text := render.Count(s.Attempts, "attempt", "attempts")
	if s.CompensationAttempts > 0 {
		text += fmt.Sprintf(", %d to undo", s.CompensationAttempts)
	}
	return text
}

func (c *cli) tookText(s rest.Step) string {
	switch {
	case s.NextAttempt != nil:
		return "next " + c.ago(*s.NextAttempt)
	case s.Until != nil:
		return "ends " + c.ago(*s.Until)
	case s.Started != nil && s.Ended != nil:
		return render.Duration(s.Ended.Sub(*s.Started))
	case s.Started != nil && s.State == "running":
		return "for " + render.Duration(c.now().Sub(*s.Started))
	}
	return ""
}

func (c *cli) stepNotes(s rest.Step, full bool) []string {
	var notes []string
	if s.Code != "" || s.Error != "" {
		text := strings.TrimPrefix(s.Code+": "+s.Error, ": ")
		notes = append(notes, c.style.Bad(render.Shorten(render.Clean(strings.TrimSuffix(text, ": ")), 160)))
	}
	if text := inline(s.Progress, 160); text != "" {
		notes = append(notes, c.style.Faint("progress ")+text)
	}
	if s.Items != nil {
		notes = append(notes, c.itemNotes(s.Items)...)
	}
	if !full {
		return notes
	}
	for _, p := range []struct {
		name string
		raw  json.RawMessage
	}{{"input", s.Input}, {"output", s.Output}} {
		if text := inline(p.raw, 1<<20); text != "" {
			notes = append(notes, c.style.Faint(p.name+" ")+text)
		}
	}
	if s.Stack != "" {
		notes = append(notes, strings.Split(render.CleanBlock(strings.TrimSpace(s.Stack)), "\n")...)
	}
	return notes
}

// adviseStalled says what an operator can do about a stalled run.
func (c *cli) adviseStalled(r rest.RunDetail) {
	if r.Status != "stalled" {
		return
	}
	for _, s := range unfolded(&r) {
		if s.State != "stalled" {
			continue
		}
		fmt.Fprintf(c.out, "\nStep %s is stalled. Once you know what happened, one of:\n", render.Clean(s.Name))
		for _, command := range settleCommands(&r, s) {
			fmt.Fprintln(c.out, "  "+c.command(command))
		}
	}
}

// shellQuote makes a word that can be pasted into a shell.
func shellQuote(s string) string {
	s = render.Clean(s)
	plain := strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.:/@", r))
	}) < 0
	if plain && s != "" && s[0] != '-' {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func (c *cli) runHistory() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "history ID",
		Short:   "Explain what happened to a run, event by event",
		Long:    "Prints a run's history: every fact in the order in which it became durable, in words, with the time, and how long that was after the start.",
		Example: "  orchestrator run history order-1042\n  orchestrator run history order-1042 -o json | jq '.events[] | select(.step == \"pay\")'",
		Args:    args("ID"),
		RunE: func(cmd *cobra.Command, given []string) error {
			cl, err := c.connect()
			if err != nil {
				return err
			}
			events, err := cl.History(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			return c.print(rest.EventList{Events: events}, func() error { c.showHistory(events); return nil })
		},
	}
	c.utcFlag(cmd)
	c.outputFlag(cmd)
	return cmd
}

func (c *cli) showHistory(events []rest.Event) {
	if len(events) == 0 {
		return
	}
	first := events[0].At
	fmt.Fprintln(c.out, c.style.Faint("times are in "+c.clock(first, "MST (-07:00)")))
	width := 0
	for _, e := range events {
		width = max(width, len("+"+render.Duration(e.At.Sub(first))))
	}
	for _, e := range events {
		at := c.clock(e.At, clockLayout) + fmt.Sprintf("  %*s", width, "+"+render.Duration(e.At.Sub(first)))
		text := e.Text
		if text == "" {
			text = strings.TrimSpace(e.Kind + " " + e.Step)
		}
		text = render.Clean(text)
		switch {
		case strings.Contains(e.Kind, "fail"), strings.Contains(e.Kind, "stall"):
			text = c.style.Bad(text)
		case strings.Contains(e.Kind, "compensat"), strings.Contains(e.Kind, "turn"):
			text = c.style.Warn(text)
		}
		fmt.Fprintf(c.out, "%4d  %s  %s\n", e.Seq, c.style.Faint(at), text)
	}
}

// outcome says in a line how a run is, for those who waited for it.
func (c *cli) outcome(r rest.RunDetail) string {
	line := render.Clean(r.ID) + " " + c.style.State(r.Status, statusText(r.Run))
	if r.Ended != nil {
		line += " after " + render.Duration(r.Ended.Sub(r.Created))
	}
	if r.Removed != nil {
		line += ", and was removed at " + c.when(*r.Removed)
	}
	if client.Succeeded(r.Status) {
		if out := inline(r.Output, 400); out != "" {
			line += " " + out
		}
		return line
	}
	if r.FailedStep != "" {
		line += ", by step " + render.Clean(r.FailedStep)
	}
	if r.Error != "" {
		line += ": " + render.Shorten(render.Clean(r.Error), 200)
	}
	return line
}
