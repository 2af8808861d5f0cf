package machine

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// linear is a saga of steps in a row, as the reference knows it.
type linear struct {
	attempts     []int // allowed, of each action
	undoAttempts []int // allowed, of each compensation; 0: without end
	pivot        int   // -1: none
}

// The answers of attempts: what the n-th attempt of a task says.
const (
	says      = "ok, failed, final, unknown, lost"
	saysOK    = 0
	saysFail  = 1
	saysFinal = 2
	saysDunno = 3
	saysLost  = 4
)

// reference runs a linear saga in the plainest way: a loop, and a list of what
// was sent. There are no late answers here, so nothing else can happen.
func reference(l linear, answer func(step int, p Phase, attempt int) int) (status Status, sent []string) {
	var undo []int
	turned := false
	for i := range l.attempts {
		ok, unknown := ask(i, Action, l.attempts[i], answer, &sent)
		switch {
		case ok:
			undo = append(undo, i)
			continue
		case l.pivot >= 0 && i > l.pivot, i == l.pivot && unknown:
			return Stalled, sent
		case unknown:
			undo = append(undo, i)
		}
		turned = true
		break
	}
	if !turned {
		return Succeeded, sent
	}
	for _, i := range slices.Backward(undo) {
		if ok, _ := ask(i, Compensate, l.undoAttempts[i], answer, &sent); !ok {
			return Stalled, sent
		}
	}
	return Compensated, sent
}

// ask makes attempts until one succeeds, or may not be followed by another.
func ask(i int, p Phase, limit int, answer func(int, Phase, int) int, sent *[]string) (ok, unknown bool) {
	for n := 1; ; n++ {
		*sent = append(*sent, fmt.Sprintf("%v %d#%d", p, i, n))
		switch answer(i, p, n) {
		case saysOK:
			return true, false
		case saysFail:
		case saysFinal:
			return false, unknown
		default:
			unknown = true
		}
		if limit > 0 && n == limit {
			return false, unknown
		}
	}
}

// TestLinearSagasFollowTheReference compares the core with the reference on
// random linear sagas: the same tasks in the same order, the same end.
func TestLinearSagasFollowTheReference(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 2))
	ends := map[Status]int{}
	for range 3000 {
		l := linear{pivot: -1}
		n := 1 + rng.IntN(5)
		if rng.IntN(2) == 0 {
			l.pivot = rng.IntN(n)
		}
		for range n {
			l.attempts = append(l.attempts, 1+rng.IntN(3))
			l.undoAttempts = append(l.undoAttempts, 2*rng.IntN(3))
		}
		script := map[string]int{}
		answer := func(step int, p Phase, attempt int) int {
			key := fmt.Sprint(step, p, attempt)
			if _, ok := script[key]; !ok {
				script[key] = max(0, rng.IntN(9)-4)
			}
			return script[key]
		}
		wantStatus, wantSent := reference(l, answer)
		status, sent, err := perform(l, answer)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if status != wantStatus || !slices.Equal(sent, wantSent) {
			t.Fatalf("seed %d: %+v with answers (%s) %v:\ngot  %v, sent %v\nwant %v, sent %v",
				seed, l, says, script, status, sent, wantStatus, wantSent)
		}
		ends[status]++
	}
	for _, s := range []Status{Succeeded, Compensated, Stalled} {
		if ends[s] == 0 {
			t.Errorf("no run ended %v", s)
		}
	}
}

// perform runs the core on the same saga.
func perform(l linear, answer func(int, Phase, int) int) (Status, []string, error) {
	b := definitions.Saga("linear").Service("s")
	for i := range l.attempts {
		st := b.Step(fmt.Sprintf("s%d", i)).Action("do").Retry(definitions.RetryPolicy{MaxAttempts: l.attempts[i]})
		switch {
		case i == l.pivot:
			st.Pivot()
		case l.pivot < 0 || i < l.pivot:
			st.Compensation("undo").CompensationRetry(definitions.RetryPolicy{MaxAttempts: l.undoAttempts[i]})
		}
	}
	wf, err := b.Build()
	if err != nil {
		return 0, nil, err
	}
	s := NewState(wf)
	now := time.UnixMilli(1_700_000_000_000)
	var sent []string
	events, err := s.Step(Start{RunID: "r"}, now)
	for range 1000 {
		if err != nil {
			return 0, nil, err
		}
		for _, e := range events {
			if e.Kind == AttemptScheduled {
				sent = append(sent, fmt.Sprintf("%v %d#%d", e.Phase, e.Step, e.Attempt))
			}
		}
		cmds := s.Commands(nil)
		if len(cmds) == 0 {
			if now = s.Wake(); now.IsZero() {
				return s.Status(), sent, nil
			}
			events, err = s.Step(Tick{}, now)
			continue
		}
		if len(cmds) > 1 {
			return 0, nil, fmt.Errorf("two tasks at once in a linear saga: %v", cmds)
		}
		c := cmds[0]
		says := answer(c.Step, c.Phase, int(c.Attempt))
		var in Input = Result{Step: c.Step, Phase: c.Phase, Generation: 1, Attempt: c.Attempt,
			Outcome:   [...]Outcome{OutcomeSucceeded, OutcomeFailed, OutcomeFailed, OutcomeUnknown, 0}[says],
			Retryable: says != saysFinal, Code: "error"}
		if says == saysLost {
			in = Lost{Step: c.Step, Phase: c.Phase, Generation: 1, Attempt: c.Attempt, Reason: LostVanished}
		}
		events, err = s.Step(in, now)
	}
	return 0, nil, fmt.Errorf("no end in sight, %v", s.Status())
}
