// Package load is the work that flows through a deployment while it is struck:
// orders of the example's shop, by several workflows, some of which are bound to
// fail and some of which are cancelled, and the clients that start them.
package load

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/flow"
	shop "github.com/ringmaster-dev/ringmaster/examples/order-flow/load"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/orders"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/payments"
)

// Names of the workflows beside the example's own.
const (
	Locked   = "order-locked"   // one run of a customer at a time
	Serial   = "order-serial"   // one task of a customer at a time
	Parental = "order-parental" // the order is a child run
)

// Workflows are those that jobs are runs of.
func Workflows() []*definitions.Workflow {
	locked := definitions.Saga(Locked).RoutingKey("input.customer.id").Deadline(time.Hour).Lock("'customer/' + input.customer.id")
	flow.Steps(locked)
	serial := definitions.Saga(Serial).RoutingKey("input.customer.id").Deadline(time.Hour).Serial()
	flow.Steps(serial)
	parental := definitions.Saga(Parental).RoutingKey("input.customer.id").Deadline(time.Hour)
	parental.Step("order").Workflow(flow.OrderFlow.Name()).Pivot()
	return []*definitions.Workflow{flow.OrderFlow.Workflow, locked.MustBuild(), serial.MustBuild(), parental.MustBuild()}
}

// Job is a run to be started; its id is its order's.
type Job struct {
	Workflow string
	Order    flow.Order
	Cancel   bool
	Delay    time.Duration // from the acknowledgement to the cancel
}

// Of so many jobs, one is of each of these kinds.
const (
	every       = 8 // of each workflow beside the example's own
	everyCancel = 20
	maxDelay    = 400 * time.Millisecond
)

// Jobs draws n jobs: days of the shop, one after the other.
func Jobs(seed uint64, n int) ([]Job, error) {
	day, err := shop.Orders()
	if err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(seed, 0x10ad))
	jobs := make([]Job, n)
	for i := range jobs {
		j := Job{Workflow: flow.OrderFlow.Name(), Order: day[i%len(day)]}
		j.Order.ID = fmt.Sprintf("order-%06d", i+1)
		switch rng.IntN(every) {
		case 0:
			j.Workflow = Locked
		case 1:
			j.Workflow = Serial
		case 2:
			j.Workflow = Parental
		}
		if rng.IntN(everyCancel) == 0 {
			j.Cancel, j.Delay = true, time.Duration(rng.Int64N(int64(maxDelay)))
		}
		jobs[i] = j
	}
	return jobs, nil
}

// days is how many of the shop's days n jobs are.
func days(n int) (int64, error) {
	day, err := shop.Orders()
	if err != nil {
		return 0, err
	}
	return int64((n + len(day) - 1) / len(day)), nil
}

// Items is the stock for n jobs: as scarce as in the example.
func Items(n int) ([]orders.Item, error) {
	items, err := shop.Items()
	if err != nil {
		return nil, err
	}
	factor, err := days(n)
	for i := range items {
		items[i].Opening *= factor
	}
	return items, err
}

// Accounts are the cards for n jobs, with as much money as in the example.
func Accounts(n int) ([]payments.Account, error) {
	accounts, err := shop.Accounts()
	if err != nil {
		return nil, err
	}
	factor, err := days(n)
	for i := range accounts {
		accounts[i].Opening *= factor
	}
	return accounts, err
}
