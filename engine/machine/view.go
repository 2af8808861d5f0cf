package machine

import "time"

// StepView is a step as users see it.
type StepView struct {
	// Items is the number of items of a step that has fanned out. Such a step has
	// no attempts of its own; its State is made of those of its items.
	Items int

	// State is one of pending, running, retrying, succeeded, skipped, failed,
	// unknown, compensating, compensated, stalled, waived, resolved; of a step
	// that waits, sleeping, or waiting for a signal. A running
	// step has an attempt outstanding; whether that waits for a worker or is
	// with one, the shell knows.
	//
	// A participant is running or retrying while it prepares, succeeded when it
	// has voted yes, skipped when it voted read-only, failed when it certainly
	// did not prepare, unknown when it may have. In phase two it is running or
	// retrying while it is to commit and succeeded when it has; compensating
	// while it is to abort and compensated when it has; waived when it decided
	// by itself (Code says what) or an operator left it.
	State string

	Attempts             int    // of the action; of prepare, or of a commit in one phase
	CompensationAttempts int    // of the compensation; of a commit or abort in phase two
	Generation           uint32 // of the task of Phase; 0 if there is none yet

	// Phase is what the step is at, or was at last: Action or Compensate; of a
	// participant Prepare, Commit or Abort.
	Phase Phase
	// Attempt is the number of its last attempt; Outstanding, whether that is
	// yet to be answered.
	Attempt     uint32
	Outstanding bool

	// Child is the id of the run that the last attempt of a child step is.
	Child string

	Output  []byte // of the action, of prepare or of a commit in one phase; empty is null
	Worker  string // that answered last
	Code    string // of the last failure, as are Message and Stack
	Message string
	Stack   string

	NextAttempt time.Time // zero: none is waiting
	Until       time.Time // when the wait of the step ends by itself; zero: it does not wait
	Started     time.Time // first attempt of the action
	Ended       time.Time // when it came to its State; zero while it is under way
}

// StepView returns step i, 0 <= i < number of steps, as users see it.
func (s *State) StepView(i int) StepView {
	st := &s.steps[i]
	one, two := s.phases()
	v := StepView{
		State: s.word(i), Attempts: int(st.action.total), Output: st.output, Worker: st.worker,
		Child: s.childView(i), Phase: one, Started: fromMilli(st.started), Ended: fromMilli(st.ended),
	}
	if st.fan != nil {
		v.Items = st.fan.n
	}
	t := &st.action
	if st.comp != nil {
		v.CompensationAttempts = int(st.comp.total)
		v.Phase = two
		t = st.comp
	}
	v.Generation, v.Attempt, v.Outstanding = t.generation, t.attempt, t.outstanding
	if st.fail != nil {
		v.Code, v.Message, v.Stack = st.fail.code, st.fail.message, st.fail.stack
	}
	if t.waiting && !s.status.Final() {
		v.NextAttempt = fromMilli(t.retryAt)
	}
	v.Until = fromMilli(st.until)
	if st.fan != nil && st.state == stepActive && s.status.Final() {
		for k := st.fan.first; k < st.fan.first+st.fan.n; k++ {
			v.Ended = later(v.Ended, fromMilli(s.steps[k].ended))
		}
		return v
	}
	if st.state == stepActive && st.undo < undoDone || st.undo == undoActive || st.stalled != 0 {
		v.Ended = time.Time{}
	}
	return v
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// word is the state of step i in the words of the API.
func (s *State) word(i int) string {
	if s.participants {
		return s.participantWord(i)
	}
	st := &s.steps[i]
	if st.fan != nil {
		return s.fanWord(i)
	}
	if st.stalled != 0 {
		return "stalled"
	}
	if st.state == stepActive && !s.def(i).Kind.HasTask() {
		return s.waitWord(i)
	}
	switch st.undo {
	case undoActive:
		return "compensating"
	case undoDone:
		return "compensated"
	case undoWaived:
		return "waived"
	case undoResolved:
		return "resolved"
	}
	return st.word()
}

// word is the state of an action or a vote in the words of the API.
func (st *step) word() string {
	switch st.state {
	case stepActive:
		if st.action.waiting {
			return "retrying"
		}
		return "running"
	case stepSucceeded:
		if st.resolved {
			return "resolved"
		}
		return "succeeded"
	case stepSkipped:
		return "skipped"
	case stepFailed:
		return "failed"
	case stepUnknown:
		return "unknown"
	}
	return "pending"
}
