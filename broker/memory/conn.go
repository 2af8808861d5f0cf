package memory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/broker/internal/mailbox"
)

// conn implements broker.Conn.
type conn struct {
	b    *Broker
	opts broker.Options

	closed  atomic.Bool
	returns *mailbox.Mailbox[broker.Message]

	mu   sync.Mutex
	subs map[*consumer]struct{}
}

// errFull is the cause when a publish waited for room too long.
var errFull = errors.New("its consumer does not keep up")

// State implements broker.Conn.
func (c *conn) State() broker.State {
	if c.closed.Load() {
		return broker.StateDisconnected
	}
	return broker.StateConnected
}

// Declare implements broker.Conn.
func (c *conn) Declare(_ context.Context, exchanges []broker.Exchange, sharedQueues []string) error {
	if c.closed.Load() {
		return fmt.Errorf("declaring: %w", broker.ErrClosed)
	}
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	for _, x := range exchanges {
		if err := c.b.declareExchange(x); err != nil {
			return err
		}
	}
	for _, q := range sharedQueues {
		if _, err := c.b.declareShared(q); err != nil {
			return err
		}
	}
	return nil
}

// Publish implements broker.Conn.
func (c *conn) Publish(ctx context.Context, msgs ...broker.Message) error {
	for i := range msgs {
		if err := msgs[i].Check(); err != nil {
			return fmt.Errorf("publishing message %d of %d: %w", i+1, len(msgs), err)
		}
	}
	if err := c.usable(ctx); err != nil {
		return err
	}
	for i := range msgs {
		m := &msgs[i]
		routed, known, err := c.deliver(ctx, m)
		switch {
		case err != nil:
			return err
		case !known:
			c.opts.Logger.Error("a message to an exchange that does not exist is lost", "conn", c.opts.Name, "exchange", m.Exchange)
		case !routed && m.Mandatory:
			c.returns.Put(*own(m))
		}
	}
	return nil
}

// PublishConfirmed implements broker.Conn.
func (c *conn) PublishConfirmed(ctx context.Context, m broker.Message) error {
	if err := m.Check(); err != nil {
		return fmt.Errorf("publishing: %w", err)
	}
	if err := c.usable(ctx); err != nil {
		return err
	}
	routed, known, err := c.deliver(ctx, &m)
	switch {
	case err != nil:
		return err
	case !known:
		return fmt.Errorf("%w: there is no exchange %s", broker.ErrUnconfirmed, m.Exchange)
	case !routed && m.Mandatory:
		return fmt.Errorf("%w: exchange %q, key %q", broker.ErrUnroutable, m.Exchange, m.Key)
	}
	return nil
}

func (c *conn) usable(ctx context.Context) error {
	if c.closed.Load() {
		return broker.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
	}
	return nil
}

// own copies what the publisher may reuse.
func own(m *broker.Message) *broker.Message {
	cp := *m
	cp.Body = bytes.Clone(m.Body)
	cp.Headers = maps.Clone(m.Headers)
	for k, v := range cp.Headers {
		if b, ok := v.([]byte); ok {
			cp.Headers[k] = bytes.Clone(b)
		}
	}
	return &cp
}

// deliver puts a message into every queue it is routed to.
func (c *conn) deliver(ctx context.Context, m *broker.Message) (routed, known bool, err error) {
	one, many, known := c.b.route(m)
	if one == nil && len(many) == 0 {
		return false, known, nil
	}
	cp := own(m)
	cp.Mandatory = false // as it arrives; nobody can return it any more
	if one != nil {
		routed, err = push(ctx, one, cp)
		return routed, true, err
	}
	for _, q := range many {
		ok, err := push(ctx, q, cp)
		if err != nil {
			return routed, true, err
		}
		routed = routed || ok
	}
	return routed, true, nil
}

// push avoids a timer while there is room.
func push(ctx context.Context, q *queue, m *broker.Message) (bool, error) {
	if ok, err := q.push(noWait, m); err == nil {
		return ok, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, broker.WriteDeadline, errFull)
	defer cancel()
	return q.push(ctx, m)
}

// noWait is a context that has ended.
var noWait = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// Close implements broker.Conn.
func (c *conn) Close(ctx context.Context) error {
	c.mu.Lock()
	c.closed.Store(true)
	subs := make([]*consumer, 0, len(c.subs))
	for s := range c.subs {
		subs = append(subs, s)
	}
	c.mu.Unlock()
	errs := make([]error, len(subs))
	var wg sync.WaitGroup
	for i, s := range subs {
		wg.Go(func() { errs[i] = s.Stop(ctx) })
	}
	wg.Wait()
	c.returns.Close()
	select {
	case <-c.returns.Done():
	case <-ctx.Done():
		errs = append(errs, fmt.Errorf("closing: %w", ctx.Err()))
	}
	return errors.Join(errs...)
}
