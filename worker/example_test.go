package worker_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/worker"
)

type RefundIn struct {
	Receipt string `json:"receipt"`
}

var (
	Charge = definitions.NewTask[chargeIn, chargeOut]("payments", "payments.charge")
	Refund = definitions.NewTask[RefundIn, struct{}]("payments", "payments.refund")
)

var errNoMoney = errors.New("not enough money on the card")

// A worker of the payments service. It runs until it is interrupted, then
// finishes what it has begun.
func Example() {
	var b broker.Broker // of broker/rabbit or broker/memory

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	w, err := worker.New(worker.Config{Broker: b, Name: "payments-1", Service: "payments", Concurrency: 8})
	if err != nil {
		fmt.Println(err)
		return
	}
	worker.Handle(w, Charge, func(ctx context.Context, in chargeIn) (chargeOut, error) {
		if in.Amount > 1_000 {
			return chargeOut{}, worker.Final("card_declined", errNoMoney)
		}
		// The key is the same on every attempt: the card company charges once.
		key := worker.TaskFrom(ctx).IdempotencyKey
		return chargeOut{Receipt: "receipt of " + key}, nil
	})
	worker.Handle(w, Refund, func(ctx context.Context, in RefundIn) (struct{}, error) {
		return struct{}{}, nil
	})
	if err := w.Run(ctx); err != nil {
		fmt.Println(err)
	}
}

// Handlers are functions: a test calls them with a task of its own.
func ExampleWithTask() {
	handler := func(ctx context.Context, in chargeIn) (chargeOut, error) {
		return chargeOut{Receipt: worker.TaskFrom(ctx).IdempotencyKey}, nil
	}
	ctx := worker.WithTask(context.Background(), worker.TaskInfo{IdempotencyKey: "order-1/pay/action/1"})
	out, err := handler(ctx, chargeIn{Amount: 12})
	fmt.Println(out.Receipt, err)
	// Output: order-1/pay/action/1 <nil>
}
