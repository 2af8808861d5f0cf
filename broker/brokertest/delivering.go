package brokertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/ringmaster-dev/ringmaster/broker"
)

func (f *fixture) shared(c broker.Conn) string {
	f.Helper()
	q := f.name("shared")
	if err := c.Declare(f.ctx, nil, []string{q}); err != nil {
		f.Fatal(err)
	}
	return q
}

// fill publishes n numbered messages, confirmed.
func (f *fixture) fill(c broker.Conn, queue string, n int) []string {
	f.Helper()
	var want []string
	for i := range n {
		m := to(queue, fmt.Sprint(i))
		m.Persistent = true
		f.confirm(c, m)
		want = append(want, fmt.Sprint(i))
	}
	return want
}

func competing(f *fixture) {
	a, b := f.open(broker.Options{}), f.open(broker.Options{})
	q := f.shared(a)
	var mu sync.Mutex
	seen := map[string]int{}
	all := make(chan struct{})
	const n = 400
	for _, c := range []broker.Conn{a, b, b} {
		_, err := c.Subscribe(f.ctx, broker.Subscription{Queue: q, Kind: broker.Shared, Prefetch: 5, Handler: func(d broker.Delivery) {
			mu.Lock()
			defer mu.Unlock()
			if seen[string(d.Body)]++; len(seen) == n && seen[string(d.Body)] == 1 {
				close(all)
			}
			d.Settle(true)
		}})
		if err != nil {
			f.Fatal(err)
		}
	}
	f.fill(a, q, n)
	receive(f, all, "all messages")
	mu.Lock()
	defer mu.Unlock()
	for body, times := range seen {
		if times != 1 {
			f.Errorf("message %s was delivered %d times", body, times)
		}
	}
}

func redelivery(f *fixture) {
	c := f.open(broker.Options{})
	q := f.shared(c)
	s := broker.Subscription{Queue: q, Kind: broker.Shared}
	want := f.fill(c, q, 5)
	in := f.subscribe(c, s, false)
	ds := in.take(5)
	for _, d := range ds {
		if d.Redelivered {
			f.Errorf("%s is called redelivered at first", d.Body)
		}
	}
	ds[1].Settle(true)
	ds[3].Settle(false)
	if d := in.take(1)[0]; string(d.Body) != want[3] || !d.Redelivered {
		f.Errorf("after giving back %s came %s, redelivered %v", want[3], d.Body, d.Redelivered)
	}
	in.stop()
	ds[0].Settle(true) // too late: does nothing
	in = f.subscribe(c, s, false)
	got := in.take(4)
	for _, d := range got {
		if !d.Redelivered {
			f.Errorf("%s is not called redelivered", d.Body)
		}
		d.Settle(true)
	}
	left := bodies(got)
	slices.Sort(left)
	if !slices.Equal(left, []string{"0", "2", "3", "4"}) {
		f.Errorf("delivered again: %v", left)
	}
	in.stop()
	f.drained(c, q)
}

// drained checks that a shared queue holds nothing: the next message out is
// the next message in.
func (f *fixture) drained(c broker.Conn, queue string) {
	f.Helper()
	m := to(queue, "last")
	f.confirm(c, m)
	in := f.subscribe(c, broker.Subscription{Queue: queue, Kind: broker.Shared}, true)
	if d := in.take(1)[0]; string(d.Body) != "last" {
		f.Errorf("%s was still in the queue", d.Body)
	}
	in.stop()
}

func settleOrder(f *fixture) {
	c := f.open(broker.Options{})
	q := f.shared(c)
	in := f.subscribe(c, broker.Subscription{Queue: q, Kind: broker.Shared, Prefetch: 10}, false)
	// More than the prefetch goes through, so that what is settled out of
	// order must have reached the broker for the next to come.
	const rounds = 8
	f.fill(c, q, 10*rounds)
	for round := range rounds {
		ds := in.take(10)
		switch round % 4 {
		case 1:
			slices.Reverse(ds)
		case 2: // evens, then odds
			slices.SortStableFunc(ds, func(a, b broker.Delivery) int {
				return int(a.Body[len(a.Body)-1]%2) - int(b.Body[len(b.Body)-1]%2)
			})
		}
		var wg sync.WaitGroup
		for _, d := range ds {
			settle := func() {
				d.Settle(true)
				d.Settle(false)
				d.Settle(true)
			}
			if round%4 == 3 {
				wg.Go(settle)
			} else {
				settle()
			}
			if d.Redelivered {
				f.Errorf("%s was delivered twice", d.Body)
			}
		}
		wg.Wait()
	}
	in.empty()
	in.stop()
	f.drained(c, q)
}

