package brokertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/ringmaster-dev/ringmaster/broker"
)

// binder is a running subscription and a direct exchange of its own.
type binder struct {
	*inbox
	conn broker.Conn // for publishing
	x    broker.Exchange
}

func (f *fixture) binder(c, publisher broker.Conn, kind broker.QueueKind, keys ...string) *binder {
	f.Helper()
	x := broker.Exchange{Name: f.name(fmt.Sprint("x", kind)), Kind: broker.Direct}
	in := f.subscribe(c, broker.Subscription{
		Queue: f.name(fmt.Sprint("bound", kind)), Kind: kind,
		Bindings: []broker.Binding{{Exchange: x, Keys: keys}},
	}, true)
	in.queue()
	return &binder{inbox: in, conn: publisher, x: x}
}

func (b *binder) keys(keys ...string) broker.Binding {
	return broker.Binding{Exchange: b.x, Keys: keys}
}

func (b *binder) bind(keys ...string) {
	b.f.Helper()
	if err := b.consumer.Bind(b.f.ctx, b.keys(keys...)); err != nil {
		b.f.Fatalf("binding: %v", err)
	}
}

func (b *binder) unbind(keys ...string) {
	b.f.Helper()
	if err := b.consumer.Unbind(b.f.ctx, b.keys(keys...)); err != nil {
		b.f.Fatalf("unbinding: %v", err)
	}
}

// leads checks whether a message with that key gets to the queue.
func (b *binder) leads(key string, want bool) {
	b.f.Helper()
	m := broker.Message{Exchange: b.x.Name, Key: key, Mandatory: true, Body: []byte(key)}
	err := b.conn.PublishConfirmed(b.f.ctx, m)
	switch {
	case want && err != nil:
		b.f.Errorf("key %s: %v", key, err)
	case want:
		if d := b.take(1)[0]; string(d.Body) != key {
			b.f.Errorf("key %s: %q was delivered", key, d.Body)
		}
	case !errors.Is(err, broker.ErrUnroutable):
		b.f.Errorf("key %s: the message did not come back: %v", key, err)
	}
}

// kinds runs a behaviour for both kinds of queue.
func kinds(f *fixture, test func(kind broker.QueueKind)) {
	for _, kind := range []broker.QueueKind{broker.Exclusive, broker.Shared} {
		test(kind)
	}
}

func rebinding(f *fixture) {
	c, other := f.open(broker.Options{}), f.open(broker.Options{})
	kinds(f, func(kind broker.QueueKind) {
		b := f.binder(c, other, kind, "first")
		b.leads("first", true)
		b.leads("more", false)
		for range 2 {
			b.bind("more", "first", "more")
			b.leads("more", true)
			b.leads("first", true)
		}
		for range 2 {
			b.unbind("first", "never bound")
			b.leads("first", false)
			b.leads("more", true)
		}
		b.bind()
		b.unbind()
		b.bind("first")
		b.leads("first", true)
		b.empty()
	})
}

func rebindingFanout(f *fixture) {
	c := f.open(broker.Options{})
	kinds(f, func(kind broker.QueueKind) {
		b := f.binder(c, c, kind)
		b.x = broker.Exchange{Name: f.name(fmt.Sprint("fan", kind)), Kind: broker.Fanout}
		b.bind()
		b.bind("ignored", "keys")
		b.leads("any", true)
		b.unbind()
		b.leads("any", false)
	})
}

func manyBindings(f *fixture) {
	c, other := f.open(broker.Options{}), f.open(broker.Options{})
	var keys []string
	for i := range 1000 {
		keys = append(keys, fmt.Sprint("key ", i))
	}
	kinds(f, func(kind broker.QueueKind) {
		b := f.binder(c, other, kind)
		b.bind(keys...)
		for _, k := range keys {
			f.publish(other, broker.Message{Exchange: b.x.Name, Key: k, Body: []byte(k)})
		}
		if got := bodies(b.take(len(keys))); !slices.Equal(got, keys) {
			f.Error("messages with many keys arrived otherwise than they were sent")
		}
		b.unbind(keys[1:]...)
		b.leads(keys[0], true)
		for _, i := range []int{1, 500, 999} {
			b.leads(keys[i], false)
		}
	})
}

// concurrentBindings has many callers change keys of their own.
func concurrentBindings(f *fixture) {
	c, other := f.open(broker.Options{}), f.open(broker.Options{})
	kinds(f, func(kind broker.QueueKind) {
		b := f.binder(c, other, kind)
		const callers = 16
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				k := fmt.Sprint(i)
				b.bind(k, "all")
				b.unbind(k)
				if i%2 == 0 {
					b.bind(k)
				}
			})
		}
		wg.Wait()
		b.leads("all", true)
		for i := range callers {
			b.leads(fmt.Sprint(i), i%2 == 0)
		}
	})
}

