package outbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"golang.org/x/sync/errgroup"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

// finishTimeout bounds what a relay still does when its context has ended, or
// its lease: removing rows that were sent, and giving the lease back.
const finishTimeout = 10 * time.Second

// minBackoff is the first wait after a failure.
const minBackoff = 100 * time.Millisecond

// Relay takes an outbox's rows to the requests queue.
type Relay struct {
	box    *Outbox
	broker broker.Broker
	holder string
	wake   chan struct{} // there may be rows
	online chan struct{} // the broker is connected again

	leads time.Time // our lease lasts until then, by the monotonic clock; zero: none
}

// NewRelay returns a relay; Run makes it work.
func NewRelay(b *Outbox, br broker.Broker) *Relay {
	return &Relay{box: b, broker: br, holder: uuid.NewString(),
		wake: make(chan struct{}, 1), online: make(chan struct{}, 1)}
}

// signal leaves a note in a channel, unless there is one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run relays rows until ctx ends, and returns nil then. It returns an error
// only if it could not start: the broker's Open failed. Outages of the broker
// and of the database after that are waited for. Call it once.
func (r *Relay) Run(ctx context.Context) error {
	conn, err := r.broker.Open(ctx, broker.Options{
		Name:   "outbox " + r.holder,
		Logger: r.box.opts.Logger,
		OnState: func(s broker.State) {
			if s == broker.StateConnected {
				signal(r.online)
			}
		},
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("outbox: connecting to the broker: %w", err)
	}
	defer r.close(ctx, conn)
	r.join(true)
	defer r.join(false)
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = minBackoff, r.box.opts.MaxBackoff
	declared := false
	for ctx.Err() == nil {
		more, err := r.turn(ctx, conn, &declared)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			// Another relay may have better luck.
			r.release(ctx)
			r.box.metrics.failures.Inc()
			pause := wait.NextBackOff()
			r.box.opts.Logger.Warn("outbox relay failed and waits", "error", err, "wait", pause)
			sleep(ctx, pause, r.online)
		default:
			wait.Reset()
			if !more {
				sleep(ctx, r.box.opts.Poll, r.wake)
			}
		}
	}
	return nil
}

func (r *Relay) close(ctx context.Context, conn broker.Conn) {
	r.release(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	if err := conn.Close(ctx); err != nil {
		r.box.opts.Logger.Warn("closing the outbox relay's connection failed", "error", err)
	}
}

// join makes Notify reach the relay, or no more.
func (r *Relay) join(in bool) {
	r.box.mu.Lock()
	defer r.box.mu.Unlock()
	if in {
		r.box.relays[r] = struct{}{}
	} else {
		delete(r.box.relays, r)
	}
}

// sleep waits until it is woken, d has passed or ctx ends.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-wake:
	case <-t.C:
	case <-ctx.Done():
	}
}

// turn sends one batch if the relay leads; more if there may be another.
func (r *Relay) turn(ctx context.Context, conn broker.Conn, declared *bool) (more bool, err error) {
	if !*declared {
		queue := protocol.RequestsQueue(r.box.opts.Namespace)
		if err := conn.Declare(ctx, nil, []string{queue}); err != nil {
			return false, fmt.Errorf("declaring %s: %w", queue, err)
		}
		*declared = true
	}
	if ok, err := r.lead(ctx); err != nil || !ok {
		return false, err
	}
	var rows []Row
	if err := r.box.db.SelectContext(r.dbContext(ctx), &rows, r.box.sql.next, r.box.opts.Batch); err != nil {
		return false, fmt.Errorf("reading rows: %w", err)
	}
	if len(rows) == 0 {
		return false, nil
	}
	// Whoever leads next must not find us still sending.
	sending, cancel := context.WithDeadline(ctx, r.leads)
	defer cancel()
	sent, failed := r.send(sending, conn, rows)
	if err := r.remove(ctx, sent); err != nil {
		return false, errors.Join(err, failed)
	}
	return len(rows) == r.box.opts.Batch, failed
}

