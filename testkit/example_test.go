package testkit_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/testkit"
	"github.com/ringmaster-dev/ringmaster/worker"
)

type Order struct {
	Item   string `json:"item"`
	Amount int    `json:"amount"`
}

type Receipt struct {
	ID string `json:"id"`
}

var (
	Reserve = definitions.NewTask[Order, string]("stock", "stock.reserve")
	Release = definitions.NewTask[Order, string]("stock", "stock.release")
	Charge  = definitions.NewTask[Order, Receipt]("payments", "payments.charge")
	Refund  = definitions.NewTask[Order, string]("payments", "payments.refund")
	Ship    = definitions.NewTask[Order, string]("deliveries", "deliveries.ship")
	Notify  = definitions.NewTask[Order, string]("orders", "orders.notify")
)

func orderFlow() *definitions.Workflow {
	b := definitions.Saga("order").Output("steps.pay.output.id").Deadline(time.Hour)
	b.Step("reserve").Do(Reserve).Undo(Release)
	b.Step("pay").Do(Charge).Undo(Refund).Timeout(10 * time.Second)
	b.Step("ship").Do(Ship).Pivot().QueueTimeout(time.Minute)
	b.Step("notify").Do(Notify).Retry(definitions.RetryPolicy{MaxAttempts: 3})
	return b.MustBuild()
}

var order = orderFlow()

var errNoMoney = errors.New("not enough money on the card")

// examples stands in for the *testing.T of a test.
type examples struct{}

func (examples) Helper() {}

func (examples) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}

var t examples

// A workflow with fakes: a typed one, and one for all tasks that do not matter.
func Example() {
	k := testkit.New(t, order)
	testkit.On(k, Charge, func(ctx context.Context, in Order) (Receipt, error) {
		return Receipt{ID: fmt.Sprintf("%d for a %s", in.Amount, in.Item)}, nil
	})
	k.OnRest(nil) // everything else succeeds, and answers null

	run := k.Run(Order{Item: "chair", Amount: 80})
	run.MustSucceed().MustHaveOutput(`"80 for a chair"`).MustHaveCalled("payments.charge", 1)
	run.MustHaveDone("reserve", "pay", "ship", "notify")
	fmt.Println(testkit.OutputOf[string](run))
	// Output: 80 for a chair
}

// Handlers by the name of their task type, with JSON in and out.
func ExampleKit_On() {
	k := testkit.New(t, order)
	k.OnRest(nil)
	k.Answer("stock.reserve", "shelf 7")
	k.On("payments.charge", func(ctx context.Context, payload []byte) ([]byte, error) {
		fmt.Println("charge", string(payload), "under", worker.TaskFrom(ctx).IdempotencyKey)
		return []byte(`{"id": "r-1"}`), nil
	})
	k.Run(Order{"chair", 80}, testkit.ID("order-1")).MustSucceed()
	// Output: charge {"item":"chair","amount":80} under order-1/pay/action/1
}

// A failure for good: what was done before is undone.
func ExampleKit_FailAttempt() {
	k := testkit.New(t, order)
	k.OnRest(nil)
	k.FailAttempt("pay", 1, worker.Retryable("busy", nil))
	k.FailAttempt("pay", 2, worker.Final("card_declined", errNoMoney))

	run := k.Run(Order{"chair", 80}).MustBeCompensated()
	run.MustHaveFailedAt("pay", "card_declined").MustHaveCalled("payments.charge", 2)
	run.MustHaveUndone("reserve").MustNotHaveCalled("deliveries.ship")
	for _, line := range run.History() {
		fmt.Println(strings.Join(strings.Fields(line)[2:], " "))
	}
	// Output:
	// the run starts, to be done by 2026-01-01T01:00:00.000Z
	// reserve, attempt 1: scheduled
	// reserve, attempt 1: succeeded (test)
	// pay, attempt 1: scheduled
	// pay, attempt 1: failed, without effect (test): busy: busy; next attempt at 2026-01-01T00:00:00.211Z
	// pay, attempt 2: scheduled
	// pay, attempt 2: failed, without effect (test): card_declined: not enough money on the card
	// the run turns back because of pay
	// the compensation of reserve, attempt 1: scheduled
	// the compensation of reserve, attempt 1: succeeded (test)
	// the run has been undone
}

// A panic is an unknown outcome: it is tried again, and undone in the end.
func ExampleRun_MustHaveUndone() {
	k := testkit.New(t, order)
	k.OnRest(nil)
	testkit.On(k, Charge, func(context.Context, Order) (Receipt, error) { panic("out of paper") })

	run := k.Run(Order{"chair", 80}).MustBeCompensated()
	run.MustHaveCalled("payments.charge", definitions.DefaultMaxAttempts).MustHaveUndone("pay", "reserve")
	fmt.Println(run.Step("pay").Message)
	// Output: panic: out of paper
}

