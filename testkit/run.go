package testkit

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

// Run is a run that has ended, has stalled or waits for a signal, and how it came to that. It is
// read-only.
type Run struct {
	ID     string
	Status machine.Status
	Output []byte // JSON; empty is null
	Waived bool   // an operator left an effect that should have been undone

	// Heuristic: a participant has said that it decided by itself.
	Heuristic bool

	// What failed for good, or needs an operator; empty if nothing.
	Code       string
	Message    string
	FailedStep string

	Events  []machine.Event
	Calls   []Call // every task that was sent, in order
	Took    time.Duration
	Crashes int

	t       TB
	wf      *definitions.Workflow
	state   *machine.State
	comment []comment
}

// readOnly is a vote of yes with nothing to commit or abort.
const readOnly = machine.Outcome(protocol.OutcomeReadOnly)

// Call is one delivery of a task.
type Call struct {
	Type       string // task type
	Service    string
	Step       string
	Phase      machine.Phase
	Generation uint32
	Attempt    uint32
	Key        string // idempotency key
	Input      []byte // JSON
	At         time.Duration
	Again      bool // the same attempt was delivered before

	// Fate says why the handler was not called; empty if it was.
	Fate string
	// What the handler answered, or the test in its place. Outcome is 0 where
	// nothing did.
	Outcome machine.Outcome
	Output  []byte
	Code    string
	Message string
}

// String describes the call in one line.
func (c Call) String() string {
	s := fmt.Sprintf("%s for %s/%v, attempt %d, with %s", c.Type, c.Step, c.Phase, c.Attempt, shorten(c.Input))
	if c.Again {
		s += ", again"
	}
	if c.Fate != "" {
		s += ": " + c.Fate
	}
	switch c.Outcome {
	case machine.OutcomeSucceeded:
		s += " -> " + shorten(c.Output)
	case readOnly:
		s += " -> read-only"
	case machine.OutcomeFailed, machine.OutcomeUnknown:
		s += " -> " + c.Code + ": " + c.Message
	}
	return s
}

func shorten(data []byte) string {
	const most = 120
	if len(data) == 0 {
		return "null"
	}
	if len(data) > most {
		return strings.ToValidUTF8(string(data[:most]), "") + "..."
	}
	return string(data)
}

// comment is a line of the history that is not an event.
type comment struct {
	after int // so many events
	text  string
}

func (r *Run) note(events []machine.Event) { r.Events = append(r.Events, events...) }

func (r *Run) crashed(at time.Duration, acted bool) {
	r.Crashes++
	text := "-- crash, before anything is done about it"
	if acted {
		text = "-- crash, with the tasks out; those not answered are sent again"
	}
	r.comment = append(r.comment, comment{len(r.Events), fmt.Sprintf("     %8v  %s", at, text)})
}

// History tells the run in words, an event per line, with its number and the
// time since the start.
func (r *Run) History() []string {
	lines := make([]string, 0, len(r.Events)+len(r.comment))
	comments := r.comment
	for i, e := range r.Events {
		lines = append(lines, fmt.Sprintf("%4d %8v  %s", e.Seq, e.At.Sub(start), r.state.Explain(e)))
		for len(comments) > 0 && comments[0].after == i+1 {
			lines = append(lines, comments[0].text)
			comments = comments[1:]
		}
	}
	return lines
}

// String tells the run and its calls; of a very long one, the end.
func (r *Run) String() string {
	const most = 60
	var b strings.Builder
	fmt.Fprintf(&b, "%s of %s: %v", r.ID, r.wf.Name(), r.Status)
	if r.FailedStep != "" {
		fmt.Fprintf(&b, ", by step %s", r.FailedStep)
	}
	if r.Code != "" {
		b.WriteString(", " + r.Code)
	}
	if r.Message != "" {
		b.WriteString(": " + r.Message)
	}
	tail := func(title string, lines []string) {
		fmt.Fprintf(&b, "\n%s:", title)
		if len(lines) > most {
			fmt.Fprintf(&b, "\n     ... %d more before", len(lines)-most)
			lines = lines[len(lines)-most:]
		}
		for _, line := range lines {
			b.WriteString("\n" + line)
		}
	}
	tail("history", r.History())
	calls := make([]string, len(r.Calls))
	for i, c := range r.Calls {
		calls[i] = "     " + c.String()
	}
	tail("calls", calls)
	return b.String()
}

// OutputOf decodes the run's output; it fails the test if that cannot be done.
func OutputOf[T any](r *Run) (out T) {
	r.t.Helper()
	if len(r.Output) == 0 {
		return out
	}
	if err := json.Unmarshal(r.Output, &out); err != nil {
		r.fail("its output %s is no %T: %v", shorten(r.Output), out, err)
	}
	return out
}

// Step returns a step as users see it; it fails the test if there is none of
// that name.
func (r *Run) Step(name string) machine.StepView {
	r.t.Helper()
	i := r.state.StepIndex(name)
	if i < 0 {
		r.fail("there is no step %q", name)
	}
	return r.state.StepView(i)
}

// CallsOf returns the calls of a task type, in order.
func (r *Run) CallsOf(taskType string) (calls []Call) {
	for _, c := range r.Calls {
		if c.Type == taskType {
			calls = append(calls, c)
		}
	}
	return calls
}

// Done are the steps that took effect, and the participants that committed, in
// the order in which that became known.
func (r *Run) Done() []string { return r.succeeded(does) }

// Undone are the steps that were taken back, and the participants that aborted,
// in the order in which they did.
func (r *Run) Undone() []string { return r.succeeded(undoes) }

func (r *Run) succeeded(counts func(machine.Phase) bool) (steps []string) {
	for _, e := range r.Events {
		resolved := e.Kind == machine.StepResolved && e.Applied
		if (e.Kind == machine.AttemptSucceeded || resolved) && counts(e.Phase) {
			if name := r.state.Def(e.Step).Name; !slices.Contains(steps, name) {
				steps = append(steps, name)
			}
		}
	}
	return steps
}

// Effects are the idempotency keys under which handlers succeeded, without those
// of steps that were taken back since, and of prepares that were committed;
// sorted. The key of a prepare that is left has neither been committed nor
// aborted.
func (r *Run) Effects() []string {
	standing := map[string]string{} // key to step
	for _, c := range r.Calls {
		if c.Outcome != machine.OutcomeSucceeded {
			continue
		}
		if undoes(c.Phase) || c.Phase == machine.Commit {
			for key, step := range standing {
				if step == c.Step {
					delete(standing, key)
				}
			}
		}
		if !undoes(c.Phase) {
			standing[c.Key] = c.Step
		}
	}
	keys := make([]string, 0, len(standing))
	for key := range standing {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
