package brokertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
)

// faults are the behaviours that need the service to fail.
var faults = []fault{
	{"a killed connection comes back with its subscriptions", func(h Harness) bool { return h.KillConnections != nil }, killed},
	{"settling a delivery of a lost connection settles nothing", func(h Harness) bool { return h.KillConnections != nil }, wrongAck},
	{"a consumer that the service cancelled subscribes again", func(h Harness) bool { return h.DeleteQueue != nil }, cancelled},
	{"a blocked service is told apart and refuses publishes at once", func(h Harness) bool { return h.SetBlocked != nil }, blocked},
	{"a binding that races a reconnect is not lost", func(h Harness) bool { return h.KillConnections != nil }, bindingsKept},
	{"what was confirmed before a restart, and bound before or during it, is there after it", func(h Harness) bool { return h.Restart != nil }, restart},
}

// retry publishes until the broker takes it.
func (f *fixture) retry(c broker.Conn, send func() error) {
	f.Helper()
	for {
		err := send()
		if err == nil {
			return
		}
		if !errors.Is(err, broker.ErrUnavailable) && !errors.Is(err, broker.ErrUnconfirmed) {
			f.Fatalf("publishing during an outage: %v", err)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-f.ctx.Done():
			f.Fatal("the broker did not come back")
		}
	}
}

func killed(f *fixture) {
	st := f.states()
	a := f.open(broker.Options{Name: f.name("victim"), OnState: st.on})
	b := f.open(broker.Options{Name: f.name("other")})
	st.await(broker.StateConnected)
	x := broker.Exchange{Name: f.name("x"), Kind: broker.Fanout}
	own := f.subscribe(a, broker.Subscription{Queue: f.name("own"), NoAck: true}, true)
	all := f.subscribe(a, broker.Subscription{Queue: f.name("all"), Bindings: []broker.Binding{{Exchange: x}}}, true)
	before := own.queue()
	all.queue()
	for round := range 3 {
		f.publish(b, to(before, fmt.Sprint("before ", round)))
		own.take(1)
		if err := f.KillConnections(f.ctx, f.name("victim")); err != nil {
			f.Fatal(err)
		}
		st.await(broker.StateDisconnected)
		st.await(broker.StateConnected)
		after := own.queue()
		all.queue()
		if after == before {
			f.Errorf("the queue kept its name %s", after)
		}
		m := to(after, "after")
		m.Mandatory = true
		f.confirm(b, m)
		own.take(1)
		f.publish(a, broker.Message{Exchange: x.Name, Body: []byte("from the victim")})
		all.take(1)
		back := to(before, "to the old queue")
		back.Mandatory = true
		if err := b.PublishConfirmed(f.ctx, back); !errors.Is(err, broker.ErrUnroutable) {
			f.Errorf("the old queue still takes messages: %v", err)
		}
		before = after
	}
}

func wrongAck(f *fixture) {
	st := f.states()
	victim := f.open(broker.Options{Name: f.name("victim"), OnState: st.on})
	other := f.open(broker.Options{Name: f.name("other")})
	st.await(broker.StateConnected)
	q := f.shared(other)
	const n = 10
	f.fill(other, q, n)
	in := f.subscribe(victim, broker.Subscription{Queue: q, Kind: broker.Shared}, false)
	in.queue()
	old := in.take(n)
	if err := f.KillConnections(f.ctx, f.name("victim")); err != nil {
		f.Fatal(err)
	}
	st.await(broker.StateConnected)
	in.queue()
	again := in.take(n)
	for _, d := range old {
		d.Settle(true)
	}
	// Settling one of the new ones would carry the old ones along, if they
	// had been mistaken for it.
	again[0].Settle(true)
	in.stop()
	rest := f.subscribe(other, broker.Subscription{Queue: q, Kind: broker.Shared}, true)
	seen := map[string]bool{}
	for _, d := range rest.take(n - 1) {
		seen[string(d.Body)] = true
	}
	if seen[string(again[0].Body)] || len(seen) != n-1 {
		f.Errorf("after settling %s, %v were left", again[0].Body, seen)
	}
	rest.stop()
	f.drained(other, q)
}

func cancelled(f *fixture) {
	c := f.open(broker.Options{})
	in := f.subscribe(c, broker.Subscription{Queue: f.name("q")}, true)
	shared := f.subscribe(c, broker.Subscription{Queue: f.shared(c), Kind: broker.Shared}, true)
	before := in.queue()
	for _, q := range []string{before, shared.queue()} {
		if err := f.DeleteQueue(f.ctx, q); err != nil {
			f.Fatal(err)
		}
	}
	after := in.queue()
	if after == before {
		f.Errorf("the queue kept its name %s", after)
	}
	for _, q := range []string{after, shared.queue()} {
		m := to(q, "x")
		m.Mandatory = true
		f.confirm(c, m)
	}
	in.take(1)
	shared.take(1)
	if s := c.State(); s != broker.StateConnected {
		f.Errorf("the state is %d", s)
	}
}