// An attempt vanishes with its message; the next one is made.
func ExampleKit_Lose() {
	k := testkit.New(t, order)
	k.OnRest(nil)
	k.Answer("payments.charge", Receipt{ID: "r-1"})
	k.Lose("pay", 1)
	k.Run(Order{"chair", 80}).MustSucceed().MustHaveRecorded(machine.AttemptLost, "pay", 1)
	// Output:
}

// A handler's answer gets lost after its work is done. Whether it works once
// more is up to the handler: the idempotency key is the same.
func ExampleKit_LoseAnswer() {
	charged := map[string]int{}
	k := testkit.New(t, order)
	k.OnRest(nil)
	testkit.On(k, Charge, func(ctx context.Context, in Order) (Receipt, error) {
		key := worker.TaskFrom(ctx).IdempotencyKey
		if charged[key] == 0 {
			charged[key] = in.Amount
		}
		return Receipt{ID: key}, nil
	})
	k.LoseAnswer("pay", 1)
	k.Run(Order{"chair", 80}).MustSucceed().MustHaveCalled("payments.charge", 2)
	fmt.Println(charged)
	// Output: map[test-run-1/pay/action/1:80]
}

// Every task of the workflow arrives twice.
func ExampleKit_Deliver() {
	calls := 0
	k := testkit.New(t, order)
	k.OnRest(nil)
	testkit.On(k, Charge, func(context.Context, Order) (Receipt, error) {
		calls++
		return Receipt{}, nil
	})
	k.Deliver(testkit.AnyStep, testkit.Every, 2)
	k.Run(Order{"chair", 80}).MustSucceed()
	fmt.Println(calls)
	// Output: 2
}

// Handlers may take time, which passes at once.
func ExamplePass() {
	k := testkit.New(t, order)
	k.OnRest(nil)
	testkit.On(k, Charge, func(ctx context.Context, in Order) (Receipt, error) {
		if worker.TaskFrom(ctx).Attempt == 1 {
			return Receipt{}, testkit.Pass(ctx, 20*time.Second) // longer than the step's timeout
		}
		return Receipt{}, testkit.Pass(ctx, time.Second)
	})
	run := k.Run(Order{"chair", 80}).MustSucceed()
	fmt.Println(run.Took.Truncate(time.Second), run.CallsOf("payments.charge")[0].Code)
	// Output: 11s timeout
}

// An answer that comes after the step's timeout still counts.
func ExampleKit_Delay() {
	k := testkit.New(t, order)
	k.OnRest(nil)
	k.Answer("payments.charge", Receipt{ID: "late"})
	k.Delay("pay", testkit.Every, 12*time.Second)
	k.Run(Order{"chair", 80}).MustSucceed().MustHaveOutput(`"late"`)
	// Output:
}

// The run is cancelled while a payment is under way.
func ExampleKit_Cancel() {
	k := testkit.New(t, order)
	k.OnRest(nil)
	k.Cancel(testkit.Scheduled("pay"), "the customer changed their mind")
	k.Run(Order{"chair", 80}).MustBeCompensated().MustHaveUndone("pay", "reserve")
	// Output:
}

// The orchestrator crashes while a payment is under way: it is sent again.
func ExampleKit_CrashAfter() {
	k := testkit.New(t, order)
	k.OnRest(nil)
	k.CrashAfter(testkit.Scheduled("pay"))
	run := k.Run(Order{"chair", 80}).MustSucceed().MustHaveCalled("payments.charge", 2)
	fmt.Println(run.CallsOf("payments.charge")[1].Again)
	// Output: true
}

// Wherever the orchestrator crashes, the run ends the same way with the same
// effects.
func ExampleKit_CrashEverywhere() {
	charged := map[string]int{}
	k := testkit.New(t, order)
	k.OnRest(nil)
	k.BeforeRun(func() { clear(charged) })
	testkit.On(k, Charge, func(ctx context.Context, in Order) (Receipt, error) {
		key := worker.TaskFrom(ctx).IdempotencyKey
		charged[key] = in.Amount // a row with the key as its primary key
		return Receipt{ID: key}, nil
	})
	runs := 0
	k.CrashEverywhere(Order{"chair", 80}, func(r *testkit.Run) {
		r.MustSucceed()
		if len(charged) != 1 {
			t.Fatalf("charged %v\n%s", charged, r)
		}
		runs++
	})
	fmt.Println(runs)
	// Output: 13
}

