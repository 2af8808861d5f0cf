package testkit_test

import (
	"fmt"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/testkit"
)

// Two accounts are locked for the whole of a transfer; the wait for one of them
// counts towards the run's deadline.
func Example_locks() {
	b := definitions.Saga("transfer").Service("bank").Deadline(time.Minute)
	b.Lock("['account/' + input.from, 'account/' + input.to]")
	b.Step("debit").Action("bank.debit").Compensation("bank.refund")
	b.Step("credit").Action("bank.credit").Pivot()

	k := testkit.New(t, b.MustBuild())
	k.OnRest(nil)
	transfer := map[string]string{"from": "B", "to": "A"}
	run := k.Run(transfer).MustSucceed()
	for _, line := range run.History()[1:5] {
		fmt.Println(line)
	}
	k.CrashEverywhere(transfer, nil)

	// Another run holds B for too long: this one ends, and has done nothing.
	k.LockWait("account/B", time.Hour)
	run = k.Run(transfer).MustBeCompensated()
	fmt.Println(run.Code, run.Took, len(run.Calls))

	// Output:
	//    2       0s  the run wants the locks: account/A, account/B
	//    3       0s  the run holds lock account/A, under token 1
	//    4       0s  the run holds lock account/B, under token 2
	//    5       0s  debit, attempt 1: scheduled
	// deadline_exceeded 1m0s 0
}
