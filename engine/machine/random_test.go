package machine

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// randomWorkflow is a saga of up to eight steps, with or without a pivot.
func randomWorkflow(rng *rand.Rand) *definitions.Workflow {
	b := definitions.Saga("random").Service("s")
	before, after := 1+rng.IntN(5), 0
	pivot := rng.IntN(2) == 0
	if pivot {
		after = rng.IntN(3)
		before--
	}
	name := func(i int) string { return "s" + strconv.Itoa(i) }
	used := map[int]bool{}
	choices := map[int]bool{}
	add := func(i, from, to int) *definitions.StepBuilder {
		st := b.Step(name(i))
		var preds []string
		for j := from; j < to; j++ {
			if rng.IntN(2) == 0 || j == to-1 && rng.IntN(3) > 0 {
				preds = append(preds, name(j))
				used[j] = true
				branch(rng, st, name(j), choices[j])
			}
		}
		st.After(preds...)
		return st
	}
	for i := range before {
		st := add(i, 0, i)
		if rng.IntN(6) == 0 {
			choices[i] = wait(rng, st)
			continue
		}
		undo := act(rng, st)
		if rng.IntN(5) == 0 {
			st.NoCompensation("cannot be undone")
		} else {
			st.Compensation(undo).CompensationRetry(randomPolicy(rng))
		}
		decorate(rng, st)
		fanOut(rng, st)
	}
	if pivot {
		var preds []string
		for j := range before {
			if !used[j] {
				preds = append(preds, name(j))
			}
		}
		st := b.Step(name(before)).Pivot().After(preds...)
		act(rng, st)
		decorate(rng, st)
		for i := before + 1; i < before+1+after; i++ {
			st := b.Step(name(i)).After(name(before))
			if i > before+1 && rng.IntN(2) == 0 {
				st.After(name(before), name(i-1))
				branch(rng, st, name(i-1), choices[i-1])
			}
			for j := range before {
				branch(rng, st, name(j), choices[j])
			}
			if rng.IntN(4) == 0 {
				choices[i] = wait(rng, st)
				continue
			}
			act(rng, st)
			decorate(rng, st)
			fanOut(rng, st)
		}
	}
	if rng.IntN(4) == 0 {
		b.Deadline(time.Duration(1+rng.IntN(20)) * time.Second)
	}
	if rng.IntN(4) == 0 {
		b.Lock("['a', 'b', 'c']").LockShared("'a/b'")
	}
	return b.MustBuild()
}

// lockAnswer answers a run that asks for a lock, if it does.
func lockAnswer(rng *rand.Rand, s *State, faithful bool) (Input, bool) {
	l, ok := s.NextLock()
	if !ok {
		return nil, false
	}
	if !faithful && rng.IntN(20) == 0 {
		return Refused{Lock: l.Name, Message: "full"}, true
	}
	if all := s.Locks(); !faithful && rng.IntN(5) == 0 {
		l = all[rng.IntN(len(all))] // an answer of before comes again
	}
	return Granted{Lock: l.Name, Token: 1 + uint64(rng.IntN(100))}, true
}

// branch puts a step on a branch of a choice before it, or not.
func branch(rng *rand.Rand, st *definitions.StepBuilder, before string, chooses bool) {
	if chooses && rng.IntN(3) > 0 {
		st.Branch(before, []string{"a", "b"}[rng.IntN(2)])
	}
}

// wait makes a step one without a task; it tells whether that is a choice.
func wait(rng *rand.Rand, st *definitions.StepBuilder) (chooses bool) {
	switch rng.IntN(7) {
	case 5, 6:
		st.Choice().Case("a", "input.n > 1").Case("b", []string{"input.n == 1", "input.n > 2", "input.missing"}[rng.IntN(3)])
		if rng.IntN(2) == 0 {
			st.Otherwise("c")
		}
		chooses = true
	case 3, 4:
		st.WaitSignal("g" + strconv.Itoa(rng.IntN(2)))
		if rng.IntN(3) == 0 {
			st.Timeout(time.Duration(1+rng.IntN(5000)) * time.Millisecond)
			if rng.IntN(2) == 0 {
				st.TimeoutOutput([]string{"{'late': input.n}", "input.missing"}[rng.IntN(2)])
			}
		}
	case 0:
		st.Sleep(time.Duration(1+rng.IntN(5000)) * time.Millisecond)
	case 1:
		st.SleepUntil("1700000000 + " + strconv.Itoa(rng.IntN(20)-5))
	default:
		st.SleepUntil([]string{"input.missing", "input.n + 5", "'tomorrow'"}[rng.IntN(3)])
	}
	if rng.IntN(10) == 0 {
		st.When("input.n > 1")
	}
	return chooses
}

// act makes a step a task, or a run of another workflow; it says what undoes it.
func act(rng *rand.Rand, st *definitions.StepBuilder) (undo string) {
	if rng.IntN(5) == 0 {
		st.Workflow("other")
		return "undo-other"
	}
	st.Action("do")
	return "undo"
}

func decorate(rng *rand.Rand, st *definitions.StepBuilder) {
	st.Retry(randomPolicy(rng))
	switch rng.IntN(40) {
	case 0:
		st.When("false")
	case 1:
		st.When("input.missing > 1")
	case 2:
		st.Input("{'n': input.n}")
	case 3:
		st.Input("input.missing")
	}
}

// fanOut makes some steps fan out.
func fanOut(rng *rand.Rand, st *definitions.StepBuilder) {
	if rng.IntN(4) > 0 {
		return
	}
	items := make([]string, rng.IntN(6))
	for i := range items {
		items[i] = strconv.Itoa(i)
	}
	st.ForEach("[" + strings.Join(items, ", ") + "]").Parallel(1 + rng.IntN(4))
	switch rng.IntN(20) {
	case 0:
		st.MaxItems(4)
	case 1:
		st.Input("{'n': 1 / (index - 2)}")
	case 2:
		st.ForEach("input.missing")
	case 3, 4, 5:
		st.Input("{'n': item}")
	}
}

func randomPolicy(rng *rand.Rand) definitions.RetryPolicy {
	p := definitions.RetryPolicy{
		Initial: time.Duration(1+rng.IntN(2000)) * time.Millisecond, Max: 4 * time.Second,
		MaxAttempts: rng.IntN(5), NonRetryable: []string{"declined"},
	}
	if rng.IntN(4) == 0 {
		p.MaxElapsed = 10 * time.Second
	}
	return p
}
