package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/broker/memory"
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

type chargeIn2 struct {
	Cents    int64  `json:"cents"`
	Currency string `json:"currency"`
}

// While runs of before are under way, a worker serves the task in its old and in
// its new version, each with types of its own.
func ExampleHandle_versions() {
	charge2 := definitions.NewTask[chargeIn2, chargeOut]("payments", "payments.charge@2")
	b, _ := memory.New(memory.Config{})
	w, err := worker.New(worker.Config{Broker: b, Service: "payments"})
	if err != nil {
		fmt.Println(err)
		return
	}
	worker.Handle(w, Charge, func(ctx context.Context, in chargeIn) (chargeOut, error) {
		return chargeOut{Receipt: "in euros"}, nil
	})
	worker.Handle(w, charge2, func(ctx context.Context, in chargeIn2) (chargeOut, error) {
		return chargeOut{Receipt: "in " + in.Currency}, nil
	})
	fmt.Println(w.TaskTypes())
	// Output: [payments.charge payments.charge@2]
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

// A long task reports how far it has come. People see it beside the step, and
// an attempt that follows goes on from there.
func ExampleProgress() {
	type position struct {
		Row int `json:"row"`
	}
	handler := func(ctx context.Context, _ []byte) ([]byte, error) {
		var at position
		if p := worker.TaskFrom(ctx).Progress; p != nil {
			if err := json.Unmarshal(p, &at); err != nil {
				return nil, err
			}
		}
		fmt.Println("from row", at.Row)
		for at.Row < 3 {
			at.Row++ // after the row has been imported
			if err := worker.Progress(ctx, at); err != nil {
				return nil, err
			}
			if at.Row == 2 {
				return nil, errors.New("the file server is away")
			}
		}
		return nil, nil
	}
	first := worker.Perform(context.Background(), handler, nil)
	fmt.Println(first.Outcome, string(first.Payload))

	again := worker.WithTask(context.Background(), worker.TaskInfo{Progress: first.Payload})
	fmt.Println(worker.Perform(again, handler, nil).Outcome)
	// Output:
	// from row 0
	// failed {"row":2}
	// from row 2
	// succeeded
}
