package testkit_test

import (
	"fmt"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/testkit"
)

// A day to change one's mind before the money is taken: the virtual clock jumps
// over it.
func Example_coolOff() {
	b := definitions.Saga("contract")
	b.Step("sign").Service("contracts").Action("contracts.sign").Compensation("contracts.void")
	b.Step("cool-off").Sleep(24 * time.Hour)
	b.Step("collect").Service("payments").Action("payments.collect").Pivot()

	k := testkit.New(t, b.MustBuild())
	k.OnRest(nil)
	run := k.Run("contract-17").MustSucceed()
	fmt.Println(run.Took)

	// Who cancels in that time is not charged.
	k.Cancel(testkit.Elapsed(6*time.Hour), "changed my mind")
	run = k.Run("contract-18").MustBeCompensated().MustHaveUndone("sign")
	fmt.Println(run.Took, len(run.CallsOf("payments.collect")))

	// Output:
	// 24h0m0s
	// 6h0m0s 0
}

// A human approval. The test gives it in place of the human, after a day; it may
// as well come early, or not at all.
func ExampleKit_Signal() {
	b := definitions.Saga("purchase")
	b.Step("reserve").Service("stock").Action("stock.reserve").Compensation("stock.release")
	b.Step("approve").WaitSignal("approval").Timeout(72 * time.Hour)
	b.Step("buy").Service("stock").Action("stock.buy").Pivot().When("steps.approve.output.ok")

	k := testkit.New(t, b.MustBuild())
	k.OnRest(nil)
	k.Signal(testkit.Elapsed(24*time.Hour), "approval", map[string]any{"ok": true, "by": "ann"})
	run := k.Run("p-1").MustSucceed()
	fmt.Println(run.Took, len(run.CallsOf("stock.buy")))

	early := testkit.New(t, b.MustBuild())
	early.OnRest(nil)
	early.Signal(testkit.Scheduled("reserve"), "approval", map[string]any{"ok": false})
	run = early.Run("p-2").MustSucceed()
	fmt.Println(run.Took, len(run.CallsOf("stock.buy")))

	never := testkit.New(t, b.MustBuild())
	never.OnRest(nil)
	run = never.Run("p-3").MustBeCompensated().MustHaveFailedAt("approve", "signal_timeout")
	fmt.Println(run.Took)

	// Output:
	// 24h0m0s 1
	// 0s 0
	// 72h0m0s
}

// One way out of several: what is on the other branches is skipped.
func Example_choice() {
	b := definitions.Saga("parcel").Output("steps.route.output")
	b.Step("route").Choice().
		Case("express", "input.value > 100").
		Case("freight", "input.weight > 30").
		Otherwise("standard")
	b.Step("fly").Service("ship").Action("ship.fly").NoCompensation("it lands").Branch("route", "express")
	b.Step("drive").Service("ship").Action("ship.drive").NoCompensation("it arrives").Branch("route", "freight")
	b.Step("post").Service("ship").Action("ship.post").NoCompensation("it is in the box").Branch("route", "standard")

	k := testkit.New(t, b.MustBuild())
	k.OnRest(nil)
	for _, parcel := range []map[string]int{{"value": 500, "weight": 1}, {"value": 5, "weight": 80}, {"value": 5, "weight": 1}} {
		run := k.Run(parcel).MustSucceed()
		fmt.Println(testkit.OutputOf[string](run), run.Done())
	}

	// Output:
	// express [fly]
	// freight [drive]
	// standard [post]
}
