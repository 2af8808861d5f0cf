package machine

import (
	"fmt"
	"math/rand/v2"
)

// The truth about a participant, as its own durable store has it.
const (
	untouched = iota
	prepared
	committed
	aborted // or blocked: a prepare is refused from now on
	refusedForGood
	rolledByItself // heuristic
	committedByItself
)

// bank is the participants of a run: each keeps its truth through crashes, and
// answers tasks that come twice, late and in any order.
type bank struct {
	rng     *rand.Rand
	single  bool
	liar    bool // votes need not agree with one another
	perfect bool // everybody says yes at once
	truth   []int
	commits []int              // effects
	failed  map[attempt]Result // what a failure asserts holds for the attempt's repetitions
}

// perform has a participant run an attempt. The error is a wrong order of the
// coordinator.
func (w *bank) perform(a attempt) (Result, error) {
	r := Result{
		Step: a.step, Phase: a.phase, Generation: a.generation, Attempt: a.number,
		Outcome: OutcomeSucceeded, Worker: "w1", Output: []byte(`{"n":1}`),
	}
	if before, ok := w.failed[a]; ok && !w.liar {
		return before, nil
	}
	var err error
	switch {
	case w.single:
		w.commitAtOnce(a.step, &r)
	case a.phase == Prepare:
		w.prepare(a.step, &r)
	default:
		err = w.finish(a, &r)
	}
	if r.Outcome == OutcomeFailed && (w.single || a.phase == Prepare) {
		w.failed[a] = r
	}
	return r, err
}

func (w *bank) luck(n int) int {
	if w.perfect {
		return 0
	}
	return w.rng.IntN(n)
}

func (w *bank) commitAtOnce(i int, r *Result) {
	if w.truth[i] == committed {
		return
	}
	switch n := w.luck(10); {
	case n < 5:
		w.apply(i)
	case n < 7:
		r.fail(OutcomeFailed, w.rng.IntN(3) > 0)
	case n < 8:
		r.Outcome = OutcomeReadOnly
	default:
		r.fail(OutcomeUnknown, true)
		if w.rng.IntN(2) == 0 {
			w.apply(i)
		}
	}
}

func (w *bank) apply(i int) {
	w.truth[i] = committed
	w.commits[i]++
}

func (w *bank) prepare(i int, r *Result) {
	if w.liar && w.rng.IntN(4) == 0 {
		r.fail(OutcomeFailed, w.rng.IntN(2) == 0)
		return
	}
	switch w.truth[i] {
	case prepared, committed, rolledByItself, committedByItself:
		return // the stored vote
	case aborted, refusedForGood:
		r.fail(OutcomeFailed, false)
		return
	}
	switch n := w.luck(20); {
	case n < 11:
		w.truth[i] = prepared
	case n < 14:
		r.fail(OutcomeFailed, true)
	case n < 16:
		w.truth[i] = refusedForGood
		r.fail(OutcomeFailed, false)
	case n < 18:
		r.Outcome = OutcomeReadOnly
	default:
		r.fail(OutcomeUnknown, true)
		if w.rng.IntN(2) == 0 {
			w.truth[i] = prepared
		}
	}
}

// finish commits or aborts.
func (w *bank) finish(a attempt, r *Result) error {
	i, commit := a.step, a.phase == Commit
	switch truth := w.truth[i]; {
	case truth == rolledByItself:
		r.fail(OutcomeFailed, false)
		r.Code = CodeHeuristicRollback
	case truth == committedByItself:
		r.fail(OutcomeFailed, false)
		r.Code = CodeHeuristicCommit
	case commit && truth == committed, !commit && truth == aborted:
		// done already
	case commit && truth != prepared && !w.liar:
		return fmt.Errorf("T3: participant %d is to commit what it has not prepared (%d)", i, truth)
	case !commit && truth == committed && !w.liar:
		return fmt.Errorf("T1: participant %d is to abort what it has committed", i)
	case w.luck(10) == 9:
		r.fail(OutcomeFailed, w.rng.IntN(2) == 0)
	case commit:
		w.apply(i)
	case truth != refusedForGood:
		w.truth[i] = aborted
	}
	return nil
}

// decides has a prepared participant decide by itself, as it never should.
func (w *bank) decides(i int) {
	if w.truth[i] == prepared {
		w.truth[i] = rolledByItself + w.rng.IntN(2)
	}
}

// asks has a participant that has been prepared for long ask for the decision.
func (w *bank) asks(i int, d Decision) {
	switch {
	case w.single || w.truth[i] != prepared || d == Undecided:
	case d == DecisionCommit:
		w.apply(i)
	default:
		w.truth[i] = aborted
	}
}

func (r *Result) fail(o Outcome, retryable bool) {
	r.Outcome, r.Output, r.Code, r.Retryable = o, nil, "error", retryable
}

