package machine

import "fmt"

// Apply folds one event of the history. It refuses, with an error that wraps
// ErrCorrupt and without effect, an event that cannot follow.
func (s *State) Apply(e Event) error { return s.apply(&e) }

func (s *State) apply(e *Event) error {
	if e.Kind == Checkpointed {
		return s.restore(e)
	}
	if err := s.check(e); err != nil {
		return err
	}
	s.fold(e)
	return nil
}

// check tells whether e can be the next event, as far as fold depends on it.
func (s *State) check(e *Event) error {
	if e.Seq != s.seq+1 {
		return fmt.Errorf("%w: event %d follows event %d", ErrCorrupt, e.Seq, s.seq)
	}
	if (e.Kind == RunStarted) != (s.seq == 0) || s.status.Final() {
		return fmt.Errorf("%w: event %d (%v) out of place", ErrCorrupt, e.Seq, e.Kind)
	}
	if e.Step < -1 || e.Step >= len(s.steps) {
		return fmt.Errorf("%w: event %d (%v) names step %d of %d", ErrCorrupt, e.Seq, e.Kind, e.Step, len(s.steps))
	}
	needsStep, needsPhase := false, false
	switch e.Kind {
	case AttemptScheduled, AttemptSucceeded, AttemptFailed, AttemptUnknown, AttemptLost, AttemptExpired,
		AttemptWithdrawn, AttemptClosed, StepFailed, StepStalled, RetryOrdered, SkipOrdered, StepResolved:
		needsStep, needsPhase = true, true
	case StepSkipped, WaitStarted, WaitEnded, ChoiceMade, StepExpanded:
		needsStep = true
	case RunStarted, SignalReceived, TurnedBack, CancelRequested, DeadlinePassed, OutputFailed, RunSucceeded, RunCompensated:
	case AttemptReadOnly, HeuristicOutcome:
		needsStep, needsPhase = true, true
	case DecidedCommit, DecidedAbort, RunCommitted, RunAborted:
	case LocksWanted, LockGranted:
	default:
		return fmt.Errorf("%w: event %d is of no known kind", ErrCorrupt, e.Seq)
	}
	if needsStep && e.Step < 0 || needsPhase && !s.has(e.Phase) {
		return fmt.Errorf("%w: event %d (%v) names no step or phase", ErrCorrupt, e.Seq, e.Kind)
	}
	if err := s.checkWait(e); err != nil {
		return err
	}
	if err := s.checkItems(e); err != nil {
		return err
	}
	if err := s.checkLock(e); err != nil {
		return err
	}
	return s.checkDecision(e, needsPhase)
}

// fold applies an event that check accepts. It does not fail.
func (s *State) fold(e *Event) {
	s.seq = e.Seq
	s.at = milli(e.At)
	switch e.Kind {
	case RunStarted:
		s.runID, s.key, s.retryOf, s.priority = e.RunID, e.Key, e.RetryOf, e.Priority
		s.parent = e.Parent
		s.input = e.Payload
		s.created, s.deadline = s.at, milli(e.Until)
		s.status = Running
	case AttemptScheduled:
		s.foldScheduled(e)
	case AttemptSucceeded:
		s.foldSucceeded(e)
	case AttemptFailed, AttemptUnknown, AttemptLost, AttemptExpired, AttemptWithdrawn:
		s.foldUnsuccessful(e)
	case AttemptClosed:
		s.task(e.Step, e.Phase).close(e)
	case StepSkipped:
		s.settle(e.Step, stepSkipped)
	case StepFailed:
		t := s.ensure(e.Step, e.Phase)
		t.generation = e.Generation
		t.waiting = false
		s.steps[e.Step].fail = &failure{e.Code, e.Message, e.Stack}
		s.begin(e.Step, e.Phase)
		s.giveUp(e.Step, e.Phase)
	case StepStalled:
		s.stall(e.Step, e.Phase)
	case TurnedBack:
		s.foldTurned(e)
	case CancelRequested:
		s.cancelled, s.cancelWhy = true, e.Message
	case DeadlinePassed:
		s.overdue = true
	case RetryOrdered, SkipOrdered, StepResolved:
		s.foldOrder(e)
	case WaitStarted, WaitEnded:
		s.foldWait(e)
	case StepExpanded:
		s.foldExpanded(e)
	case LocksWanted, LockGranted:
		s.foldLock(e)
	case SignalReceived:
		s.foldSignal(e)
	case ChoiceMade:
		s.foldChoice(e)
	case OutputFailed:
	case RunSucceeded:
		s.output = e.Payload
		s.status = Succeeded
		s.end()
	case RunCompensated:
		s.status = Compensated
		s.end()
	default:
		s.foldTransaction(e)
	}
	if e.Step >= s.wf.Len() {
		s.touch(e.Step)
	}
	if !s.status.Final() {
		s.status = s.present()
	}
}

