package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/internal/render"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// explanation is why a run is where it is; run why -o json prints it.
type explanation struct {
	Run     string   `json:"run"`
	Status  string   `json:"status"`
	Summary string   `json:"summary"`
	Reasons []reason `json:"reasons"`
	CanDo   []string `json:"can_do"` // about the run as a whole
}

// reason is one thing that a run waits for.
type reason struct {
	Step        string     `json:"step,omitempty"`
	State       string     `json:"state,omitempty"`
	Waits       string     `json:"waits"`
	NextAttempt *time.Time `json:"next_attempt,omitempty"`
	LastFailure string     `json:"last_failure,omitempty"`
	Facts       []string   `json:"facts,omitempty"`
	CanDo       []string   `json:"can_do,omitempty"`
}

func (c *cli) runWhy() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "why ID",
		Short: "Say why a run is where it is, and what can be done",
		Long: `Says in one screen why a run is where it is: what each of its unfinished steps
waits for (a worker that runs it, one that has room, one that serves it at all, the
time of its next attempt, an operator), how it failed last, and what an operator
can do about it. Of a run that has ended it says how that came about.`,
		Example: "  orchestrator run why order-1042\n  orchestrator run why order-1042 -o json | jq -r '.reasons[].waits'",
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
			workers, err := cl.Workers(cmd.Context())
			if err != nil {
				return err
			}
			e := c.explain(&run, workers)
			return c.print(e, func() error { c.showWhy(e); return nil })
		},
	}
	c.utcFlag(cmd)
	c.outputFlag(cmd)
	return cmd
}

// explain puts together what is known about a run and its workers.
func (c *cli) explain(r *rest.RunDetail, workers []rest.Worker) explanation {
	e := explanation{Run: r.ID, Status: r.Status, Summary: c.summary(r), Reasons: []reason{}, CanDo: []string{}}
	id := shellQuote(r.ID)
	if client.Ended(r.Status) {
		if !client.Succeeded(r.Status) {
			e.CanDo = append(e.CanDo, "orchestrator run retry "+id+"   # a new run with the same input, linked to this one")
		}
		e.CanDo = append(e.CanDo, "orchestrator run history "+id+"   # how it came about, event by event")
		return e
	}
	var ofSteps []reason
	said := map[string]bool{}
	for _, s := range unfolded(r) {
		if s.Waiting != "" {
			said[s.Waiting] = true
			ofSteps = append(ofSteps, c.reasonOf(r, s, workers))
		}
	}
	for _, w := range r.Waiting {
		if !said[w] { // about the run as a whole
			e.Reasons = append(e.Reasons, reason{Waits: w, CanDo: lockCommands(r, w)})
		}
	}
	e.Reasons = append(e.Reasons, ofSteps...)
	if r.Status == "running" && r.Decision != "committed" {
		e.CanDo = append(e.CanDo, "orchestrator run cancel "+id+" --reason '...'   # "+cancelText(r))
	}
	e.CanDo = append(e.CanDo, "orchestrator run history "+id+"   # how it came here, event by event")
	return e
}

// lockCommands are what shows more about the lock that a run waits for.
func lockCommands(r *rest.RunDetail, waits string) []string {
	for _, l := range r.Locks {
		if l.Token == 0 && strings.Contains(waits, "lock "+l.Name) {
			return []string{"orchestrator lock list " + shellQuote(l.Name) + "   # who holds it, and who waits"}
		}
	}
	return nil
}

// cancelText says what a cancel would do.
func cancelText(r *rest.RunDetail) string {
	for _, s := range r.Steps {
		if s.Pivot && (s.State == "succeeded" || s.State == "skipped" || s.State == "resolved") {
			return "it has passed its pivot: this is recorded and changes nothing"
		}
	}
	if r.Decision != "" {
		return "decide to abort"
	}
	return "turn back: what was done is undone"
}

// summary says in a sentence how the run is.
func (c *cli) summary(r *rest.RunDetail) string {
	cause := ""
	if r.FailedStep != "" {
		cause = "because of step " + r.FailedStep
	}
	if r.Error != "" {
		cause = strings.TrimPrefix(cause+": "+r.Error, ": ")
	}
	if cause != "" && r.FailedStep == "" {
		cause = "because: " + r.Error
	}
	switch {
	case client.Ended(r.Status) && r.Waived:
		return strings.TrimSuffix("It ended "+c.lasted(r)+", and an operator left something undone, "+cause, ", ")
	case client.Ended(r.Status):
		return strings.TrimSuffix("It ended "+c.lasted(r)+", "+cause, ", ")
	case r.Status == "stalled":
		return strings.TrimSuffix("It needs an operator, "+cause, ", ") + turnedBy(r)
	case r.Status == "compensating":
		return strings.TrimSuffix("It turns back and undoes what was done, "+cause, ", ")
	case r.Decision == "committed":
		return "It is decided: commit. That is delivered to every participant until it is acknowledged."
	}
	return "It goes forward."
}

