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