// present is the status of a run that has not ended.
func (s *State) present() Status {
	switch {
	case s.stalls > 0:
		return Stalled
	case s.turned:
		return Compensating
	}
	return Running
}

// end lets go of what an ended run needs no longer.
func (s *State) end() {
	s.scope, s.order = nil, nil
}

// begin marks the phase of a step as started.
func (s *State) begin(i int, p Phase) {
	st := &s.steps[i]
	if st.started == 0 {
		st.started = s.at
	}
	if !s.first(p) {
		if st.undo == undoNone {
			st.undo = undoActive
		}
	} else if st.state == stepPending {
		st.state = stepActive
	}
}

func (s *State) foldScheduled(e *Event) {
	t := s.ensure(e.Step, e.Phase)
	t.generation, t.attempt = e.Generation, e.Attempt
	t.total++
	if t.round++; t.round == 1 {
		t.roundAt = s.at
	}
	t.scheduled = s.at
	t.outstanding, t.waiting = true, false
	if len(e.Payload) > 0 {
		t.input = e.Payload
	}
	s.begin(e.Step, e.Phase)
}

// close marks the attempt that e names as answered, if it is the outstanding one.
func (t *task) close(e *Event) {
	if t != nil && t.generation == e.Generation && t.attempt == e.Attempt {
		t.outstanding = false
	}
}

func (s *State) foldSucceeded(e *Event) {
	st := &s.steps[e.Step]
	t := s.ensure(e.Step, e.Phase)
	t.close(e)
	t.waiting, t.progress = false, nil
	if e.Worker != "" {
		st.worker = e.Worker
	}
	if st.stalled == e.Phase {
		s.unstall(e.Step)
	}
	if !s.first(e.Phase) {
		st.undo = undoDone
		st.ended = s.at
		return
	}
	st.resolved = false
	s.applied(e.Step, e.Payload)
}

// applied settles an action as succeeded. After the turn that means that there
// is an effect to compensate.
func (s *State) applied(i int, output []byte) {
	st := &s.steps[i]
	if of, _, ok := s.ItemOf(i); ok {
		s.steps[of].fan.outputs += len(output) - len(st.output)
	}
	st.output = output
	if s.scope != nil && i < s.wf.Len() {
		s.scope.SetOutput(i, orNull(output))
	}
	s.settle(i, stepSucceeded)
	if s.turned && s.def(i).Pivot {
		s.waived = true // nothing undoes a pivot
	}
}

// settle ends the action of a step.
func (s *State) settle(i int, state stepState) {
	st := &s.steps[i]
	st.state = state
	st.until = 0
	st.ended = s.at
	if !s.turned && (state == stepSucceeded || state == stepSkipped) && s.def(i).Pivot {
		s.passed = true
	}
}

