package definitions_test

import (
	"fmt"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// A saga of four steps: two that can be undone, the point of no return, and
// one that follows it.
func ExampleSaga() {
	b := definitions.Saga("order-flow").
		Description("create, pay, deliver").
		Service("orders").
		RoutingKey("input.customer_id").
		Deadline(time.Hour).
		Output("{'order': steps.create.output.id}")
	b.Step("create").Action("orders.create").Compensation("orders.cancel")
	b.Step("pay").Service("payments").
		Action("payments.charge").Compensation("payments.refund").
		When("input.total > 0").
		Input("{'order': steps.create.output.id, 'amount': input.total}").
		Retry(definitions.RetryPolicy{MaxAttempts: 5, NonRetryable: []string{"card_declined"}})
	b.Step("deliver").Service("deliveries").Action("deliveries.ship").Pivot()
	b.Step("notify").Action("orders.notify")
	wf, err := b.Build()
	if err != nil {
		fmt.Println(err)
		return
	}
	for i := range wf.Len() {
		s := wf.Step(i)
		fmt.Println(s.Name, s.Service, s.Action, s.Preds, s.AfterPivot)
	}
	// Output:
	// create orders orders.create [] false
	// pay payments payments.charge [0] false
	// deliver deliveries deliveries.ship [1] false
	// notify orders orders.notify [2] true
}

// The tasks that definition and workers share, with the types of their inputs
// and outputs.
var (
	Charge = definitions.NewTask[ChargeIn, ChargeOut]("payments", "payments.charge")
	Refund = definitions.NewTask[ChargeIn, struct{}]("payments", "payments.refund")
)

type ChargeIn struct {
	Order  string `json:"order"`
	Amount int64  `json:"amount"`
}

type ChargeOut struct {
	ID string `json:"id"`
}

type OrderInput struct {
	Order string `json:"order"`
	Total int64  `json:"total"`
}

type OrderOutput struct {
	Charge string `json:"charge"`
}

// Typed tasks and a typed workflow: the compiler then checks what starts runs
// and what handles tasks.
func ExampleTyped() {
	b := definitions.Saga("typed-order").Output("{'charge': steps.pay.output.id}")
	b.Step("pay").Do(Charge).Undo(Refund).Input("{'order': input.order, 'amount': input.total}")
	orders := definitions.Typed[OrderInput, OrderOutput](b.MustBuild())
	fmt.Println(orders.Name(), orders.Step(0).Service, orders.Step(0).Action, orders.Step(0).Compensation)
	// Output:
	// typed-order payments payments.charge payments.refund
}

// Branches: two steps side by side, and one that waits for both.
func ExampleStepBuilder_After() {
	b := definitions.Saga("trip").Service("travel")
	b.Step("flight").Action("flight.book").Compensation("flight.cancel").After()
	b.Step("hotel").Action("hotel.book").Compensation("hotel.cancel").After()
	b.Step("pay").Action("trip.pay").Pivot().After("flight", "hotel")
	wf := b.MustBuild()
	fmt.Println(wf.Step(0).Succs, wf.Step(1).Succs, wf.Step(2).Preds)
	// Output:
	// [2] [2] [0 1]
}

// An invalid definition is answered with everything that is wrong with it.
func ExampleInvalid() {
	b := definitions.Saga("order flow").Service("orders")
	b.Step("create").Action("orders.create").After("pay")
	b.Step("pay").Action("payments.charge").Compensation("payments.refund").
		Input("{'amount': input.total, 'stock': steps.reserve.output}").
		Timeout(-time.Second)
	_, err := b.Build()
	fmt.Println(err)
	// Output:
	// invalid workflow definition "order flow": 5 faults
	//   name: "order flow" is not a name: letters (a-z, A-Z), digits, '.', '_' and '-', starting with a letter or digit [name]
	//   step "pay": steps[1].timeout: -1s is negative [duration]
	//   step "create": steps[0].after: steps that wait for each other: "create", "pay"; the way round is create -> pay -> create [cycle]
	//   step "create": steps[0].compensation: a step that is not the pivot or after it needs a compensation, or no_compensation with a reason [compensation]
	//   step "pay": steps[1].input: no step is named "reserve" (line 1, column 34) [reference]
}

// Parse reads what JSON wrote, and what people write.
func ExampleParse() {
	wf, err := definitions.Parse([]byte(`{
		"kind": "saga", "name": "greet", "service": "greeter",
		"steps": [{"name": "hello", "action": "greet", "no_compensation": "it has been said", "timeout": "60s"}]
	}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s\n", wf.JSON())
	// Output:
	// {"kind":"saga","name":"greet","steps":[{"name":"hello","service":"greeter","action":"greet","no_compensation":"it has been said","after":[]}]}
}

// A scope evaluates a run's expressions over its input and outputs.
func ExampleScope() {
	b := definitions.Saga("order").Service("orders")
	b.Step("create").Action("orders.create").Compensation("orders.cancel")
	b.Step("pay").Action("orders.pay").Compensation("orders.refund").
		When("input.total > 0").
		Input("{'order': steps.create.output.id, 'amount': input.total}")
	wf := b.MustBuild()

	sc := wf.NewScope([]byte(`{"total": 120}`))
	sc.SetOutput(wf.StepIndex("create"), []byte(`{"id": 9007199254740993}`))
	pay := wf.StepIndex("pay")
	fmt.Println(sc.When(pay))
	input, err := sc.Input(pay)
	fmt.Println(string(input), err)
	// Output:
	// true <nil>
	// {"amount":120,"order":9007199254740993} <nil>
}

// In a two-phase commit all participants prepare; then all commit, or all abort.
func ExampleTwoPhase() {
	b := definitions.TwoPhase("transfer").Service("bank")
	b.Participant("debit").Prepare("debit.prepare").Commit("debit.commit").Abort("debit.abort")
	b.Participant("credit").Service("ledger").
		Prepare("credit.prepare").Commit("credit.commit").Abort("credit.abort").
		Input("{'account': input.to, 'amount': input.amount}")
	wf := b.MustBuild()
	for i := range wf.Len() {
		p := wf.Step(i)
		fmt.Println(p.Name, p.Service, p.Prepare, p.Commit, p.Abort, p.Retry.MaxAttempts)
	}
	// Output:
	// debit bank debit.prepare debit.commit debit.abort 3
	// credit ledger credit.prepare credit.commit credit.abort 3
}

// A TCC says try, confirm and cancel for the same.
func ExampleTCC() {
	b := definitions.TCC("booking").Output("{'seat': steps.flight.output.seat, 'room': steps.hotel.output.room}")
	b.Participant("flight").Service("airline").Try("seat.hold").Confirm("seat.book").Cancel("seat.release")
	b.Participant("hotel").Service("hotel").Try("room.hold").Confirm("room.book").Cancel("room.release")
	wf := b.MustBuild()
	fmt.Println(wf.Kind(), wf.Len(), wf.HasOutput())
	// Output:
	// tcc 2 true
}

// A transfer holds both accounts for as long as it runs; a report shares them with
// other reports.
// A step names the version of the task type that it needs.
func ExampleNewTask_version() {
	charge := definitions.NewTask[int, string]("payments", "payments.charge@2")
	b := definitions.Saga("order")
	b.Step("pay").Do(charge).NoCompensation("a voucher")
	fmt.Println(string(b.MustBuild().JSON()))
	fmt.Println(definitions.SplitTaskType(charge.Type))
	// Output:
	// {"kind":"saga","name":"order","steps":[{"name":"pay","service":"payments","action":"payments.charge@2","no_compensation":"a voucher","after":[]}]}
	// payments.charge 2
}

func ExampleSagaBuilder_Lock() {
	b := definitions.Saga("transfer").Service("bank").Deadline(time.Minute)
	b.Lock("'account/' + input.from").Lock("'account/' + input.to").LockShared("'rates'")
	b.Step("debit").Action("debit").Compensation("refund")
	b.Step("credit").Action("credit").Pivot()
	wf := b.MustBuild()
	fmt.Println(wf.EvalLocks([]byte(`{"from":"9","to":"1"}`)))
	_, err := wf.EvalLocks([]byte(`{"from":"9"}`))
	fmt.Println(err)
	// Output:
	// [{account/1 false} {account/9 false} {rates true}] <nil>
	// locks[1].name: evaluate "'account/' + input.to": no such key: to
}

// One task of a customer at a time, in the order in which they came.
func ExampleSagaBuilder_Serial() {
	b := definitions.Saga("order").Service("shop").RoutingKey("input.customer").Serial()
	b.Step("reserve").Action("reserve").Compensation("release")
	b.Step("deliver").Action("deliver").Pivot()
	fmt.Println(b.MustBuild().Serial())

	// A two-phase commit would wait for itself.
	p := definitions.TwoPhase("transfer").Service("bank").Serial()
	p.Participant("debit").Prepare("prepare").Commit("commit").Abort("abort")
	_, err := p.Build()
	fmt.Println(err)
	// Output:
	// true
	// invalid workflow definition "transfer": serial: a two-phase commit cannot be serial, since a prepare may wait for what another run has locked; give it a lock instead [value]
}
