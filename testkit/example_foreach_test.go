package testkit_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/testkit"
	"github.com/ringmaster-dev/ringmaster/worker"
)

type parcel struct {
	Order  string `json:"order"`
	Number int    `json:"number"`
}

var (
	shipParcel   = definitions.NewTask[parcel, string]("depot", "ship")
	recallParcel = definitions.NewTask[string, any]("depot", "recall")
)

// A step that fans out is tested item by item: "ship" means each of them,
// "ship[2]" the third alone.
func Example_forEach() {
	b := definitions.Saga("parcels").Output("size(steps.ship.output)")
	b.Step("ship").Do(shipParcel).Undo(recallParcel).ForEach("input.parcels").Parallel(2).
		Input("{'order': input.order, 'number': item}").CompensationInput("steps.ship.output")
	k := testkit.New(t, b.MustBuild())
	testkit.On(k, shipParcel, func(_ context.Context, p parcel) (string, error) {
		return fmt.Sprintf("%s/%d", p.Order, p.Number), nil
	})
	testkit.On(k, recallParcel, func(context.Context, string) (any, error) { return nil, nil })
	order := map[string]any{"order": "o-7", "parcels": []int{10, 20, 30}}
	shipped := k.Run(order).MustSucceed()
	fmt.Println(string(shipped.Output), "parcels:", shipped.Done())

	k.FailAttempt("ship[2]", testkit.Every, worker.Final("refused", errors.New("too heavy")))
	run := k.Run(order).MustBeCompensated().MustHaveFailedAt("ship[2]", "refused")
	fmt.Println(run.Undone()) // the items that had been shipped

	// Output:
	// 3 parcels: [ship[0] ship[1] ship[2]]
	// [ship[0] ship[1]]
}
