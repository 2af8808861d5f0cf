package machine

import "slices"

// answer takes what a participant says: its vote, or its acknowledgement.
func (d *decision) answer(a attempt, at standing, in *Result) {
	if d.first(a.phase) {
		d.vote(a, at, in)
	} else {
		d.acknowledge(a, at, in)
	}
}

// isHeuristic tells whether the answer says that the participant has decided by
// itself. An attempt that may have been sent twice has its failure turned into
// an unknown outcome on the way: in phase two the code counts all the same; of a
// commit in one phase it does not, since the other copy may have committed.
func (s *State) isHeuristic(in *Result) bool {
	if in.Outcome != OutcomeFailed && (in.Outcome != OutcomeUnknown || s.single) {
		return false
	}
	return in.Code == CodeHeuristicCommit || in.Code == CodeHeuristicRollback || in.Code == CodeHeuristicMixed
}

// vote takes the answer to a prepare, or to a commit in one phase.
func (d *decision) vote(a attempt, at standing, in *Result) {
	st := &d.steps[a.step]
	// Votes that agree with the state end here, and so do those that come after
	// the abort was acknowledged.
	counted := st.state == stepSucceeded || st.undo >= undoDone
	switch {
	case d.single && d.isHeuristic(in):
		d.decidesByItself(a, in)
	case in.Outcome == OutcomeSucceeded && !counted,
		in.Outcome == OutcomeReadOnly && (st.state == stepActive || d.single) && !counted:
		e := a.event(AttemptSucceeded)
		if in.Outcome == OutcomeReadOnly {
			e.Kind = AttemptReadOnly
		}
		e.Worker, e.Payload, e.Late = in.Worker, in.Output, at == stale
		d.emit(e)
	case d.votesNo(a, at, in):
		e := a.failed(in)
		e.Late = at == stale
		d.emit(e)
		d.decideAbort(a.step, CodeVotedNo, "")
	case at == stale:
		if in.Outcome == OutcomeFailed && d.clears(a) {
			e := a.failed(in)
			e.Late = true
			d.emit(e)
		}
	case d.settled(a.step, a.phase), in.Outcome == OutcomeSucceeded, in.Outcome == OutcomeReadOnly:
		d.closeAttempt(a, in.Worker)
	default:
		d.unsuccessful(a.failed(in), in.Retryable)
	}
}

// votesNo tells whether the answer is a no for good that the run's own
// bookkeeping of attempts would pass over: of an attempt that is no longer
// waited for, or after a yes. Until the decision any no prevents the commit.
func (s *State) votesNo(a attempt, at standing, in *Result) bool {
	if s.decided() || s.single || in.Outcome != OutcomeFailed {
		return false
	}
	if in.Retryable && !slices.Contains(s.policy(a.step, a.phase).NonRetryable, in.Code) {
		return false
	}
	return at == stale || s.settled(a.step, a.phase)
}

// acknowledge takes the answer to a commit or an abort in phase two.
func (d *decision) acknowledge(a attempt, at standing, in *Result) {
	st := &d.steps[a.step]
	switch {
	case d.isHeuristic(in) && !st.heuristic:
		d.decidesByItself(a, in)
	case st.undo < undoDone && (in.Outcome == OutcomeSucceeded || in.Outcome == OutcomeReadOnly):
		e := a.event(AttemptSucceeded)
		e.Worker, e.Payload, e.Late = in.Worker, in.Output, at == stale
		d.emit(e)
	case at == stale:
	case d.settled(a.step, a.phase):
		d.closeAttempt(a, in.Worker)
	default:
		// The decision is delivered until it is acknowledged: that the worker
		// calls its failure final does not end that, the policy may.
		d.unsuccessful(a.failed(in), true)
	}
}

// decidesByItself records a heuristic outcome.
func (d *decision) decidesByItself(a attempt, in *Result) {
	e := a.failed(in)
	e.Kind = HeuristicOutcome
	d.emit(e)
	if d.first(a.phase) && in.Code != CodeHeuristicCommit {
		d.decideAbort(a.step, CodeVotedNo, "")
	}
}

func (s *State) foldReadOnly(e *Event) {
	st := &s.steps[e.Step]
	t := s.ensure(e.Step, e.Phase)
	t.close(e)
	t.waiting = false
	t.learn(e)
	if e.Worker != "" {
		st.worker = e.Worker
	}
	if st.stalled == e.Phase {
		s.unstall(e.Step)
	}
	st.resolved = false
	s.applied(e.Step, e.Payload)
	s.settle(e.Step, stepSkipped)
	s.release(e.Step)
}

// release ends the abort of a participant that turns out to have nothing to
// abort. An attempt that is outstanding is given up.
func (s *State) release(i int) {
	st := &s.steps[i]
	if !s.participants || st.comp == nil || s.concerned(i) {
		return
	}
	st.comp.waiting = false
	if st.stalled == Abort {
		s.unstall(i)
	}
}

// learn takes note that an attempt is known not to have prepared: if it was the
// only one in doubt, none is.
func (t *task) learn(e *Event) {
	if t.unknown == 1 && t.lost == e.Attempt {
		t.unknown, t.lost = 0, 0
	}
}

// foldNo is for a failure that comes late, or after a yes of the same
// participant. It tells whether e is one.
func (s *State) foldNo(t *task, e *Event) bool {
	st := &s.steps[e.Step]
	voted := s.first(e.Phase) && (st.state == stepSucceeded || st.state == stepSkipped)
	if e.Kind != AttemptFailed || !e.Late && !voted {
		return false
	}
	t.close(e)
	t.learn(e)
	if e.Worker != "" {
		st.worker = e.Worker
	}
	st.fail = &failure{e.Code, e.Message, e.Stack}
	switch {
	case !voted:
	case st.state == stepSucceeded || t.outstanding || t.unknown > 0:
		s.settle(e.Step, stepUnknown) // it has said both, or may yet: abort it
	default:
		s.settle(e.Step, stepFailed)
	}
	return true
}

func (s *State) foldHeuristic(e *Event) {
	st := &s.steps[e.Step]
	t := s.ensure(e.Step, e.Phase)
	t.close(e)
	t.waiting = false
	if e.Worker != "" {
		st.worker = e.Worker
	}
	if st.stalled == e.Phase {
		s.unstall(e.Step)
	}
	st.fail = &failure{e.Code, e.Message, e.Stack}
	st.heuristic, s.heuristic = true, true
	switch {
	case s.first(e.Phase) && e.Code == CodeHeuristicCommit:
		s.settle(e.Step, stepSucceeded)
	case s.first(e.Phase):
		s.settle(e.Step, stepFailed)
	case st.undo < undoDone:
		st.undo = undoDone
		st.ended = s.at
	}
}

// participantWord is the state of participant i in the words of the API.
func (s *State) participantWord(i int) string {
	st := &s.steps[i]
	switch {
	case st.stalled != 0:
		return "stalled"
	case st.heuristic:
		return "waived"
	case st.comp == nil || st.undo < undoDone && !s.concerned(i):
		return st.word()
	case st.undo == undoWaived:
		return "waived"
	case st.undo == undoResolved:
		return "resolved"
	case st.undo == undoDone && s.turned:
		return "compensated"
	case st.undo == undoDone:
		return "succeeded"
	case s.turned:
		return "compensating"
	case st.comp.waiting:
		return "retrying"
	}
	return "running"
}