func prefetch(f *fixture) {
	c := f.open(broker.Options{})
	q := f.shared(c)
	in := f.subscribe(c, broker.Subscription{Queue: q, Kind: broker.Shared, Prefetch: 3}, false)
	f.fill(c, q, 9)
	ds := in.take(3)
	// Another consumer gets the rest: the broker holds it, not the first one.
	other := f.subscribe(c, broker.Subscription{Queue: q, Kind: broker.Shared, Prefetch: 100}, true)
	if got := bodies(other.take(6)); slices.Contains(got, string(ds[0].Body)) {
		f.Errorf("the other consumer got %v", got)
	}
	in.empty()
	for _, d := range ds {
		d.Settle(true)
	}
}

func slowHandler(f *fixture) {
	c := f.open(broker.Options{})
	for _, noAck := range []bool{true, false} {
		release := make(chan struct{})
		done := make(chan struct{})
		queue := make(chan string, 1)
		const n = 10_000
		next := 0
		consumer, err := c.Subscribe(f.ctx, broker.Subscription{
			Queue: f.name("slow"), Kind: broker.Exclusive, NoAck: noAck,
			OnDeclared: func(q string) { queue <- q },
			Handler: func(d broker.Delivery) {
				<-release
				if string(d.Body) != fmt.Sprint(next) {
					f.Errorf("got %s, want %d", d.Body, next)
				}
				if next++; next == n {
					close(done)
				}
				if d.Settle != nil {
					d.Settle(true)
				}
			},
		})
		if err != nil {
			f.Fatal(err)
		}
		q := receive(f, queue, "the queue")
		other := f.subscribe(c, broker.Subscription{Queue: f.name("other")}, true)
		oq := other.queue()
		for i := 0; i < n; i += 100 {
			var batch []broker.Message
			for j := range 100 {
				batch = append(batch, to(q, fmt.Sprint(i+j)))
			}
			f.publish(c, batch...)
		}
		// Other subscriptions of the Conn are not held up.
		f.publish(c, to(oq, "x"))
		other.take(1)
		close(release)
		receive(f, done, "all messages")
		if err := consumer.Stop(f.ctx); err != nil {
			f.Fatal(err)
		}
	}
}

func noAck(f *fixture) {
	c := f.open(broker.Options{})
	q := f.shared(c)
	f.fill(c, q, 20)
	in := f.subscribe(c, broker.Subscription{Queue: q, Kind: broker.Shared, NoAck: true, Prefetch: 1}, false)
	for _, d := range in.take(20) {
		if d.Settle != nil {
			f.Fatal("Settle is set")
		}
	}
	in.stop()
	f.drained(c, q)
}

func tenThousand(f *fixture) {
	a, b := f.open(broker.Options{}), f.open(broker.Options{})
	const n = 10_000
	tasks := make(chan string, 1)
	replies := f.subscribe(a, broker.Subscription{Queue: f.name("replies"), NoAck: true}, true)
	back := replies.queue()
	_, err := b.Subscribe(f.ctx, broker.Subscription{
		Queue: f.name("tasks"), Kind: broker.Exclusive, Prefetch: 500,
		OnDeclared: func(q string) { tasks <- q },
		Handler: func(d broker.Delivery) {
			if err := b.Publish(f.ctx, broker.Message{Key: back, ID: d.ID, Body: d.Body}); err != nil {
				f.Errorf("replying: %v", err)
			}
			d.Settle(true)
		},
	})
	if err != nil {
		f.Fatal(err)
	}
	q := receive(f, tasks, "the queue")
	var wg sync.WaitGroup
	for p := range 4 {
		wg.Go(func() {
			for i := p * n / 4; i < (p+1)*n/4; i++ {
				m := to(q, "task")
				m.ID = fmt.Sprint(i)
				f.publish(a, m)
			}
		})
	}
	wg.Wait()
	seen := make(map[string]bool, n)
	for _, d := range replies.take(n) {
		seen[d.ID] = true
	}
	if len(seen) != n {
		f.Errorf("%d different replies to %d tasks", len(seen), n)
	}
}

