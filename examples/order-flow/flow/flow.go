// Package flow is the order workflow and the tasks it is made of: everything
// that the shop's services, and whoever starts an order, have to agree on.
//
// An order is created (which takes its goods out of stock), paid, delivered and
// confirmed to the customer. Delivery is the pivot: once a carrier has the
// parcel there is no way back, and until then everything can be undone.
//
//	create ── pay ── deliver (pivot) ── notify
//	  │        │
//	cancel   refund
package flow

import (
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// The tasks, by the service that handles them.
var (
	CreateOrder = definitions.NewTask[Order, Placed]("orders", "orders.create")
	CancelOrder = definitions.NewTask[Order, Done]("orders", "orders.cancel")
	Notify      = definitions.NewTask[Notice, Done]("orders", "orders.notify")

	Charge = definitions.NewTask[Payment, Charged]("payments", "payments.charge")
	Refund = definitions.NewTask[Payment, Done]("payments", "payments.refund")

	Ship = definitions.NewTask[Parcel, Shipped]("deliveries", "deliveries.ship")
)

// OrderFlow takes an [Order] and ends with a [Receipt].
var OrderFlow = definitions.Typed[Order, Receipt](orderFlow())

func orderFlow() *definitions.Workflow {
	b := definitions.Saga("order-flow").
		Description("Create an order, pay for it, deliver it and tell the customer.").
		RoutingKey("input.customer.id").
		Deadline(time.Hour).
		Output(`{
			'order':    input.id,
			'currency': input.currency,
			'total':    steps.create.output.total,
			'tracking': steps.deliver.output.tracking,
		}`)
	Steps(b)
	return b.MustBuild()
}

// Steps adds the steps of [OrderFlow] to a saga of one's own that takes an
// [Order], such as one that is serial or holds locks.
func Steps(b *definitions.SagaBuilder) {
	b.Step("create").Do(CreateOrder).Undo(CancelOrder)

	b.Step("pay").Do(Charge).Undo(Refund).
		Input(`{
			'order':    input.id,
			'card':     input.card,
			'currency': input.currency,
			'amount':   steps.create.output.total,
		}`).
		Retry(definitions.RetryPolicy{Initial: 50 * time.Millisecond, Max: 5 * time.Second, MaxAttempts: 20}).
		CompensationRetry(definitions.RetryPolicy{Initial: 50 * time.Millisecond, Max: 30 * time.Second}).
		Timeout(10 * time.Second)

	b.Step("deliver").Do(Ship).Pivot().
		Input(`{
			'order':   input.id,
			'name':    input.customer.name,
			'address': input.address,
			'pieces':  steps.create.output.pieces,
		}`).
		Timeout(10 * time.Second)

	b.Step("notify").Do(Notify).
		Input(`{
			'order':    input.id,
			'email':    input.customer.email,
			'tracking': steps.deliver.output.tracking,
		}`)
}