// What an operator does when a run stalls.
func ExampleKit_Retry() {
	k := testkit.New(t, order)
	k.OnRest(nil)
	k.Answer("payments.charge", Receipt{ID: "r-1"})
	k.FailAttempt("notify", 1, worker.Final("no_address", nil))
	k.Retry("notify", Order{Item: "chair, to Mr. Miller"})
	run := k.Run(Order{"chair", 80}).MustSucceed()
	fmt.Println(string(run.CallsOf("orders.notify")[1].Input))
	// Output: {"item":"chair, to Mr. Miller","amount":0}
}

// Without an order the run stays stalled, and the test ends there.
func ExampleRun_MustStall() {
	k := testkit.New(t, order)
	k.OnRest(nil)
	k.Answer("payments.charge", Receipt{ID: "r-1"})
	k.FailAttempt("notify", testkit.Every, errors.New("no mail today"))
	k.Run(Order{"chair", 80}).MustStall("notify").MustHaveFailedAt("notify", worker.CodeError)

	k.Skip("notify", "sent by hand")
	k.Run(Order{"chair", 80}).MustSucceed()
	// Output:
}

// An operator knows that the goods have left, although no answer said so.
func ExampleKit_Resolve() {
	k := testkit.New(t, order)
	k.OnRest(nil)
	k.Answer("payments.charge", Receipt{ID: "r-1"})
	k.FailAttempt("ship", testkit.Every, worker.Unknown("no_answer", nil))
	k.Resolve("ship", true, "tracking 42", "the carrier says so")
	k.Run(Order{"chair", 80}).MustSucceed()
	// Output:
}

// A task under which three workers have died gets no fourth.
func ExampleKit_KillWorker() {
	k := testkit.New(t, order)
	k.OnRest(nil)
	k.KillWorker("pay", testkit.Every)
	run := k.Run(Order{"chair", 80}).MustBeCompensated().MustHaveCalled("payments.charge", 3)
	fmt.Println(run.Step("pay").Code)
	// Output: isolated
}

// No worker takes the task within its queue timeout.
func ExampleKit_Expire() {
	k := testkit.New(t, order)
	k.OnRest(nil)
	k.Expire("ship", 1)
	k.Run(Order{"chair", 80}).MustBeCompensated().MustHaveUndone("pay", "reserve")
	// Output:
}

// The workflow's deadline of an hour passes while a payment cannot be made.
func ExampleDeadline() {
	k := testkit.New(t, order)
	k.OnRest(nil)
	k.FailAttempt("pay", testkit.Every, worker.Retryable("busy", nil))
	run := k.Run(Order{"chair", 80}, testkit.Deadline(5*time.Second)).MustBeCompensated()
	fmt.Println(run.Took, run.Code)
	// Output: 5s deadline_exceeded
}

// A compensation fails twice. After the step's name comes the phase.
func ExampleKit_FailAttempt_compensation() {
	k := testkit.New(t, order)
	k.OnRest(nil)
	k.FailAttempt("pay", 1, worker.Final("card_declined", errNoMoney))
	k.FailAttempt("reserve/compensate", 1, errors.New("the stock is being counted"))
	k.FailAttempt("reserve/compensate", 2, errors.New("the stock is being counted"))
	k.Run(Order{"chair", 80}).MustBeCompensated().MustHaveCalled("stock.release", 3)
	// Output:
}

// A crash at a time on the clock, and one before anything is done about an event.
func ExampleKit_CrashBeforeActing() {
	k := testkit.New(t, order)
	k.OnRest(nil)
	k.FailAttempt("pay", 1, worker.Retryable("busy", nil))
	k.CrashAfter(testkit.Elapsed(100 * time.Millisecond))
	k.CrashBeforeActing(testkit.Kind(machine.AttemptScheduled).Of("pay").Nth(2))
	run := k.Run(Order{"chair", 80}).MustSucceed().MustHaveCalled("payments.charge", 2)
	fmt.Println(run.Crashes)
	// Output: 2
}

// A failed assertion shows the run.
func ExampleRun() {
	defer func() { fmt.Println(recover()) }()
	b := definitions.Saga("trip")
	b.Step("book").Service("travel").Action("book").Compensation("cancel")
	k := testkit.New(t, b.MustBuild())
	k.FailAttempt("book", 1, worker.Final("full", errors.New("no room")))
	k.Run(nil).MustSucceed()
	// Output:
	// the run is compensated, want succeeded
	// test-run-1 of trip: compensated, by step book, full: no room
	// history:
	//    1       0s  the run starts
	//    2       0s  book, attempt 1: scheduled
	//    3       0s  book, attempt 1: failed, without effect (test): full: no room
	//    4       0s  the run turns back because of book
	//    5       0s  the run has been undone
	// calls:
	//      book for book/action, attempt 1, with null: failed by the test -> full: no room
}
