package engine_test

import (
	"context"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// TestSecondWorkerOfOneIdentityIsToldToLeave has a second worker claim the
// identity of a first, which goes on.
func TestSecondWorkerOfOneIdentityIsToldToLeave(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	e := w.start()
	w.register(order())
	w.worker("a", shop(l))
	w.eventually("the worker is known", func() bool {
		ws, err := e.Workers(context.Background())
		return err == nil && len(ws) == 1
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := w.broker.Open(ctx, broker.Options{Name: "impostor"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	queue, drained := make(chan string, 1), make(chan struct{})
	if _, err := conn.Subscribe(ctx, broker.Subscription{
		Queue: protocol.WorkerQueue("", "impostor"), Kind: broker.Exclusive, NoAck: true,
		OnDeclared: func(q string) { queue <- q },
		Handler: func(d broker.Delivery) {
			if c, err := protocol.DecodeControl(&d.Message); err == nil && c.Drain {
				close(drained)
			}
		},
	}); err != nil {
		t.Fatal(err)
	}
	hb := protocol.Heartbeat{
		Worker: mustWorker(t, e, "a"), Name: "a", Queue: <-queue, Service: "shop",
		TaskTypes: []string{"none"}, Capacity: 1, Credit: 1, Weight: 100, IntervalMS: 50, Sequence: 1000,
	}
	beat := time.NewTicker(20 * time.Millisecond)
	defer beat.Stop()
	for done := false; !done; {
		if err := conn.Publish(ctx, protocol.EncodeHeartbeat(protocol.HeartbeatsExchange(""), &hb)); err != nil {
			t.Fatal(err)
		}
		hb.Sequence++
		select {
		case <-drained:
			done = true
		case <-beat.C:
		case <-ctx.Done():
			t.Fatal("the second worker is not told to leave")
		}
	}
	w.wait(w.run(rest.Start{Workflow: "order", Input: orderInput}), "succeeded")
}

// TestTwoDeploymentsUnderOneNamespaceAreNoticed starts a second orchestrator
// with a store of its own on the same broker.
func TestTwoDeploymentsUnderOneNamespaceAreNoticed(t *testing.T) {
	w := newWorld(t, nil)
	e := w.start()
	if h := e.Health(context.Background()); h.Status != "ok" {
		t.Fatalf("alone, it says %+v", h)
	}
	other := newWorld(t, nil)
	other.broker = w.broker
	f := other.start()
	for _, x := range []*engine.Engine{e, f} {
		w.eventually("the other is noticed", func() bool { return x.Health(context.Background()).Checks["engine"] != "ok" })
	}
}
