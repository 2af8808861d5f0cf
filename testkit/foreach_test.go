package testkit_test

import (
	"errors"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/testkit"
	"github.com/ringmaster-dev/ringmaster/worker"
)

func fanOut() *definitions.Workflow {
	b := definitions.Saga("fan").Service("s")
	b.Step("create").Action("create").Compensation("uncreate")
	b.Step("ship").Action("ship").Compensation("recall").ForEach("input").Parallel(3)
	b.Step("close").Action("close").Pivot()
	b.Step("tell").Action("tell").ForEach("input").Parallel(2)
	return b.MustBuild()
}

func TestFaultsBefallItemsByName(t *testing.T) {
	k := testkit.New(t, fanOut())
	k.OnRest(nil)
	k.FailAttempt("ship[1]", 1, errors.New("again"))
	k.KillWorker("ship[2]", 1)
	k.Delay("tell[0]", 1, 2*time.Second)
	k.FailAttempt("tell[3]", 1, worker.Final("no", errors.New("never")))
	k.Retry("tell[3]", nil)
	run := k.Run([]int{0, 1, 2, 3}).MustSucceed().MustHaveCalled("ship", 6).MustHaveCalled("tell", 5)
	run.MustHaveRecorded(machine.AttemptFailed, "ship[1]", 1).MustHaveRecorded(machine.AttemptLost, "ship[2]", 1)
	run.MustHaveRecorded(machine.StepExpanded, "ship", 1).MustHaveRecorded(machine.RetryOrdered, "tell[3]", 1)
	if v := run.Step("ship[1]"); v.Attempts != 2 {
		t.Errorf("ship[1] had %d attempts", v.Attempts)
	}
}

func TestOrdersAndMomentsOfAnyItem(t *testing.T) {
	k := testkit.New(t, fanOut())
	k.OnRest(nil)
	k.FailAttempt("tell", 1, worker.Final("no", errors.New("never")))
	for range 3 {
		k.Skip("tell", "not needed") // of whichever item stalls
	}
	k.CrashAfter(testkit.Succeeded("ship[2]"))
	k.CrashBeforeActing(testkit.Scheduled("tell").Nth(2))
	if run := k.Run([]int{0, 1, 2}).MustSucceed(); run.Crashes != 2 {
		t.Errorf("%d crashes\n%v", run.Crashes, run)
	}
}

func TestFanOutSurvivesACrashAtEveryDecision(t *testing.T) {
	k := testkit.New(t, fanOut())
	k.OnRest(nil)
	k.FailAttempt("ship[3]", testkit.Every, worker.Final("refused", errors.New("too heavy")))
	k.CrashEverywhere([]int{0, 1, 2, 3, 4}, func(run *testkit.Run) {
		run.MustBeCompensated()
		if left := run.Effects(); len(left) > 0 {
			t.Errorf("left are %v\n%v", left, run)
		}
	})
}
