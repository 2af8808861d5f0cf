package machine

import "fmt"

// Decision is what was decided about a run with participants.
type Decision uint8

// The decisions. A decision is one event; it is taken once, and never another.
const (
	// Undecided: votes can still come in. Asked for the decision, say so, and
	// do not promise either.
	Undecided Decision = iota
	DecisionCommit
	DecisionAbort
)

// String returns "undecided", "committed" or "aborted": the answer to a
// participant that asks for the decision.
func (d Decision) String() string {
	switch d {
	case DecisionCommit:
		return "committed"
	case DecisionAbort:
		return "aborted"
	}
	return "undecided"
}

// Decision is what was decided. It is an answer to give only once the events
// that Step returned are durable. A saga is never decided.
func (s *State) Decision() Decision {
	switch {
	case !s.participants:
		return Undecided
	case s.passed:
		return DecisionCommit
	case s.turned:
		return DecisionAbort
	}
	return Undecided
}

// Heuristic tells whether a participant has said that it decided by itself, be
// it in agreement with the run or against it.
func (s *State) Heuristic() bool { return s.heuristic }

// has tells whether the run's steps or participants have phase p.
func (s *State) has(p Phase) bool {
	if s.participants {
		return p >= Prepare && p <= Abort
	}
	return p == Action || p == Compensate
}

// phases returns the phase with which each step or participant begins, and the
// one that follows; 0 if none does, or if that is not decided.
func (s *State) phases() (one, two Phase) {
	switch {
	case !s.participants:
		return Action, Compensate
	case s.single:
		return Commit, 0
	case s.passed:
		return Prepare, Commit
	case s.turned:
		return Prepare, Abort
	}
	return Prepare, 0
}

// OnePhase tells whether a task of phase p is a commit in one phase: that of a
// participant that is alone and does not prepare.
func (s *State) OnePhase(p Phase) bool { return s.single && p == Commit }

// reached tells whether there can have been a task of phase p by now.
func (s *State) reached(p Phase) bool {
	one, two := s.phases()
	return p != 0 && (p == one || p == two)
}

// decided tells whether the run has its decision.
func (s *State) decided() bool { return s.passed || s.turned }

// unanimous tells whether every participant has voted yes.
func (s *State) unanimous() bool {
	for i := range s.steps {
		if st := s.steps[i].state; st != stepSucceeded && st != stepSkipped {
			return false
		}
	}
	return true
}

// concerned tells whether participant i is to be told the decision: to commit
// if it voted yes; to abort unless it is certain that there is nothing to abort.
func (s *State) concerned(i int) bool {
	st := s.steps[i].state
	switch {
	case s.single:
		return false
	case s.passed:
		return st == stepSucceeded
	case s.turned:
		return st == stepSucceeded || st == stepUnknown || st == stepActive
	}
	return false
}

// mayAbort tells whether the run may be aborted although no participant said
// no: the commit of a single one must not be in the balance.
func (s *State) mayAbort() bool {
	if s.decided() {
		return false
	}
	if !s.single {
		return true
	}
	st := &s.steps[0]
	return st.state == stepPending || st.state == stepActive && !st.action.outstanding && st.action.unknown == 0
}

// coordinate moves a run with participants on as far as it goes.
func (d *decision) coordinate() {
	if !d.decided() {
		d.decide()
	}
	if !d.decided() {
		return
	}
	if d.passed && d.late() {
		d.emit(Event{Kind: DeadlinePassed, Step: -1}) // and changes nothing
	}
	d.deliver()
}

// late tells whether the deadline has passed and that is not yet recorded.
func (d *decision) late() bool { return d.deadline != 0 && d.now >= d.deadline && !d.overdue }

// decide decides if it can be done, or else has participants prepare.
func (d *decision) decide() {
	if d.unanimous() {
		d.decideCommit()
		return
	}
	if d.late() {
		d.emit(Event{Kind: DeadlinePassed, Step: -1})
	}
	if (d.cancelled || d.overdue) && d.mayAbort() {
		if d.cancelled {
			d.decideAbort(-1, CodeCancelled, d.cancelWhy)
		} else {
			d.decideAbort(-1, CodeDeadline, "")
		}
		return
	}
	if d.missing() >= 0 {
		return
	}
	one, _ := d.phases()
	for i := range d.steps {
		st := &d.steps[i]
		if st.state == stepPending || st.state == stepActive && st.action.waiting && st.action.retryAt <= d.now {
			d.send(i, one)
		}
		if d.decided() {
			return
		}
	}
}

