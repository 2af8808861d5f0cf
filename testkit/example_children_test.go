package testkit_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/testkit"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// A step that is a run of another workflow: in a test a fake of the workflow's
// name answers in its place.
func Example_child() {
	b := definitions.Saga("purchase").Service("shop")
	b.Step("reserve").Action("shop.reserve").Compensation("shop.release")
	b.Step("settle").Workflow("transfer").Compensation("transfer.reverse")
	b.Step("ship").Action("shop.ship").Pivot()

	k := testkit.New(t, b.MustBuild())
	k.OnRest(nil)
	k.Answer("transfer", map[string]int{"booked": 12})
	k.CrashEverywhere(nil, func(r *testkit.Run) { r.MustSucceed() })

	k.On("transfer", func(context.Context, []byte) ([]byte, error) {
		return nil, worker.Final("no_cover", errors.New("the account is empty"))
	})
	run := k.Run(nil).MustBeCompensated()
	fmt.Println(run.Code, run.Undone())

	// Output:
	// no_cover [reserve]
}
