package testkit_test

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/testkit"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// befall has one thing at random go wrong with one of the tasks.
func befall(k *testkit.Kit, r *rand.Rand, tasks []string) {
	task, n := tasks[r.IntN(len(tasks))], 1+r.IntN(3)
	switch r.IntN(8) {
	case 0:
		k.FailAttempt(task, n, errors.New("no luck"))
	case 1:
		k.FailAttempt(task, n, worker.Final("never", nil))
	case 2:
		k.FailAttempt(task, n, worker.Unknown("who_knows", nil))
	case 3:
		k.Lose(task, n)
	case 4:
		k.LoseAnswer(task, n)
	case 5:
		k.Deliver(task, n, 2)
	case 6:
		k.Delay(task, n, time.Duration(r.IntN(100))*time.Second)
	case 7:
		k.Cancel(testkit.Event(1+r.IntN(12)), "no more")
	}
}

// Whatever goes wrong, a crash makes no difference to it, and the run goes on.
func TestCrashesMakeNoDifferenceToRandomFaults(t *testing.T) {
	for _, c := range []struct {
		wf    *definitions.Workflow
		tasks []string
	}{
		{order, []string{"reserve", "pay", "ship", "notify", "reserve/compensate", "pay/compensate"}},
		{transfer, []string{"debit", "credit", "debit/commit", "credit/commit", "debit/abort", "credit/abort"}},
	} {
		for seed := range uint64(200) {
			r := rand.New(rand.NewPCG(seed, 0))
			text := failure(t, func(t testing.TB) {
				k := testkit.New(t, c.wf)
				k.OnRest(nil)
				for range 1 + r.IntN(4) {
					befall(k, r, c.tasks)
				}
				k.CrashEverywhere(nil, nil)
			})
			if text != "" {
				t.Fatalf("%s, seed %d: %s", c.wf.Name(), seed, text)
			}
		}
	}
}