// turnedBy says why a run had turned back that stalls while it undoes.
func turnedBy(r *rest.RunDetail) string {
	for _, s := range unfolded(r) {
		if s.State == "failed" && s.Name != r.FailedStep {
			return "; it had turned back because of step " + s.Name + ": " + strings.Trim(s.Code+": "+s.Error, ": ")
		}
	}
	return ""
}

func (c *cli) lasted(r *rest.RunDetail) string {
	if r.Ended == nil {
		return ""
	}
	return "after " + render.Duration(r.Ended.Sub(r.Created)) + " (" + c.ago(*r.Ended) + ")"
}

// reasonOf says what one step waits for.
func (c *cli) reasonOf(r *rest.RunDetail, s *rest.Step, workers []rest.Worker) reason {
	why := reason{Step: s.Name, State: s.State, Waits: s.Waiting, NextAttempt: s.NextAttempt}
	if s.Code != "" || s.Error != "" {
		why.LastFailure = strings.Trim(s.Code+": "+s.Error, ": ")
	}
	if n := attemptsText(*s); n != "" && (s.NextAttempt != nil || s.State == "stalled") {
		why.Facts = append(why.Facts, n+" so far")
	} else if n != "" {
		why.Facts = append(why.Facts, "this is attempt "+strconv.Itoa(attemptAt(s)))
	}
	if s.Until != nil {
		why.Facts = append(why.Facts, "until "+c.when(*s.Until))
	}
	if s.Started != nil && s.State != "stalled" {
		why.Facts = append(why.Facts, "begun "+c.when(*s.Started))
	}
	switch {
	case s.State == "stalled":
		why.CanDo = append(signalCommand(r, s), settleCommands(r, s)...)
	case s.Kind != "": // no task, so that no worker matters
		why.CanDo = signalCommand(r, s)
	case s.NextAttempt != nil:
		why.Facts = append(why.Facts, "next attempt "+c.when(*s.NextAttempt))
	case s.Worker != "" && strings.Contains(s.Waiting, s.Worker):
		why.Facts = append(why.Facts, workerFacts(s.Worker, workers)...)
	case s.Phase != "":
		facts, advice := serviceFacts(s.Service, taskType(s), workers)
		why.Facts, why.CanDo = append(why.Facts, facts...), append(why.CanDo, advice)
	}
	return why
}

// signalCommand gives a step the signal that it waits for, or has waited for too
// long.
func signalCommand(r *rest.RunDetail, s *rest.Step) []string {
	if s.Signal == "" {
		return nil
	}
	return []string{"orchestrator run signal " + shellQuote(r.ID) + " " + shellQuote(s.Signal) + " --payload '...'   # what it waits for, if that is for you to say"}
}

// settleCommands are what an operator can do about a stalled step.
func settleCommands(r *rest.RunDetail, s *rest.Step) []string {
	about := shellQuote(r.ID) + " --step " + shellQuote(s.Name)
	applied := "orchestrator run resolve " + about + " --applied --reason '...'   # it has happened, as you found out"
	list := []string{"orchestrator run retry " + about + "   # the cause is gone: try again", applied}
	single := len(r.Steps) == 1 && r.Decision == "undecided"
	switch {
	case s.Pivot && s.Phase == "action" || single: // it decides over the run, and cannot be left
		return append(list, strings.Replace(applied, "--applied --reason '...'   # it has", "--not-applied --reason '...'   # it has not", 1))
	case s.Phase == "action":
		return append(list, "orchestrator run skip "+about+" --reason '...'   # go on without it")
	}
	return append(list, "orchestrator run skip "+about+" --reason '...'   # leave it; the run is marked as waived for ever")
}

// attemptAt is the number of attempts of what a step is at.
func attemptAt(s *rest.Step) int {
	if s.CompensationAttempts > 0 {
		return s.CompensationAttempts
	}
	return s.Attempts
}

