package engine_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// napping is a saga with a sleep between two tasks.
func napping(d time.Duration) *definitions.Workflow {
	b := definitions.Saga("napping").Service("shop")
	b.Step("create").Action("create").Compensation("uncreate")
	b.Step("cool-off").Sleep(d)
	b.Step("deliver").Action("deliver").Pivot()
	return b.MustBuild()
}

// TestSleepSurvivesARestart restarts the orchestrator while runs sleep, one for
// a moment and one for a day: that one is a row and nothing in memory.
func TestSleepSurvivesARestart(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	w.worker("a", shop(l))
	w.start()
	w.register(napping(24 * time.Hour))
	long := w.run(rest.Start{Workflow: "napping", ID: "long"})
	asleep := func() bool {
		d, err := w.engine.Run(context.Background(), long)
		return err == nil && d.Steps[1].State == "sleeping" && d.Steps[1].Until != nil
	}
	w.eventually("the run sleeps", asleep)
	w.register(napping(500 * time.Millisecond))
	short := w.run(rest.Start{Workflow: "napping", ID: "short"})
	w.eventually("the other run sleeps", func() bool {
		d, err := w.engine.Run(context.Background(), short)
		return err == nil && d.Steps[0].State == "succeeded"
	})
	w.stop()
	w.start()
	w.wait(short, "succeeded")
	if !asleep() {
		t.Errorf("the long sleep is over\n%s", w.history(long))
	}
	if s, err := w.engine.Stats(context.Background()); err != nil || s.Resident > 1 {
		t.Errorf("%d runs are in memory, %v", s.Resident, err)
	}
	if d, err := w.engine.Run(context.Background(), long); err != nil || len(d.Waiting) != 1 || d.Wake == nil {
		t.Errorf("waits for %q, %v", d.Waiting, err)
	}
	if _, err := w.engine.Cancel(context.Background(), long, rest.Cancel{Reason: "enough"}); err != nil {
		t.Fatal(err)
	}
	w.wait(long, "compensated")
	for key, want := range map[string]int{
		"short/create/action/1": 1, "short/deliver/action/1": 1, "long/create/action/1": 1, "long/create/compensate/1": 1, "long/deliver/action/1": 0,
	} {
		if n := l.count(key); n != want {
			t.Errorf("%s: called %d times, not %d", key, n, want)
		}
	}
}

// TestCrashAroundASleep kills the engine at each commit of a run that sleeps.
func TestCrashAroundASleep(t *testing.T) {
	for _, after := range []bool{false, true} {
		for at := 1; at <= 5; at++ {
			t.Run(fmt.Sprintf("after=%v/commit=%d", after, at), func(t *testing.T) {
				t.Parallel()
				w, l := newWorld(t, nil), newLedger()
				w.worker("a", shop(l))
				w.start()
				w.register(napping(20 * time.Millisecond))
				w.stop()
				w.crashAt(at, after, rest.Start{Workflow: "napping", ID: "n"})
				w.wait("n", "succeeded")
				for _, key := range []string{"n/create/action/1", "n/deliver/action/1"} {
					if n := l.count(key); n != 1 {
						t.Errorf("%s: called %d times\n%s", key, n, w.history("n"))
					}
				}
			})
		}
	}
}
