package machine

import (
	"errors"
	"slices"
	"strconv"
	"testing"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// participants is a 2PC of n.
func participants(n int) *definitions.Workflow {
	b := definitions.TwoPhase("transfer").Service("bank")
	for i := range n {
		b.Participant("p" + strconv.Itoa(i)).Prepare("prepare").Commit("commit").Abort("abort").
			PhaseTwoRetry(definitions.RetryPolicy{MaxAttempts: 1})
	}
	return b.MustBuild()
}

// transactionHistories returns histories of two participants and of one that
// have every kind of event which there is of them alone, each with a checkpoint
// at its end where it has not come to one.
func transactionHistories(t testing.TB) (histories [][]Event) {
	answer := func(step int, p Phase, o Outcome, code string) Input {
		return Result{Step: step, Phase: p, Generation: 1, Attempt: 1, Outcome: o, Code: code, Worker: "w", Output: []byte("1")}
	}
	for _, c := range []struct {
		n      int
		inputs []Input
	}{
		{2, []Input{answer(0, Prepare, OutcomeReadOnly, ""), answer(1, Prepare, OutcomeSucceeded, ""),
			answer(1, Commit, OutcomeFailed, CodeHeuristicRollback)}},
		{2, []Input{answer(0, Prepare, OutcomeSucceeded, ""), answer(1, Prepare, OutcomeFailed, "no"),
			answer(0, Abort, OutcomeUnknown, "locked")}},
		{2, []Input{Cancel{By: "ann"}, answer(0, Abort, OutcomeSucceeded, "")}},
		{1, []Input{answer(0, Commit, OutcomeUnknown, "x")}},
		{1, []Input{answer(0, Commit, OutcomeFailed, CodeHeuristicCommit)}},
	} {
		s := NewState(participants(c.n))
		var history []Event
		for _, in := range append([]Input{Start{RunID: "r", Input: []byte("1")}}, c.inputs...) {
			events, err := s.Step(in, noon)
			if err != nil {
				t.Fatalf("%T: %v", in, err)
			}
			history = append(history, events...)
		}
		histories = append(histories, history)
		if !s.Status().Final() {
			histories = append(histories, append(slices.Clone(history[:len(history):len(history)]), s.Checkpoint(noon)))
		}
	}
	return histories
}

func TestADecisionThatCannotFollowIsRefused(t *testing.T) {
	voted := func(n int) *State {
		s := NewState(participants(2))
		inputs := []Input{Start{RunID: "r"}}
		for i := range n {
			inputs = append(inputs, Result{Step: i, Phase: Prepare, Generation: 1, Attempt: 1, Outcome: OutcomeSucceeded})
		}
		for _, in := range inputs {
			if _, err := s.Step(in, noon); err != nil {
				t.Fatal(err)
			}
		}
		return s
	}
	aborted := voted(1)
	if _, err := aborted.Step(Cancel{}, noon); err != nil || aborted.Decision() != DecisionAbort {
		t.Fatal(err, aborted.Decision())
	}
	saga := NewState(threeSteps())
	if _, err := saga.Step(Start{RunID: "r"}, noon); err != nil {
		t.Fatal(err)
	}
	commit, abort := Event{Kind: DecidedCommit, Step: -1}, Event{Kind: DecidedAbort, Step: -1}
	task := func(k EventKind, p Phase) Event { return Event{Kind: k, Phase: p, Generation: 1, Attempt: 2} }
	for name, c := range map[string]struct {
		state *State
		event Event
	}{
		"T3: commit before the votes":       {voted(1), commit},
		"T2, T8: commit after abort":        {aborted, commit},
		"T2: abort after commit":            {voted(2), abort},
		"T9: commit twice":                  {voted(2), commit},
		"T6: a commit task, undecided":      {voted(1), task(AttemptScheduled, Commit)},
		"T6: a commit task after abort":     {aborted, task(AttemptScheduled, Commit)},
		"T1: an abort task after commit":    {voted(2), task(AttemptScheduled, Abort)},
		"T2: a prepare after the decision":  {voted(2), task(AttemptScheduled, Prepare)},
		"the end of the other kind, commit": {voted(2), Event{Kind: RunAborted, Step: -1}},
		"the end of the other kind, abort":  {aborted, Event{Kind: RunCommitted, Step: -1}},
		"the end without a decision":        {voted(1), Event{Kind: RunCommitted, Step: -1}},
		"a saga's end":                      {voted(2), Event{Kind: RunSucceeded, Step: -1}},
		"a saga's turn":                     {voted(1), Event{Kind: TurnedBack, Step: -1}},
		"a saga's phase":                    {voted(1), task(AttemptScheduled, Action)},
		"a decision of a saga":              {saga, abort},
		"a vote of a saga's step":           {saga, task(AttemptReadOnly, Action)},
	} {
		e := c.event
		e.Seq = c.state.Seq() + 1
		if err := c.state.Apply(e); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestACheckpointWithTwoDecisionsIsRefused(t *testing.T) {
	s := NewState(participants(2))
	if _, err := s.Step(Start{RunID: "r"}, noon); err != nil {
		t.Fatal(err)
	}
	both := *s
	both.turned, both.passed = true, true
	both.status = both.present()
	if err := s.Apply(both.Checkpoint(noon)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("turned and passed: %v", err)
	}
	early := *s
	early.steps = slices.Clone(s.steps)
	early.steps[0].comp = &task{}
	if err := s.Apply(early.Checkpoint(noon)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("phase two without a decision: %v", err)
	}
}

func TestTheDecisionHasAWordForThoseWhoAsk(t *testing.T) {
	for d, want := range map[Decision]string{Undecided: "undecided", DecisionCommit: "committed", DecisionAbort: "aborted"} {
		if got := d.String(); got != want {
			t.Errorf("%d is %q, want %q", d, got, want)
		}
	}
}

// BenchmarkTwoParticipants runs a whole 2PC of two: a start and four answers.
func BenchmarkTwoParticipants(b *testing.B) {
	wf := participants(2)
	var cmds []Command
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		s := NewState(wf)
		events, err := s.Step(Start{RunID: "018f4e9a-0000-7000-8000-000000000001", Input: []byte("1")}, noon)
		for err == nil {
			buf = AppendEvents(buf[:0], events)
			if cmds = s.Commands(cmds[:0]); len(cmds) == 0 {
				break
			}
			c := cmds[0]
			events, err = s.Step(Result{
				Step: c.Step, Phase: c.Phase, Generation: c.Generation, Attempt: c.Attempt, Outcome: OutcomeSucceeded, Worker: "w1",
			}, noon)
		}
		if err != nil || s.Status() != Committed {
			b.Fatal(err, s.Status())
		}
	}
}