// audit compares the truth with how the run ended.
func (w *bank) audit(s *State, left func(i int) bool) error {
	byItself := false
	for i, truth := range w.truth {
		alone := truth == rolledByItself || truth == committedByItself
		byItself = byItself || alone
		switch {
		case w.commits[i] > 1:
			return fmt.Errorf("T11: participant %d has committed %d times", i, w.commits[i])
		case truth == prepared && !w.single:
			return fmt.Errorf("T5: participant %d is in doubt although the run is %v", i, s.Status())
		case left(i) || alone:
		case truth == committed && s.Status() != Committed:
			return fmt.Errorf("T1: participant %d has committed, the run is %v", i, s.Status())
		case truth == aborted && s.Status() == Committed && s.StepView(i).State == "succeeded":
			return fmt.Errorf("T1: participant %d has aborted, the run is %v", i, s.Status())
		case s.Status() == Committed && s.StepView(i).State == "succeeded" && truth != committed:
			return fmt.Errorf("T1: the run has committed, participant %d has not (%d)", i, truth)
		}
	}
	return nil
}

// auditor watches a run's events, and nothing else, and checks what they say.
type auditor struct {
	single   bool
	votes    []string // "", asked, yes, read-only, no, unknown; the last that counts
	sent     []map[uint32]bool
	finished []bool // acknowledged, heuristic, skipped or resolved
	alone    bool
	decision Decision
	ended    bool
}

func newAuditor(n int) *auditor {
	o := &auditor{single: n == 1, votes: make([]string, n), finished: make([]bool, n)}
	for range n {
		o.sent = append(o.sent, map[uint32]bool{})
	}
	return o
}

func (o *auditor) see(e Event) error {
	if o.ended {
		return fmt.Errorf("T2: %v after the end", e.Kind)
	}
	vote := e.Phase == Prepare || o.single && e.Phase == Commit
	switch e.Kind {
	case AttemptScheduled:
		return o.scheduled(e, vote)
	case AttemptSucceeded, AttemptReadOnly:
		if !vote {
			o.finished[e.Step] = true
			return nil
		}
		delete(o.sent[e.Step], e.Attempt)
		o.votes[e.Step] = "yes"
		if e.Kind == AttemptReadOnly {
			o.votes[e.Step] = "read-only"
		}
	case AttemptFailed, AttemptWithdrawn:
		if vote {
			delete(o.sent[e.Step], e.Attempt)
			if o.votes[e.Step] == "yes" {
				o.sent[e.Step][0] = true // it has said both
			}
			o.votes[e.Step] = "no"
		}
	case AttemptExpired:
		if vote && !e.Sent {
			delete(o.sent[e.Step], e.Attempt)
		}
	case HeuristicOutcome:
		o.alone, o.finished[e.Step] = true, true
		if o.single && e.Code == CodeHeuristicCommit {
			o.votes[e.Step] = "yes"
		}
	case StepResolved:
		o.finished[e.Step] = true
		if vote && e.Applied {
			o.votes[e.Step] = "yes"
		}
	case SkipOrdered:
		o.finished[e.Step] = true
	case DecidedCommit, DecidedAbort:
		return o.decided(e)
	case RunCommitted, RunAborted:
		return o.end(e)
	}
	return nil
}

func (o *auditor) scheduled(e Event, vote bool) error {
	switch {
	case vote && o.decision != Undecided:
		return fmt.Errorf("T2: a prepare after the decision")
	case vote:
		o.sent[e.Step][e.Attempt] = true
		return nil
	case e.Phase == Commit && o.decision != DecisionCommit, e.Phase == Abort && o.decision != DecisionAbort:
		return fmt.Errorf("T6: %v of %d, and the decision is %v", e.Phase, e.Step, o.decision)
	case o.votes[e.Step] == "read-only":
		return fmt.Errorf("T11: %v of the read-only participant %d", e.Phase, e.Step)
	case o.finished[e.Step]:
		return fmt.Errorf("T11: %v of %d, which has acknowledged", e.Phase, e.Step)
	}
	return nil
}

func (o *auditor) decided(e Event) error {
	if o.decision != Undecided {
		return fmt.Errorf("T2, T9: %v after the decision %v", e.Kind, o.decision)
	}
	o.decision = DecisionAbort
	if e.Kind == DecidedCommit {
		o.decision = DecisionCommit
		for i, v := range o.votes {
			if v != "yes" && v != "read-only" {
				return fmt.Errorf("T3: commit, but participant %d has said %q", i, v)
			}
		}
	}
	if e.Kind == DecidedAbort && e.Code == CodeVotedNo && !o.single {
		if v := o.votes[e.Step]; v == "yes" || v == "read-only" {
			return fmt.Errorf("T4: abort because of participant %d, which has said %q", e.Step, v)
		}
	}
	return nil
}

func (o *auditor) end(e Event) error {
	o.ended = true
	if (e.Kind == RunCommitted) != (o.decision == DecisionCommit) || o.decision == Undecided {
		return fmt.Errorf("T2: %v, and the decision is %v", e.Kind, o.decision)
	}
	for i, v := range o.votes {
		switch {
		case o.single || o.finished[i]:
		case o.decision == DecisionCommit && v == "yes":
			return fmt.Errorf("T10: forgotten before participant %d acknowledged its commit", i)
		case o.decision == DecisionAbort && (v == "yes" || v != "read-only" && len(o.sent[i]) > 0):
			return fmt.Errorf("T10: forgotten before participant %d acknowledged its abort", i)
		}
	}
	return nil
}