func stopWaits(f *fixture) {
	c := f.open(broker.Options{})
	entered, release := make(chan struct{}), make(chan struct{})
	queue := make(chan string, 1)
	var finished atomic.Bool
	var calls atomic.Int32
	consumer, err := c.Subscribe(f.ctx, broker.Subscription{
		Queue: f.name("q"), Kind: broker.Exclusive,
		OnDeclared: func(q string) { queue <- q },
		Handler: func(d broker.Delivery) {
			calls.Add(1)
			close(entered)
			<-release
			finished.Store(true)
			d.Settle(true)
		},
	})
	if err != nil {
		f.Fatal(err)
	}
	q := receive(f, queue, "the queue")
	f.publish(c, to(q, "1"), to(q, "2"), to(q, "3"))
	receive(f, entered, "the handler")
	ctx, cancel := context.WithCancel(f.ctx)
	cancel()
	if err := consumer.Stop(ctx); !errors.Is(err, context.Canceled) {
		f.Errorf("stopping with an ended context while the handler is busy: %v", err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- consumer.Stop(f.ctx) }()
	close(release)
	if err := receive(f, stopped, "the end of Stop"); err != nil {
		f.Errorf("stopping: %v", err)
	}
	if !finished.Load() {
		f.Error("Stop returned while the handler was running")
	}
	if n := calls.Load(); n != 1 {
		f.Errorf("the handler was called %d times", n)
	}
	if err := consumer.Stop(f.ctx); err != nil {
		f.Errorf("stopping again: %v", err)
	}
}

func closeBusy(f *fixture) {
	c := f.open(broker.Options{OnReturn: func(broker.Message) {}, OnState: func(broker.State) {}})
	other := f.open(broker.Options{})
	var closed atomic.Bool
	queue := make(chan string, 1)
	const enough = 2000
	busy := make(chan struct{})
	var n atomic.Int64
	_, err := c.Subscribe(f.ctx, broker.Subscription{
		Queue: f.name("q"), Kind: broker.Exclusive, OnDeclared: func(q string) { queue <- q },
		Handler: func(d broker.Delivery) {
			if closed.Load() {
				f.Error("a handler was called after Close")
			}
			if n.Add(1) == enough {
				close(busy)
			}
			d.Settle(true)
		},
	})
	if err != nil {
		f.Fatal(err)
	}
	q := receive(f, queue, "the queue")
	m := to(q, "x")
	m.Mandatory = true
	var wg sync.WaitGroup
	hammer := func(c broker.Conn, send func(broker.Conn) error) {
		wg.Go(func() {
			for !closed.Load() {
				if err := send(c); err != nil {
					known := errors.Is(err, broker.ErrClosed) || errors.Is(err, broker.ErrUnavailable) ||
						errors.Is(err, broker.ErrUnroutable) || errors.Is(err, broker.ErrUnconfirmed)
					if !known {
						f.Errorf("publishing while the Conn closes: %v", err)
					}
				}
			}
		})
	}
	plain := func(c broker.Conn) error { return c.Publish(f.ctx, m, m, m) }
	sure := func(c broker.Conn) error { return c.PublishConfirmed(f.ctx, m) }
	hammer(c, plain)
	hammer(c, sure)
	hammer(other, sure)
	receive(f, busy, "traffic")
	if err := c.Close(f.ctx); err != nil {
		f.Errorf("closing: %v", err)
	}
	closed.Store(true)
	wg.Wait()
	afterClose(f, c)
}

// afterClose checks that a closed Conn says so.
func afterClose(f *fixture, c broker.Conn) {
	if s := c.State(); s != broker.StateDisconnected {
		f.Errorf("the state after Close is %d", s)
	}
	m := to(f.name("q"), "x")
	_, suberr := c.Subscribe(f.ctx, broker.Subscription{Queue: "q", Kind: broker.Exclusive, Handler: func(broker.Delivery) {}})
	for what, err := range map[string]error{
		"Publish": c.Publish(f.ctx, m), "PublishConfirmed": c.PublishConfirmed(f.ctx, m),
		"Declare": c.Declare(f.ctx, nil, []string{f.name("s")}), "Subscribe": suberr,
	} {
		if !errors.Is(err, broker.ErrClosed) {
			f.Errorf("%s after Close: %v", what, err)
		}
	}
	if err := c.Close(f.ctx); err != nil {
		f.Errorf("closing again: %v", err)
	}
}