// decideCommit decides to commit. The output is made first: it is the last
// thing that can fail.
func (d *decision) decideCommit() {
	e := Event{Kind: DecidedCommit, Step: -1}
	if d.wf.HasOutput() {
		output, err := d.getScope().Output()
		switch {
		case err == nil:
			e.Payload = output
		case d.single: // committed already
			d.emit(Event{Kind: OutputFailed, Step: -1, Code: CodeOutput, Message: cut(err.Error(), MaxMessageBytes)})
		default:
			d.decideAbort(-1, CodeOutput, cut(err.Error(), MaxMessageBytes))
			return
		}
	}
	d.emit(e)
}

// decideAbort decides to abort, because of participant i or (-1) for another
// reason.
func (d *decision) decideAbort(i int, code, message string) {
	d.emit(Event{Kind: DecidedAbort, Step: i, Code: code, Message: message})
}

// deliver tells the participants what was decided, and ends the run when all
// that are concerned have acknowledged it.
func (d *decision) deliver() {
	_, two := d.phases()
	open := false
	for i := range d.steps {
		st := &d.steps[i]
		if !d.concerned(i) || st.undo >= undoDone {
			continue
		}
		open = true
		if st.comp == nil || !st.comp.outstanding && st.stalled == 0 && (!st.comp.waiting || st.comp.retryAt <= d.now) {
			d.send(i, two)
		}
	}
	switch {
	case open:
	case d.passed:
		d.emit(Event{Kind: RunCommitted, Step: -1})
	default:
		d.emit(Event{Kind: RunAborted, Step: -1})
	}
}

// send schedules the next attempt of a participant's phase.
func (d *decision) send(i int, p Phase) {
	e := Event{Kind: AttemptScheduled, Step: i, Phase: p, Generation: 1, Attempt: 1}
	if t := d.task(i, p); t != nil {
		e.Attempt = t.attempt + 1
	}
	if d.first(p) && e.Attempt == 1 && d.def(i).HasInput {
		input, err := d.getScope().Input(i)
		if err != nil {
			d.refuse(i, p, 1, err)
			return
		}
		if string(input) != string(orNull(d.input)) {
			e.Payload = input
		}
	}
	d.emit(e)
}

// unprepared draws the consequence of a participant's phase that will not be
// tried again by itself. Before the decision it decides; where a decision could
// not be delivered, or a commit in one phase is in doubt, an operator is needed.
func (d *decision) unprepared(i int, p Phase, why string) {
	if !d.first(p) || d.single && d.steps[i].state == stepUnknown {
		d.emit(Event{Kind: StepStalled, Step: i, Phase: p, Code: why})
		return
	}
	d.decideAbort(i, CodeVotedNo, "")
}

// foldTransaction is for the kinds of event that only runs with participants have.
func (s *State) foldTransaction(e *Event) {
	switch e.Kind {
	case AttemptReadOnly:
		s.foldReadOnly(e)
	case HeuristicOutcome:
		s.foldHeuristic(e)
	case DecidedCommit:
		s.passed, s.output = true, e.Payload
	case DecidedAbort:
		s.foldTurned(e)
	case RunCommitted:
		s.status = Committed
		s.end()
	case RunAborted:
		s.status = Aborted
		s.end()
	}
}

// mayEndAs tells whether a run of this kind can have this final status.
func (s *State) mayEndAs(status Status) bool {
	if s.participants {
		return status == Committed && s.passed || status == Aborted && s.turned
	}
	return status == Succeeded || status == Compensated
}

// checkDecision is the part of check that concerns the decision: it comes once,
// after the votes and before phase two, and a saga has none.
func (s *State) checkDecision(e *Event, hasPhase bool) error {
	fits := true
	switch e.Kind {
	case StepSkipped, StepExpanded, TurnedBack, RunSucceeded, RunCompensated:
		fits = !s.participants
	case DecidedCommit:
		fits = s.participants && !s.decided() && s.unanimous()
	case DecidedAbort:
		fits = s.participants && !s.decided()
	case RunCommitted:
		fits = s.participants && s.passed
	case RunAborted:
		fits = s.participants && s.turned
	case AttemptReadOnly, HeuristicOutcome:
		fits = s.participants
	case AttemptScheduled:
		fits = !s.participants || !s.first(e.Phase) || !s.decided()
	}
	if hasPhase && s.participants {
		fits = fits && s.reached(e.Phase)
	}
	if !fits {
		return fmt.Errorf("%w: event %d (%v) does not fit what was decided", ErrCorrupt, e.Seq, e.Kind)
	}
	return nil
}
