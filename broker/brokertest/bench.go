package brokertest

import (
	"context"
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
)

// BenchmarkRoundTrip sends tasks of 256 bytes to a worker that answers each
// with as much, with a number of them in flight. Batches of a window are what
// an engine and a worker make of many tasks at once: they publish whatever is
// there in one call.
func BenchmarkRoundTrip(b *testing.B, br broker.Broker) {
	for _, window := range []int{1, 500} {
		for _, noAck := range []bool{true, false} {
			b.Run(fmt.Sprintf("window=%d/noack=%v", window, noAck), func(b *testing.B) {
				roundTrip(b, br, window, noAck)
			})
		}
	}
}

func roundTrip(b *testing.B, br broker.Broker, window int, noAck bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	open := func(name string) broker.Conn {
		c, err := br.Open(ctx, broker.Options{Name: name})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = c.Close(context.Background()) })
		return c
	}
	subscribe := func(c broker.Conn, handler func(broker.Delivery)) string {
		queue := make(chan string, 1)
		_, err := c.Subscribe(ctx, broker.Subscription{
			Queue: "bench-" + rand.Text()[:6], Kind: broker.Exclusive, NoAck: noAck,
			OnDeclared: func(q string) { queue <- q },
			Handler: func(d broker.Delivery) {
				handler(d)
				if d.Settle != nil {
					d.Settle(true)
				}
			},
		})
		if err != nil {
			b.Fatal(err)
		}
		return <-queue
	}
	engine, worker := open("bench engine"), open("bench worker")
	answered := make(chan struct{}, window)
	replies := subscribe(engine, func(broker.Delivery) { answered <- struct{}{} })
	body := make([]byte, 256)
	tasks := subscribe(worker, func(d broker.Delivery) {
		if err := worker.Publish(ctx, broker.Message{Key: replies, ID: d.ID, Body: d.Body}); err != nil {
			b.Error(err)
		}
	})
	b.ResetTimer()
	inFlight := 0
	for sent := 0; sent < b.N || inFlight > 0; {
		for ; sent < b.N && inFlight < window; sent++ {
			m := broker.Message{Key: tasks, Mandatory: true, ID: "0123456789abcdef", Body: body}
			if err := engine.Publish(ctx, m); err != nil {
				b.Fatal(err)
			}
			inFlight++
		}
		<-answered
		inFlight--
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "roundtrips/s")
}
