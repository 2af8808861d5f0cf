// Package brokertest is the conformance suite of the port broker: what every
// implementation promises, and what it promises when its service fails.
//
// The behaviours that need a service to fail run where the [Harness] says how
// to make it fail.
package brokertest

import (
	"context"
	"crypto/rand"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ringmaster-dev/ringmaster/broker"
)

// patience bounds every wait. It is far above what any wait takes, so that a
// busy machine fails no test.
const patience = 90 * time.Second

// Harness is an implementation under test. Broker is needed; each function may
// be nil, and then the behaviours that need it are left out.
type Harness struct {
	Broker broker.Broker
	// Restart stops the service and starts it again, and returns when it
	// answers.
	Restart func(ctx context.Context) error
	// KillConnections has the service close the connections of the Conn with
	// that name.
	KillConnections func(ctx context.Context, name string) error
	// SetBlocked has the service stop reading publishes, or read them again.
	SetBlocked func(ctx context.Context, blocked bool) error
	// DeleteQueue deletes a queue behind the back of its consumer.
	DeleteQueue func(ctx context.Context, queue string) error
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	before := goleak.IgnoreCurrent()
	for _, b := range behaviours {
		t.Run(b.name, func(t *testing.T) { b.test(newFixture(t, h)) })
	}
	for _, b := range faults {
		if b.possible(h) {
			t.Run(b.name, func(t *testing.T) { b.test(newFixture(t, h)) })
		}
	}
	// A service that was restarted in between is a process that is waited for.
	goleak.VerifyNone(t, before, goleak.IgnoreAnyFunction("os/exec.(*Cmd).Wait"))
}

type behaviour struct {
	name string
	test func(*fixture)
}

type fault struct {
	name     string
	possible func(Harness) bool
	test     func(*fixture)
}

// fixture is what a behaviour works with: names of its own, Conns that are
// closed at the end.
type fixture struct {
	*testing.T
	Harness
	ctx context.Context
	id  string
}

func newFixture(t *testing.T, h Harness) *fixture {
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	t.Cleanup(cancel)
	return &fixture{T: t, Harness: h, ctx: ctx, id: strings.ToLower(rand.Text()[:8])}
}

// name makes a name that no other behaviour uses.
func (f *fixture) name(s string) string { return "bt-" + f.id + "." + s }

func (f *fixture) open(o broker.Options) broker.Conn {
	f.Helper()
	if o.Name == "" {
		o.Name = f.name("conn")
	}
	c, err := f.Broker.Open(f.ctx, o)
	if err != nil {
		f.Fatalf("opening a Conn: %v", err)
	}
	f.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			f.Errorf("closing the Conn: %v", err)
		}
	})
	return c
}

// inbox collects what a subscription gets.
type inbox struct {
	f        *fixture
	consumer broker.Consumer
	queues   chan string // each name that was declared
	got      chan broker.Delivery
}

// subscribe consumes into an inbox; settle has every delivery settled at once.
func (f *fixture) subscribe(c broker.Conn, s broker.Subscription, settle bool) *inbox {
	f.Helper()
	in := &inbox{f: f, queues: make(chan string, 100), got: make(chan broker.Delivery, 100_000)}
	if s.Kind == 0 {
		s.Kind = broker.Exclusive
	}
	s.OnDeclared = func(q string) { in.queues <- q }
	s.Handler = func(d broker.Delivery) {
		in.got <- d
		if settle && d.Settle != nil {
			d.Settle(true)
		}
	}
	var err error
	if in.consumer, err = c.Subscribe(f.ctx, s); err != nil {
		f.Fatalf("subscribing to %s: %v", s.Queue, err)
	}
	return in
}

// queue waits for the next name of the queue.
func (in *inbox) queue() string {
	in.f.Helper()
	return receive(in.f, in.queues, "a queue's name")
}

// take waits for n deliveries.
func (in *inbox) take(n int) []broker.Delivery {
	in.f.Helper()
	ds := make([]broker.Delivery, n)
	for i := range ds {
		ds[i] = receive(in.f, in.got, fmt.Sprintf("delivery %d of %d", i+1, n))
	}
	return ds
}

// empty checks that nothing is there that was not taken.
func (in *inbox) empty() {
	in.f.Helper()
	select {
	case d := <-in.got:
		in.f.Errorf("unexpected delivery of %q", d.Body)
	default:
	}
}

// stop ends the subscription.
func (in *inbox) stop() {
	in.f.Helper()
	if err := in.consumer.Stop(in.f.ctx); err != nil {
		in.f.Fatalf("stopping a subscription: %v", err)
	}
}

func receive[T any](f *fixture, c <-chan T, what string) T {
	f.Helper()
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case v := <-c:
		return v
	case <-t.C:
		buf := make([]byte, 1<<20)
		f.Fatalf("waited in vain for %s\n%s", what, buf[:runtime.Stack(buf, true)])
		panic("unreachable")
	}
}

// publish publishes and has it succeed.
func (f *fixture) publish(c broker.Conn, msgs ...broker.Message) {
	f.Helper()
	if err := c.Publish(f.ctx, msgs...); err != nil {
		f.Fatalf("publishing: %v", err)
	}
}

func (f *fixture) confirm(c broker.Conn, m broker.Message) {
	f.Helper()
	if err := c.PublishConfirmed(f.ctx, m); err != nil {
		f.Fatalf("publishing, confirmed: %v", err)
	}
}

// to makes a message for a queue.
func to(queue, body string) broker.Message { return broker.Message{Key: queue, Body: []byte(body)} }

func bodies(ds []broker.Delivery) []string {
	s := make([]string, len(ds))
	for i, d := range ds {
		s[i] = string(d.Body)
	}
	return s
}

// states records the changes of a Conn's condition.
type states struct {
	f  *fixture
	ch chan broker.State
}

func (f *fixture) states() *states { return &states{f: f, ch: make(chan broker.State, 1000)} }

func (s *states) on(st broker.State) { s.ch <- st }

// await waits until the condition becomes want.
func (s *states) await(want broker.State) {
	s.f.Helper()
	for receive(s.f, s.ch, fmt.Sprintf("state %d", want)) != want {
	}
}
