package memory_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/broker/brokertest"
	"github.com/ringmaster-dev/ringmaster/broker/memory"
)

func TestConformance(t *testing.T) {
	b, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	brokertest.Run(t, brokertest.Harness{Broker: b})
}

// A full queue holds its publishers up until the consumer makes room.
func TestAFullQueueHoldsPublishersUp(t *testing.T) {
	for name, cfg := range map[string]memory.Config{
		"messages": {QueueMessages: 3},
		"bytes":    {QueueBytes: 3},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := memory.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			c, err := b.Open(t.Context(), broker.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close(context.Background()) }()
			release, got := make(chan struct{}), make(chan broker.Delivery, 10)
			var queue string
			_, err = c.Subscribe(t.Context(), broker.Subscription{
				Queue: "q", Kind: broker.Exclusive, Prefetch: 1,
				OnDeclared: func(q string) { queue = q },
				Handler:    func(d broker.Delivery) { <-release; d.Settle(true); got <- d },
			})
			if err != nil {
				t.Fatal(err)
			}
			m := broker.Message{Key: queue, Body: []byte("x")}
			// Three fit, and one may be with the consumer.
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			sent := 0
			for err = nil; err == nil && sent < 10; sent++ {
				err = c.Publish(ctx, m)
			}
			if sent--; !errors.Is(err, broker.ErrUnavailable) || sent < 3 || sent > 4 {
				t.Fatalf("after %d messages: %v", sent, err)
			}
			done := make(chan error, 1)
			go func() { done <- c.Publish(t.Context(), m) }()
			close(release)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			for range sent + 1 {
				<-got
			}
		})
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	br, err := memory.New(memory.Config{})
	if err != nil {
		b.Fatal(err)
	}
	brokertest.BenchmarkRoundTrip(b, br)
}