func unboundQueue(f *fixture) {
	c, other := f.open(broker.Options{}), f.open(broker.Options{})
	x := broker.Exchange{Name: f.name("x"), Kind: broker.Direct}
	bound := broker.Binding{Exchange: x, Keys: []string{"k"}}
	release, got := make(chan struct{}), make(chan string, 100)
	consumer, err := c.Subscribe(f.ctx, broker.Subscription{
		Queue: f.name("q"), Kind: broker.Exclusive, Prefetch: 1, Bindings: []broker.Binding{bound},
		Handler: func(d broker.Delivery) {
			<-release
			got <- string(d.Body)
			d.Settle(true)
		},
	})
	if err != nil {
		f.Fatal(err)
	}
	const n = 10
	m := broker.Message{Exchange: x.Name, Key: "k", Mandatory: true}
	for i := range n {
		m.Body = fmt.Append(nil, i)
		f.confirm(other, m)
	}
	if err := consumer.Unbind(f.ctx, bound); err != nil {
		f.Fatal(err)
	}
	if err := other.PublishConfirmed(f.ctx, m); !errors.Is(err, broker.ErrUnroutable) {
		f.Errorf("after unbinding: %v", err)
	}
	close(release)
	for i := range n {
		if body := receive(f, got, "what was queued"); body != fmt.Sprint(i) {
			f.Errorf("got %s, want %d", body, i)
		}
	}
}

func refusedBinding(f *fixture) {
	c := f.open(broker.Options{})
	b := f.binder(c, c, broker.Exclusive, "k")
	long := strings.Repeat("x", broker.MaxName+1)
	for name, bd := range map[string]broker.Binding{
		"kind": {Exchange: broker.Exchange{Name: b.x.Name, Kind: "topic"}, Keys: []string{"y"}},
		"name": {Exchange: broker.Exchange{Kind: broker.Direct}, Keys: []string{"y"}},
		"key":  b.keys("y", long),
	} {
		for _, err := range []error{b.consumer.Bind(f.ctx, bd), b.consumer.Unbind(f.ctx, bd)} {
			if !errors.Is(err, broker.ErrInvalid) || !strings.Contains(err.Error(), name) {
				f.Errorf("%s: %v", name, err)
			}
		}
	}
	err := b.consumer.Bind(f.ctx, broker.Binding{Exchange: broker.Exchange{Name: b.x.Name, Kind: broker.Fanout}})
	if err == nil || !strings.Contains(err.Error(), b.x.Name) {
		f.Errorf("binding to an exchange of another kind: %v", err)
	}
	over, cancel := context.WithCancel(f.ctx)
	cancel()
	if err := b.consumer.Bind(over, b.keys("z")); err != nil && !errors.Is(err, context.Canceled) {
		f.Errorf("binding with an ended context: %v", err)
	}
	// What was refused disturbs nothing.
	b.leads("k", true)
	b.leads("y", false)
	b.bind("y")
	b.leads("y", true)
	b.stop()
	for _, err := range []error{b.consumer.Bind(f.ctx, b.keys("k")), b.consumer.Unbind(f.ctx, b.keys("k"))} {
		if !errors.Is(err, broker.ErrClosed) {
			f.Errorf("after Stop: %v", err)
		}
	}
	b.leads("k", false)
}

// bindingsKept kills the connection again and again while bindings change.
func bindingsKept(f *fixture) {
	kinds(f, func(kind broker.QueueKind) {
		st := f.states()
		name := f.name(fmt.Sprint("victim", kind))
		victim, other := f.open(broker.Options{Name: name, OnState: st.on}), f.open(broker.Options{})
		st.await(broker.StateConnected)
		b := f.binder(victim, other, kind, "first", "gone")
		b.bind("more", "gone too")
		b.unbind("gone", "gone too")
		const callers = 4
		end := make(chan struct{})
		last := make([]bool, callers)
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				for {
					select {
					case <-end:
						return
					default:
					}
					if last[i] = !last[i]; last[i] {
						b.bind(fmt.Sprint(i))
					} else {
						b.unbind(fmt.Sprint(i))
					}
				}
			})
		}
		for range 3 {
			if err := f.KillConnections(f.ctx, name); err != nil {
				f.Error(err)
				break
			}
			st.await(broker.StateDisconnected)
			st.await(broker.StateConnected)
		}
		close(end)
		wg.Wait()
		for _, k := range []string{"first", "more"} {
			b.leads(k, true)
		}
		for _, k := range []string{"gone", "gone too"} {
			b.leads(k, false)
		}
		for i, bound := range last {
			b.leads(fmt.Sprint(i), bound)
		}
	})
}

// changeDuringOutage changes bindings while there is no service: that does not
// wait for it.
func changeDuringOutage(st *states, bs ...*binder) {
	for _, b := range bs {
		b.bind("during", "for a while")
		b.unbind("before", "for a while")
	}
	select {
	case s := <-st.ch:
		st.f.Errorf("binding took until the state was %d", s)
	default:
	}
}

// changedAfterOutage checks the same when the service is back.
func changedAfterOutage(bs ...*binder) {
	for _, b := range bs {
		b.leads("during", true)
		b.leads("before", false)
		b.leads("for a while", false)
	}
}
