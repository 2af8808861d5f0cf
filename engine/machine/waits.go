package machine

import (
	"fmt"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// enter starts a step without a task: its wait begins, or is over at once, or its
// choice is made.
func (d *decision) enter(i int) {
	if !d.wanted(i, 1) {
		return
	}
	def := d.def(i)
	switch def.Kind {
	case definitions.StepChoice:
		d.choose(i)
		return
	case definitions.StepSignal:
		if !d.takes(i) {
			d.emit(Event{Kind: WaitStarted, Step: i, Phase: Action, Until: fromMilli(d.timeout(def))})
		}
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

// timeout is when a wait for a signal that starts now is over; 0: never.
func (d *decision) timeout(def *definitions.Step) int64 {
	if def.Timeout == 0 {
		return 0
	}
	return min(d.now+def.Timeout.Milliseconds(), maxMilli)
}

// over tells whether the wait of step i has come to its end: by its time, or
// because there is a signal for it. A signal comes in time also for a step that
// has stalled.
func (d *decision) over(i int) bool {
	st := &d.steps[i]
	if st.state != stepActive && st.stalled != Action {
		return false
	}
	if st.state == stepActive && st.until != 0 && st.until <= d.now {
		return true
	}
	if len(d.signals) == 0 {
		return false
	}
	def := d.def(i)
	return def.Kind == definitions.StepSignal && d.next(def.Signal) >= 0
}

// leave ends a wait that is over.
func (d *decision) leave(i int) {
	switch {
	case d.def(i).Kind != definitions.StepSignal:
		d.emit(Event{Kind: WaitEnded, Step: i, Phase: Action})
	case !d.takes(i):
		d.timesOut(i)
	}
}

// checkWait is the part of check that concerns steps without a task: only they
// wait, and they have no attempts.
func (s *State) checkWait(e *Event) error {
	fits := true
	switch e.Kind {
	case WaitStarted:
		fits = !s.participants && s.mayWait(e)
	case WaitEnded:
		fits = !s.participants && s.mayEnd(e)
	case ChoiceMade:
		fits = !s.participants && s.mayChoose(e)
	case SignalReceived:
		fits = !s.participants && s.wf.WaitsFor(e.Name)
	case AttemptScheduled:
		fits = s.def(e.Step).Kind.HasTask()
	}
	if !fits {
		return fmt.Errorf("%w: event %d (%v) does not fit step %d", ErrCorrupt, e.Seq, e.Kind, e.Step)
	}
	return nil
}

// mayWait tells whether the wait of a step can have begun as e says.
func (s *State) mayWait(e *Event) bool {
	kind := s.def(e.Step).Kind
	waits := kind == definitions.StepSignal || kind == definitions.StepSleep && !e.Until.IsZero()
	return waits && s.steps[e.Step].state <= stepActive
}

// mayEnd tells whether the wait of a step can have ended as e says: a sleep by
// itself, one for a signal by that or by its time.
func (s *State) mayEnd(e *Event) bool {
	st, def := &s.steps[e.Step], s.def(e.Step)
	if st.state > stepActive && st.stalled != Action {
		return false
	}
	switch def.Kind {
	case definitions.StepSleep:
		return e.Name == ""
	case definitions.StepSignal:
		return (e.Name == "") == (e.Code != "") && (e.Name == "" || e.Name == def.Signal && s.next(e.Name) >= 0)
	}
	return false
}

func (s *State) foldWait(e *Event) {
	st := &s.steps[e.Step]
	st.action.waiting = false // an operator's order was followed
	s.begin(e.Step, Action)
	if e.Kind == WaitStarted {
		st.until = milli(e.Until)
		return
	}
	if st.stalled != 0 {
		s.unstall(e.Step)
	}
	st.resolved = false
	output := e.Payload
	if e.Name != "" {
		output = s.taken(e.Name)
	}
	s.applied(e.Step, output)
}

// waitWord is the state of a step that waits, in the words of the API.
func (s *State) waitWord(i int) string {
	switch s.def(i).Kind {
	case definitions.StepSleep:
		return "sleeping"
	}
	return "waiting"
}
