package outbox_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/worker/outbox"
)

// fickle is a broker whose confirmed publishes go through a hook.
type fickle struct {
	broker.Broker
	publish func(ctx context.Context, c broker.Conn, m broker.Message) error
}

func (f fickle) Open(ctx context.Context, o broker.Options) (broker.Conn, error) {
	c, err := f.Broker.Open(ctx, o)
	return fickleConn{c, f.publish}, err
}

type fickleConn struct {
	broker.Conn
	publish func(ctx context.Context, c broker.Conn, m broker.Message) error
}

func (c fickleConn) PublishConfirmed(ctx context.Context, m broker.Message) error {
	return c.publish(ctx, c.Conn, m)
}

// luck fails a third of the publishes, half of these after they arrived.
func luck(ctx context.Context, c broker.Conn, m broker.Message) error {
	switch rand.N(6) {
	case 0:
		return broker.ErrUnavailable
	case 1:
		if err := c.PublishConfirmed(ctx, m); err != nil {
			return err
		}
		return broker.ErrUnconfirmed
	}
	return c.PublishConfirmed(ctx, m)
}

// Requests of one run arrive in the order in which they were written, whatever
// fails on the way: the first arrivals of all are in order, and none is missing.
func TestTheOrderWithinAKeyIsKeptThroughFailures(t *testing.T) {
	const keys, each = 12, 6
	o := outbox.Options{Batch: 10, MaxBackoff: time.Millisecond, Poll: 20 * time.Millisecond, Lease: time.Second}
	onEach(t, o, func(t *testing.T, b bench) {
		br := inProcess(t)
		got := collect(t, br)
		unlucky := fickle{br, luck}
		stop := b.relay(t, unlucky)
		b.relay(t, unlucky)
		var wg sync.WaitGroup
		for k := range keys {
			wg.Go(func() {
				for i := range each {
					id := fmt.Sprint("run-", k)
					write := func() error { return b.cancel(t.Context(), id, fmt.Sprint(i)) }
					if i == 0 {
						write = func() error { return b.order(t.Context(), id) }
					}
					if err := write(); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		stop() // the other goes on
		b.drained(t)
		for k := range keys {
			id := fmt.Sprint("run-", k)
			want := []string{"run.start"}
			for i := 1; i < each; i++ {
				want = append(want, fmt.Sprint("run.cancel ", i))
			}
			first := func() (first []string) {
				for _, kind := range got.of(id) {
					if !slices.Contains(first, kind) {
						first = append(first, kind)
					}
				}
				return first
			}
			eventually(t, id+" arrives", func() bool { return len(first()) == len(want) })
			if f := first(); !slices.Equal(f, want) {
				t.Errorf("%s: %q", id, f)
			}
		}
	})
}

// Of several relays one sends at a time; when it stops, another does.
func TestOneRelayLeads(t *testing.T) {
	o := outbox.Options{Poll: 10 * time.Millisecond, Lease: 20 * time.Second}
	onEach(t, o, func(t *testing.T, b bench) {
		br := inProcess(t)
		var senders [3]atomic.Int64
		var stops []func()
		for i := range senders {
			stops = append(stops, b.relay(t, fickle{br, func(ctx context.Context, c broker.Conn, m broker.Message) error {
				senders[i].Add(1)
				return c.PublishConfirmed(ctx, m)
			}}))
		}
		sent := 0
		for round := range len(senders) {
			var before [len(senders)]int64
			for i := range senders {
				before[i] = senders[i].Load()
			}
			for i := range 20 {
				if err := b.order(t.Context(), fmt.Sprintf("run-%d-%d", round, i)); err != nil {
					t.Fatal(err)
				}
				sent++
			}
			b.drained(t)
			leader, active := -1, 0
			for i := range senders {
				if senders[i].Load() > before[i] {
					leader, active = i, active+1
				}
			}
			if active != 1 {
				t.Fatalf("round %d: %d relays sent", round, active)
			}
			stops[leader]()
		}
		total := int64(0)
		for i := range senders {
			total += senders[i].Load()
		}
		if total != int64(sent) {
			t.Fatalf("%d messages for %d rows", total, sent)
		}
	})
}

// A relay whose lease another holds sends nothing, until the lease has run out
// by the database's clock.
func TestALeaseEndsByTheDatabasesClock(t *testing.T) {
	onEach(t, outbox.Options{Poll: time.Millisecond}, func(t *testing.T, b bench) {
		br := inProcess(t)
		got := collect(t, br)
		b.db.MustExec(fmt.Sprintf(`INSERT INTO ringmaster_outbox_lease VALUES ('relay', 'another', %d)`, time.Now().Add(time.Hour).UnixMilli()))
		b.relay(t, br)
		if err := b.order(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		if got.count() != 0 {
			t.Fatal("sent under another's lease")
		}
		b.db.MustExec(fmt.Sprintf(`UPDATE ringmaster_outbox_lease SET expires = %d`, time.Now().Add(-time.Second).UnixMilli()))
		eventually(t, "it is sent", func() bool { return got.count() == 1 })
	})
}

// While the broker refuses, rows stay; each failure lets go of the lease, and
// the rows leave once it is back.
func TestRowsWaitForTheBroker(t *testing.T) {
	onEach(t, outbox.Options{MaxBackoff: 5 * time.Millisecond, Poll: time.Hour}, func(t *testing.T, b bench) {
		br := inProcess(t)
		got := collect(t, br)
		var away atomic.Bool
		var tries atomic.Int64
		away.Store(true)
		b.relay(t, fickle{br, func(ctx context.Context, c broker.Conn, m broker.Message) error {
			tries.Add(1)
			if away.Load() {
				return broker.ErrUnavailable
			}
			return c.PublishConfirmed(ctx, m)
		}})
		if err := b.order(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it was tried some times", func() bool { return tries.Load() > 3 })
		if n, _, err := b.box.Pending(t.Context()); n != 1 || err != nil {
			t.Fatalf("%d rows, %v", n, err)
		}
		away.Store(false)
		b.drained(t)
		eventually(t, "it arrives", func() bool { return got.count() == 1 })
	})
}