// foldUnsuccessful is for attempts that came to an end without success.
func (s *State) foldUnsuccessful(e *Event) {
	t := s.ensure(e.Step, e.Phase)
	if len(e.Payload) > 0 {
		t.progress = e.Payload
	}
	if s.participants && s.foldNo(t, e) {
		return
	}
	if e.Late {
		// Only written where it makes the outcome known again.
		t.unknown, t.lost = 0, 0
		return
	}
	t.close(e)
	st := &s.steps[e.Step]
	if e.Worker != "" {
		st.worker = e.Worker
	}
	switch e.Kind {
	case AttemptWithdrawn:
		t.total--
		t.round--
	case AttemptFailed:
		st.fail = &failure{e.Code, e.Message, e.Stack}
	default:
		st.fail = &failure{e.Code, e.Message, e.Stack}
		if e.Kind == AttemptExpired && !e.Sent {
			break
		}
		t.unknown++
		t.lost = 0
		if e.Kind != AttemptUnknown {
			t.lost = e.Attempt
		}
		if e.Kind == AttemptLost && (e.Code == LostWorkerDied.code() || e.Code == CodeIsolated) {
			t.deaths++
		}
	}
	if s.turned && s.first(e.Phase) {
		s.abandon(e.Step)
		s.release(e.Step)
		return
	}
	if !e.Until.IsZero() {
		t.waiting, t.retryAt = true, milli(e.Until)
		return
	}
	s.giveUp(e.Step, e.Phase)
}

// giveUp settles a phase that will not be tried again by itself. A
// compensation stays as it is: an event that stalls it follows.
func (s *State) giveUp(i int, p Phase) {
	if !s.first(p) {
		return
	}
	if s.steps[i].action.unknown > 0 {
		s.settle(i, stepUnknown)
	} else {
		s.settle(i, stepFailed)
	}
}

// abandon settles an action that was under way when the run turned back.
func (s *State) abandon(i int) {
	t := &s.steps[i].action
	t.waiting = false
	if t.total == 0 {
		s.steps[i].state = stepPending // it was withdrawn, or a wait: as if it had never started
		s.steps[i].started, s.steps[i].until = 0, 0
		return
	}
	s.giveUp(i, Action)
}

func (s *State) foldTurned(e *Event) {
	s.turned = true
	s.turnedBy = e.Step
	s.turnCode, s.turnMessage = e.Code, e.Message
	if e.Step >= 0 {
		if f := s.steps[e.Step].fail; f != nil {
			s.turnCode, s.turnMessage = f.code, f.message
		}
	}
	for i := range s.steps {
		if st := &s.steps[i]; st.state == stepActive && !st.action.outstanding && st.fan == nil {
			s.abandon(i)
		}
		if i >= s.wf.Len() {
			s.touch(i)
		}
	}
}

func (s *State) stall(i int, p Phase) {
	if s.steps[i].stalled == 0 {
		s.stalls++
	}
	s.steps[i].stalled = p
}

func (s *State) unstall(i int) {
	if s.steps[i].stalled != 0 {
		s.stalls--
	}
	s.steps[i].stalled = 0
}

// foldOrder is for what an operator says about a stalled step.
func (s *State) foldOrder(e *Event) {
	st := &s.steps[e.Step]
	t := s.ensure(e.Step, e.Phase)
	s.unstall(e.Step)
	t.waiting = false
	switch e.Kind {
	case RetryOrdered:
		s.foldRetry(st, t, e)
	case SkipOrdered:
		if s.first(e.Phase) {
			s.settle(e.Step, stepSkipped)
			return
		}
		st.undo = undoWaived
		st.ended = s.at
		s.waived = true
	case StepResolved:
		if !s.first(e.Phase) {
			st.undo = undoResolved
			st.ended = s.at
			return
		}
		st.resolved = true
		if e.Applied {
			s.applied(e.Step, e.Payload)
		} else {
			s.settle(e.Step, stepFailed)
		}
	}
}

func (s *State) foldRetry(st *step, t *task, e *Event) {
	t.round, t.deaths = 0, 0
	t.waiting, t.retryAt = true, s.at
	if s.first(e.Phase) {
		st.state = stepActive
		st.ended = 0
	}
	if len(e.Payload) > 0 {
		t.generation, t.attempt = e.Generation, 0
		t.unknown, t.lost = 0, 0
		t.ordered, t.input, t.progress = true, e.Payload, nil
	}
}
