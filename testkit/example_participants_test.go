package testkit_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/testkit"
	"github.com/ringmaster-dev/ringmaster/worker"
)

type Transfer struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Amount int    `json:"amount"`
}

func moneyTransfer() *definitions.Workflow {
	b := definitions.TwoPhase("transfer").Service("bank").Deadline(time.Hour)
	b.Participant("debit").Prepare("debit.prepare").Commit("debit.commit").Abort("debit.abort")
	b.Participant("credit").Prepare("credit.prepare").Commit("credit.commit").Abort("credit.abort").QueueTimeout(time.Minute)
	return b.MustBuild()
}

var transfer = moneyTransfer()

// A two-phase commit, and a TCC alike: the name of a participant means its
// prepare, and phases are named after it.
func ExampleRun_MustCommit() {
	k := testkit.New(t, transfer)
	k.OnRest(nil)
	k.FailAttempt("credit/commit", 1, errors.New("the database restarts"))
	run := k.Run(Transfer{"Ann", "Bob", 10}).MustCommit().MustHaveCalled("credit.commit", 2)
	fmt.Println(run.Done())
	// Output: [debit credit]
}

// A participant votes no, and the other one is told to abort.
func ExampleRun_MustAbort() {
	k := testkit.New(t, transfer)
	k.OnRest(nil)
	k.FailAttempt("debit", 1, worker.Final("no_cover", errNoMoney))
	k.Run(Transfer{"Ann", "Bob", 10}).MustAbort().MustHaveUndone("credit").MustNotHaveCalled("debit.commit")
	// Output:
}

// A participant that only reads has no part in the second phase.
func ExampleKit_VoteReadOnly() {
	k := testkit.New(t, transfer)
	k.OnRest(nil)
	k.VoteReadOnly("debit")
	k.Run(Transfer{"Ann", "Bob", 0}).MustCommit().MustHaveDone("credit").MustNotHaveCalled("debit.commit")
	// Output:
}

// A participant reports that it has decided by itself, against the run.
func ExampleRun_heuristic() {
	k := testkit.New(t, transfer)
	k.OnRest(nil)
	k.FailAttempt("credit/commit", 1, worker.Final(machine.CodeHeuristicRollback, errors.New("rolled back by hand")))
	run := k.Run(Transfer{"Ann", "Bob", 10}).MustCommit()
	fmt.Println(run.Heuristic, run.Done())
	// Output: true [debit]
}