// taskType is the type of the task that a step is at.
func taskType(s *rest.Step) string {
	switch s.Phase {
	case "compensate":
		return s.Compensation
	case "prepare":
		return s.Prepare
	case "commit":
		return s.Commit
	case "abort":
		return s.Abort
	}
	return s.Action
}

func workerFacts(id string, workers []rest.Worker) []string {
	for _, w := range workers {
		if w.ID == id {
			return []string{fmt.Sprintf("worker %s is %s: it runs %d tasks side by side at most, now %d, and %d wait in it", w.Name, w.State, w.Capacity, w.Running, w.Queued)}
		}
	}
	return []string{"that worker is not known here any more"}
}

// serviceFacts says who could take a task, and what would help.
func serviceFacts(service, task string, workers []rest.Worker) (facts []string, advice string) {
	var there, serving, full, away int
	var others []string   // versions of the task type
	var problems []string // of workers that get no tasks
	name, _ := definitions.SplitTaskType(task)
	for _, w := range workers {
		if w.Service != service {
			continue
		}
		there++
		if w.Problem != "" {
			problems = append(problems, w.Problem)
		}
		for _, t := range w.TaskTypes {
			if n, _ := definitions.SplitTaskType(t); n == name && t != task && !slices.Contains(others, t) {
				others = append(others, t)
			}
		}
		switch {
		case !slices.Contains(w.TaskTypes, task):
		case w.State != "ready":
			away++
		case w.Outstanding >= w.Credit:
			serving, full = serving+1, full+1
		default:
			serving++
		}
	}
	list := `   # "orchestrator worker list" shows who is there`
	switch {
	case there == 0:
		return []string{"no worker of service " + service + " is connected"},
			"start a worker of service " + service + ", with this broker and namespace" + list
	case serving == 0 && len(problems) > 0:
		return problems, "upgrade whichever is older, the worker or the orchestrator: one version apart they work together" + list
	case serving == 0 && away > 0:
		return []string{fmt.Sprintf("%s of service %s, and those that serve %s drain or are not heard of", render.Count(there, "worker is", "workers are"), service, task)},
			"start another worker that serves " + task + list
	case serving == 0:
		fact := fmt.Sprintf("%s of service %s, but none serves %s", render.Count(there, "worker is", "workers are"), service, task)
		if slices.Sort(others); len(others) > 0 {
			fact += "; they serve " + strings.Join(others, " and ")
		}
		return []string{fact},
			"deploy a worker that has a handler for " + task + list
	case full == serving:
		return []string{fmt.Sprintf("%s %s, all with as many tasks as they take", render.Count(serving, "worker serves", "workers serve"), task)},
			"start more workers of service " + service + ", or raise their concurrency" + list
	}
	return []string{fmt.Sprintf("%s %s, %d with room", render.Count(serving, "worker serves", "workers serve"), task, serving-full)},
		"wait a moment and look again" + list
}

// showWhy writes an explanation for people.
func (c *cli) showWhy(e explanation) {
	fmt.Fprintf(c.out, "%s is %s. %s\n", c.style.Bold(render.Clean(e.Run)), c.style.State(e.Status, e.Status), render.Clean(e.Summary))
	for _, r := range e.Reasons {
		fmt.Fprintf(c.out, "\n%s\n", c.style.State(r.State, render.Symbol(r.State))+" "+render.Clean(r.Waits))
		if r.LastFailure != "" {
			fmt.Fprintf(c.out, "    last failure: %s\n", c.style.Bad(render.Shorten(render.Clean(r.LastFailure), 300)))
		}
		for _, f := range r.Facts {
			fmt.Fprintf(c.out, "    %s\n", render.Clean(f))
		}
		for _, d := range r.CanDo {
			fmt.Fprintf(c.out, "    → %s\n", c.command(d))
		}
	}
	if len(e.Reasons) == 0 && !client.Ended(e.Status) {
		fmt.Fprintln(c.out, "\nIt waits for nothing: it was between two steps when it was asked.")
	}
	fmt.Fprintln(c.out)
	for _, d := range e.CanDo {
		fmt.Fprintf(c.out, "→ %s\n", c.command(d))
	}
}

// command paints what stands behind a command into the background.
func (c *cli) command(text string) string {
	command, comment, ok := strings.Cut(text, "   # ")
	if !ok {
		return render.Clean(text)
	}
	return render.Clean(command) + c.style.Faint("   # "+render.Clean(comment))
}