// publishUntilBlocked returns how many messages it took: the service tells a
// connection when that wants to publish, and is blocked when it gets to it.
func (f *fixture) publishUntilBlocked(c broker.Conn, st *states, m broker.Message) (n int) {
	f.Helper()
	for {
		switch err := c.Publish(f.ctx, m); {
		case err == nil:
			n++
		case !errors.Is(err, broker.ErrUnavailable):
			f.Fatalf("publishing: %v", err)
		}
		select {
		case s := <-st.ch:
			if s != broker.StateBlocked {
				f.Fatalf("the state became %d", s)
			}
			return n
		case <-time.After(50 * time.Millisecond):
		case <-f.ctx.Done():
			f.Fatal("the service is not blocked")
		}
	}
}

func blocked(f *fixture) {
	st := f.states()
	c := f.open(broker.Options{OnState: st.on})
	st.await(broker.StateConnected)
	q := f.shared(c)
	f.fill(c, q, 5)
	if err := f.SetBlocked(f.ctx, true); err != nil {
		f.Fatal(err)
	}
	unblocked := false
	unblock := func() {
		if !unblocked {
			unblocked = true
			if err := f.SetBlocked(context.WithoutCancel(f.ctx), false); err != nil {
				f.Error(err)
			}
		}
	}
	defer unblock()
	heldUp := f.publishUntilBlocked(c, st, to(q, "held up"))
	for range 100 {
		if err := c.Publish(f.ctx, to(q, "refused")); !errors.Is(err, broker.ErrUnavailable) {
			f.Fatalf("publishing while blocked: %v", err)
		}
	}
	if err := c.PublishConfirmed(f.ctx, to(q, "refused")); !errors.Is(err, broker.ErrUnavailable) {
		f.Errorf("publishing, confirmed, while blocked: %v", err)
	}
	// Deliveries, acknowledgements and declarations go on.
	in := f.subscribe(c, broker.Subscription{Queue: q, Kind: broker.Shared, Prefetch: 1}, true)
	in.take(5)
	if err := c.Declare(f.ctx, []broker.Exchange{{Name: f.name("x"), Kind: broker.Direct}}, nil); err != nil {
		f.Errorf("declaring while blocked: %v", err)
	}
	unblock()
	st.await(broker.StateConnected)
	for _, d := range in.take(heldUp) {
		if string(d.Body) != "held up" {
			f.Errorf("got %s", d.Body)
		}
	}
	f.confirm(c, to(q, "goes through"))
	in.take(1)
}

func restart(f *fixture) {
	st := f.states()
	c := f.open(broker.Options{OnState: st.on})
	st.await(broker.StateConnected)
	x := broker.Exchange{Name: f.name("x"), Kind: broker.Direct}
	if err := c.Declare(f.ctx, []broker.Exchange{x}, nil); err != nil {
		f.Fatal(err)
	}
	q := f.shared(c)
	own := f.subscribe(c, broker.Subscription{Queue: f.name("own"), Bindings: []broker.Binding{{Exchange: x, Keys: []string{"own"}}}}, true)
	own.queue()
	binders := []*binder{f.binder(c, c, broker.Exclusive, "before"), f.binder(c, c, broker.Shared, "before")}

	var end atomic.Bool
	var mu sync.Mutex
	confirmed := map[string]bool{}
	var wg sync.WaitGroup
	warm := make(chan struct{}, 1000)
	for p := range 4 {
		wg.Go(func() {
			for i := 0; !end.Load(); i++ {
				body := fmt.Sprintf("%d/%d", p, i)
				m := to(q, body)
				m.Mandatory, m.Persistent = true, true
				f.retry(c, func() error { return c.PublishConfirmed(f.ctx, m) })
				mu.Lock()
				confirmed[body] = true
				if len(confirmed) == 200 {
					close(warm)
				}
				mu.Unlock()
			}
		})
	}
	receive(f, warm, "the first confirmations")
	restarted := make(chan error, 1)
	go func() { restarted <- f.Restart(f.ctx) }()
	st.await(broker.StateDisconnected)
	changeDuringOutage(st, binders...)
	err := receive(f, restarted, "the restart")
	if err == nil {
		st.await(broker.StateConnected)
	}
	end.Store(true)
	wg.Wait()
	if err != nil {
		f.Fatal(err)
	}
	changedAfterOutage(binders...)
	own.queue()
	f.retry(c, func() error {
		return c.PublishConfirmed(f.ctx, broker.Message{Exchange: x.Name, Key: "own", Mandatory: true})
	})
	own.take(1)

	f.confirm(c, to(q, "end"))
	f.allThere(c, q, confirmed)
}

// allThere checks that a shared queue, whose last message is "end", gives
// everything that was confirmed.
func (f *fixture) allThere(c broker.Conn, queue string, confirmed map[string]bool) {
	f.Helper()
	in := f.subscribe(c, broker.Subscription{Queue: queue, Kind: broker.Shared}, true)
	for {
		body := string(in.take(1)[0].Body)
		if body == "end" {
			break
		}
		delete(confirmed, body)
	}
	for body := range confirmed {
		f.Errorf("the confirmed message %s is gone, one of %d", body, len(confirmed))
		break
	}
}
