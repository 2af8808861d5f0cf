package machine

import (
	"fmt"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// enter starts a step without a task: its wait begins, or is over at once.
func (d *decision) enter(i int) {
	if !d.wanted(i, 1) {
		return
	}
	until, err := d.sleepsUntil(i)
	switch {
	case err != nil:
		d.refuse(i, Action, 1, err)
	case until <= d.now:
		d.emit(Event{Kind: WaitEnded, Step: i, Phase: Action})
	default:
		d.emit(Event{Kind: WaitStarted, Step: i, Phase: Action, Until: fromMilli(until)})
	}
}

// sleepsUntil is when a sleep that starts now is over.
func (d *decision) sleepsUntil(i int) (int64, error) {
	def := d.def(i)
	if !def.HasSleepUntil {
		return min(d.now+def.Sleep.Milliseconds(), maxMilli), nil
	}
	t, err := d.getScope().SleepUntil(i)
	return milli(t), err
}

// over tells whether the wait of a step has come to its end.
func (d *decision) over(st *step) bool {
	return st.state == stepActive && st.until != 0 && st.until <= d.now
}

// leave ends a wait that is over.
func (d *decision) leave(i int) {
	d.emit(Event{Kind: WaitEnded, Step: i, Phase: Action})
}

// checkWait is the part of check that concerns steps without a task: only they
// wait, and they have no attempts.
func (s *State) checkWait(e *Event) error {
	fits := true
	switch e.Kind {
	case WaitStarted, WaitEnded:
		fits = !s.participants && !s.def(e.Step).Kind.HasTask()
	case AttemptScheduled:
		fits = s.def(e.Step).Kind.HasTask()
	}
	if !fits {
		return fmt.Errorf("%w: event %d (%v) does not fit step %d", ErrCorrupt, e.Seq, e.Kind, e.Step)
	}
	return nil
}

func (s *State) foldWait(e *Event) {
	st := &s.steps[e.Step]
	st.action.waiting = false // an operator's order was followed
	s.begin(e.Step, Action)
	if e.Kind == WaitStarted {
		st.until = milli(e.Until)
		return
	}
	st.resolved = false
	s.applied(e.Step, e.Payload)
}

// waitWord is the state of a step that waits, in the words of the API.
func (s *State) waitWord(i int) string {
	switch s.def(i).Kind {
	case definitions.StepSleep:
		return "sleeping"
	}
	return "waiting"
}
