package lease_test

import (
	"context"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/inbox"
	"github.com/ringmaster-dev/ringmaster/worker/lease"
)

type Invoice struct {
	Customer string `json:"customer"`
	Cents    int64  `json:"cents"`
}

var Print = definitions.NewTask[Invoice, string]("billing", "billing.print")

var Book = definitions.NewTask[Invoice, int64]("billing", "billing.book")

// Invoices of one customer are printed one at a time, whoever prints them.
func ExampleHandle() {
	register := func(w *worker.Worker, h *lock.Holder) {
		byCustomer := func(in Invoice) string { return "printer/" + in.Customer }
		lease.Handle(w, h, Print, byCustomer, func(ctx context.Context, in Invoice) (string, error) {
			// The printer remembers the highest token and refuses a lower one.
			token := worker.TaskFrom(ctx).Token(lease.TokenName(byCustomer(in)))
			return send(ctx, in, token)
		})
	}
	_ = register
}

// The inbox keeps the highest token of each lease in the handler's own database,
// and refuses an attempt that has slept while another held the lease.
func ExampleHandleOnce() {
	register := func(w *worker.Worker, h *lock.Holder, box *inbox.Inbox) {
		byCustomer := func(in Invoice) string { return "account/" + in.Customer }
		lease.HandleOnce(w, h, box, Book, byCustomer, func(ctx context.Context, tx *sqlx.Tx, in Invoice) (balance int64, err error) {
			err = tx.GetContext(ctx, &balance, `UPDATE accounts SET cents = cents - $2 WHERE customer = $1 RETURNING cents`, in.Customer, in.Cents)
			return balance, err
		})
	}
	_ = register
}

func send(context.Context, Invoice, uint64) (string, error) { return "", nil }