// lead takes or renews the lease; false if another relay has it.
func (r *Relay) lead(ctx context.Context) (bool, error) {
	now := time.Now()
	lease := r.box.opts.Lease
	if r.leads.Sub(now) > lease/2 {
		return true, nil
	}
	ctx = r.dbContext(ctx)
	if _, err := r.box.db.ExecContext(ctx, r.box.sql.lease, r.holder, lease.Milliseconds()); err != nil {
		return false, fmt.Errorf("taking the lease: %w", err)
	}
	var n int
	if err := r.box.db.GetContext(ctx, &n, r.box.sql.leads, r.holder); err != nil {
		return false, fmt.Errorf("reading the lease: %w", err)
	}
	if n == 0 {
		r.stands(false)
		r.leads = time.Time{}
		return false, nil
	}
	if r.leads.IsZero() {
		r.stands(true)
		r.box.opts.Logger.Info("outbox relay leads", "table", r.box.opts.Table)
	}
	// Counted from before the question, and with something to spare, our time
	// is over before the database's is.
	r.leads = now.Add(lease - lease/10)
	return true, nil
}

// stands shows whether the relay leads, before r.leads says so.
func (r *Relay) stands(leads bool) {
	switch was := !r.leads.IsZero(); {
	case leads && !was:
		r.box.metrics.leads.Inc()
	case was && !leads:
		r.box.metrics.leads.Dec()
	}
}

// release gives the lease back, so that another need not wait for its end.
func (r *Relay) release(ctx context.Context) {
	if r.leads.IsZero() {
		return
	}
	r.stands(false)
	r.leads = time.Time{}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	if _, err := r.box.db.ExecContext(r.dbContext(ctx), r.box.sql.release, r.holder); err != nil {
		r.box.opts.Logger.Warn("giving back the outbox's lease failed", "error", err)
	}
}

// send publishes rows, keys side by side and the rows of a key one after the
// other, and returns the ids of those that the broker has. After a failure no
// later row of the same key is sent.
func (r *Relay) send(ctx context.Context, conn broker.Conn, rows []Row) ([]int64, error) {
	var keys []string
	byKey := map[string][]*Row{}
	for i := range rows {
		k := rows[i].Key
		if byKey[k] == nil {
			keys = append(keys, k)
		}
		byKey[k] = append(byKey[k], &rows[i])
	}
	var mu sync.Mutex
	var sent []int64
	// After a failure the others in flight still end: they may be confirmed.
	var group errgroup.Group
	group.SetLimit(r.box.opts.InFlight)
	failed := make(chan struct{})
	var once sync.Once
	for _, k := range keys {
		group.Go(func() error {
			for _, row := range byKey[k] {
				select {
				case <-failed:
					return nil
				default:
				}
				ok, err := r.sendOne(ctx, conn, row)
				if err != nil {
					once.Do(func() { close(failed) })
					return err
				}
				if ok {
					mu.Lock()
					sent = append(sent, row.ID)
					mu.Unlock()
				}
			}
			return nil
		})
	}
	err := group.Wait()
	return sent, err
}

// sendOne publishes a row; false if it was set aside instead.
func (r *Relay) sendOne(ctx context.Context, conn broker.Conn, row *Row) (bool, error) {
	m, err := r.box.message(row)
	if err != nil {
		r.box.opts.Logger.Error("outbox row is set aside", "row", row.ID, "key", row.Key, "kind", row.Kind, "error", err)
		if _, err := r.box.db.ExecContext(r.dbContext(ctx), r.box.sql.setAside, err.Error(), row.ID); err != nil {
			return false, fmt.Errorf("setting row %d aside: %w", row.ID, err)
		}
		r.box.metrics.setAside.Inc()
		return false, nil
	}
	if err := conn.PublishConfirmed(ctx, m); err != nil {
		return false, fmt.Errorf("publishing row %d: %w", row.ID, err)
	}
	r.box.metrics.delivered.WithLabelValues(row.Kind).Inc()
	return true, nil
}

// remove deletes rows that were sent. If it fails they are sent again.
func (r *Relay) remove(ctx context.Context, ids []int64) error {
	if len(ids) == 0 {
		return nil
	}
	query, args, err := sqlx.In(r.box.sql.remove, ids)
	if err != nil {
		return fmt.Errorf("removing rows: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	if _, err := r.box.db.ExecContext(r.dbContext(ctx), r.box.dialect.rebind(query), args...); err != nil {
		return fmt.Errorf("removing rows: %w", err)
	}
	return nil
}

func (r *Relay) dbContext(ctx context.Context) context.Context { return r.box.dbContext(ctx) }

// dbContext is the context of a statement. SQLite's driver interrupts a
// statement whose context ends by a goroutine that may hit the next one; its
// waits are bounded by the busy timeout.
func (b *Outbox) dbContext(ctx context.Context) context.Context {
	if b.dialect == SQLite {
		return context.WithoutCancel(ctx)
	}
	return ctx
}
