package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/chaos/internal/load"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/deliveries"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/flow"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/orders"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/payments"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/service"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/inbox"
)

// The services, in the order in which their workers are numbered.
var services = []string{"orders", "payments", "deliveries"}

// serve runs a worker of one of the shop's services. Its handlers are those of
// the example; but they take their time before their transactions begin, and not
// within, so that work is in flight at every moment and nobody who is paused in
// it holds up a whole database.
func serve(name string) error {
	switch name {
	case "orders":
		service.Main(name, func(ctx context.Context, s service.Settings) (service.Service, error) {
			o, err := orders.Open(ctx, s.Database)
			if err != nil {
				return nil, err
			}
			return &slow{o, s.Latency, func(w *worker.Worker, b *inbox.Inbox, d time.Duration) {
				handle(w, b, d, flow.CreateOrder, o.Create)
				handle(w, b, d, flow.CancelOrder, o.Cancel)
				handle(w, b, d, flow.Notify, o.Notify)
			}}, nil
		}, load.Workflows()...)
	case "payments":
		service.Main(name, func(ctx context.Context, s service.Settings) (service.Service, error) {
			p, err := payments.Open(ctx, s.Database)
			if err != nil {
				return nil, err
			}
			return &slow{p, s.Latency, func(w *worker.Worker, b *inbox.Inbox, d time.Duration) {
				handle(w, b, d, flow.Charge, p.Charge)
				handle(w, b, d, flow.Refund, p.Refund)
			}}, nil
		})
	case "deliveries":
		service.Main(name, func(ctx context.Context, s service.Settings) (service.Service, error) {
			v, err := deliveries.Open(ctx, s.Database)
			if err != nil {
				return nil, err
			}
			return &slow{v, s.Latency, func(w *worker.Worker, b *inbox.Inbox, d time.Duration) {
				handle(w, b, d, flow.Ship, v.Ship)
			}}, nil
		})
	default:
		return fmt.Errorf("worker %q: there are %v", name, services)
	}
	return nil
}

// slow is a service whose handlers take their time.
type slow struct {
	shop interface {
		DB() *sqlx.DB
		Close() error
	}
	takes    time.Duration
	register func(*worker.Worker, *inbox.Inbox, time.Duration)
}

func (s *slow) Close() error { return s.shop.Close() }

// Register makes w handle the service's tasks.
func (s *slow) Register(ctx context.Context, w *worker.Worker) error {
	box, err := inbox.New(ctx, s.shop.DB(), inbox.SQLite, inbox.Options{})
	if err != nil {
		return err
	}
	s.register(w, box, s.takes)
	return nil
}

// handle is [inbox.Handle] with a wait of half to one and a half times d before.
func handle[In, Out any](w *worker.Worker, b *inbox.Inbox, d time.Duration, task definitions.Task[In, Out],
	fn func(context.Context, *sqlx.Tx, In) (Out, error)) {
	w.HandleTask(task, func(ctx context.Context, payload []byte) ([]byte, error) {
		in, err := worker.Decode[In](payload)
		if err != nil {
			return nil, err
		}
		select {
		case <-time.After(d/2 + time.Duration(rand.Int64N(int64(d)+1))):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return b.Do(ctx, func(ctx context.Context, tx *sqlx.Tx) ([]byte, error) {
			out, err := fn(ctx, tx, in)
			if err != nil {
				return nil, err
			}
			return worker.Encode(out)
		})
	})
}
