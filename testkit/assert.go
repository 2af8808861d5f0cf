package testkit

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ringmaster-dev/ringmaster/engine/machine"
)

// fail fails the test with what is wrong and the whole run.
func (r *Run) fail(format string, args ...any) {
	r.t.Helper()
	r.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), r)
}

// MustBe fails the test unless the run has that status. It returns the run, as
// all of these do.
func (r *Run) MustBe(status machine.Status) *Run {
	r.t.Helper()
	if r.Status != status {
		r.fail("the run is %v, want %v", r.Status, status)
	}
	return r
}

// MustSucceed fails the test unless the run has succeeded.
func (r *Run) MustSucceed() *Run {
	r.t.Helper()
	return r.MustBe(machine.Succeeded)
}

// MustBeCompensated fails the test unless the run was undone, without an effect
// that an operator left.
func (r *Run) MustBeCompensated() *Run {
	r.t.Helper()
	r.MustBe(machine.Compensated)
	if r.Waived {
		r.fail("the run is compensated, but an effect was waived")
	}
	return r
}

// MustCommit fails the test unless the run has committed, as a two-phase commit
// or a TCC does.
func (r *Run) MustCommit() *Run {
	r.t.Helper()
	return r.MustBe(machine.Committed)
}

// MustAbort fails the test unless the run has aborted.
func (r *Run) MustAbort() *Run {
	r.t.Helper()
	return r.MustBe(machine.Aborted)
}

// MustStall fails the test unless the run has stalled, by that step first.
func (r *Run) MustStall(step string) *Run {
	r.t.Helper()
	r.MustBe(machine.Stalled)
	if r.FailedStep != step {
		r.fail("the run is stalled by %s, want %s", r.FailedStep, step)
	}
	return r
}

// MustHaveFailedAt fails the test unless that step turned the run back or
// stalled it, with that failure code last.
func (r *Run) MustHaveFailedAt(step, code string) *Run {
	r.t.Helper()
	if r.FailedStep != step {
		r.fail("the run failed at %q, want %q", r.FailedStep, step)
	}
	if got := r.Step(step).Code; got != code {
		r.fail("step %s failed with code %q, want %q", step, got, code)
	}
	return r
}

// MustHaveCalled fails the test unless tasks of that type were sent that many
// times, repeated deliveries and those that the test had fail or get lost
// included.
func (r *Run) MustHaveCalled(taskType string, times int) *Run {
	r.t.Helper()
	known := false
	for i := range r.wf.Len() {
		known = known || names(r.wf.Step(i), taskType)
	}
	if !known {
		r.fail("workflow %s has no task %q", r.wf.Name(), taskType)
	}
	if n := len(r.CallsOf(taskType)); n != times {
		r.fail("%s was called %d times, want %d", taskType, n, times)
	}
	return r
}

// MustNotHaveCalled fails the test if a task of that type was sent.
func (r *Run) MustNotHaveCalled(taskType string) *Run {
	r.t.Helper()
	return r.MustHaveCalled(taskType, 0)
}

// MustHaveDone fails the test unless exactly these steps took effect, in this
// order.
func (r *Run) MustHaveDone(steps ...string) *Run {
	r.t.Helper()
	r.mustEqual("done", r.Done(), steps)
	return r
}

// MustHaveUndone fails the test unless exactly these steps were taken back, in
// this order.
func (r *Run) MustHaveUndone(steps ...string) *Run {
	r.t.Helper()
	r.mustEqual("undone", r.Undone(), steps)
	return r
}

func (r *Run) mustEqual(what string, got, want []string) {
	r.t.Helper()
	if !slices.Equal(got, want) {
		r.fail("%s: %s, want %s", what, list(got), list(want))
	}
}

func list(words []string) string {
	if len(words) == 0 {
		return "nothing"
	}
	return strings.Join(words, ", ")
}

// MustHaveOutput fails the test unless the output is that JSON text, blanks
// apart.
func (r *Run) MustHaveOutput(text string) *Run {
	r.t.Helper()
	if got, want := r.canonical(r.Output), r.canonical([]byte(text)); got != want {
		r.fail("the output is %s, want %s", got, want)
	}
	return r
}

// MustHaveRecorded fails the test unless the history has that many events of the
// kind; of a step's task if step is not empty.
func (r *Run) MustHaveRecorded(kind machine.EventKind, step string, times int) *Run {
	r.t.Helper()
	if step != "" && r.state.StepIndex(step) < 0 {
		r.fail("there is no step %q", step)
	}
	n := 0
	for _, e := range r.Events {
		if e.Kind == kind && (step == "" || e.Step >= 0 && r.state.Def(e.Step).Name == step) {
			n++
		}
	}
	if n != times {
		r.fail("the history has %d events %v of %q, want %d", n, kind, step, times)
	}
	return r
}
