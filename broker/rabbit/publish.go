package rabbit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ringmaster-dev/ringmaster/broker"
)

// outlet is a place to publish: a channel, and the next one when the server
// closes it.
type outlet struct {
	conn    *conn
	session *session
	confirm bool

	mu     sync.Mutex // opening
	closed bool
	spout  atomic.Pointer[spout]
}

// spout is one channel of an outlet.
type spout struct {
	ch     *amqp.Channel
	opened time.Time
	gone   chan struct{} // closed when the channel and its returns are done with
	err    error         // why the server closed it; set before gone is closed

	// Of a confirmed outlet: see settleReturns.
	barrier chan chan struct{}
	mu      sync.Mutex
	waiting map[int64]*bool // mandatory publishes: has it come back?
}

// current returns an open channel. When the server closed the last one, a new
// one is opened; the caller waits for it.
func (o *outlet) current() (*spout, error) {
	if p := o.spout.Load(); p != nil && !p.ch.IsClosed() {
		return p, nil
	}
	return o.open()
}

func (o *outlet) open() (*spout, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if p := o.spout.Load(); p != nil && !p.ch.IsClosed() {
		return p, nil
	}
	if o.closed || o.session.publish.IsClosed() {
		return nil, amqp.ErrClosed
	}
	ch, err := o.session.publish.Channel()
	if err != nil {
		return nil, err
	}
	p := &spout{ch: ch, opened: time.Now(), gone: make(chan struct{}), barrier: make(chan chan struct{}), waiting: map[int64]*bool{}}
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	if o.confirm {
		if err := ch.Confirm(false); err != nil {
			return nil, err
		}
		go p.settleReturns(ch.NotifyReturn(make(chan amqp.Return)), closed, o)
	} else {
		go p.drainReturns(ch.NotifyReturn(make(chan amqp.Return, 256)), closed, o)
	}
	o.spout.Store(p)
	return p, nil
}

// refusing is how old a channel is at least when a refusal is put down to it.
const refusing = 250 * time.Millisecond

// giveUp has publishes use another channel. A channel of RabbitMQ keeps in mind
// who leads a quorum queue. When that node dies it may go wrong, and then the
// channel refuses everything that is published there, or holds it and confirms
// nothing, until it ends. It ends here after a while: at once, where nothing on
// it will be answered, and whoever waits learns that it is unconfirmed. A broker
// that does not read would not hear of it.
func (o *outlet) giveUp(p *spout, after time.Duration, why string) {
	if o.session.blocked.Load() || !o.spout.CompareAndSwap(p, nil) {
		return
	}
	o.conn.opts.Logger.Warn("a channel for publishing is replaced", "conn", o.conn.opts.Name, "reason", why)
	time.AfterFunc(after, func() { _ = p.ch.Close() })
}

// close waits until the broker has processed what was published.
func (o *outlet) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	if p := o.spout.Load(); p != nil {
		_ = p.ch.Close()
	}
}

// ended notes why a channel is gone. closed is closed by the library after it
// got the reason, if there is one.
func (p *spout) ended(closed <-chan *amqp.Error, o *outlet) {
	if e, ok := <-closed; ok {
		p.err = e
		if !o.session.publish.IsClosed() {
			o.conn.opts.Logger.Error("the broker closed the channel for publishing; messages in flight on it are lost",
				"conn", o.conn.opts.Name, "error", e)
		}
	}
	close(p.gone)
}

// drainReturns moves returned messages out of the reader's way.
func (p *spout) drainReturns(returns <-chan amqp.Return, closed <-chan *amqp.Error, o *outlet) {
	for r := range returns {
		o.conn.metrics.returned.Inc()
		o.conn.returns.Put(fromReturn(&r))
	}
	p.ended(closed, o)
}

// settleReturns notes which mandatory publishes came back. The server sends a
// return before the confirmation of the same message, and returns is
// unbuffered, so that the library hands over no confirmation before this
// goroutine has the return in hand. Whoever got a confirmation then passes the
// barrier: when it is through, the return has been noted.
func (p *spout) settleReturns(returns <-chan amqp.Return, closed <-chan *amqp.Error, o *outlet) {
	for {
		select {
		case r, ok := <-returns:
			if !ok {
				p.ended(closed, o)
				return
			}
			o.conn.metrics.returned.Inc()
			if seq, ok := r.Headers[returnHeader].(int64); ok {
				p.mu.Lock()
				if back := p.waiting[seq]; back != nil {
					*back = true
				}
				p.mu.Unlock()
			}
		case passed := <-p.barrier:
			close(passed)
		}
	}
}

// cameBack reports, once the confirmation is there, whether the message was
// returned.
func (p *spout) cameBack(back *bool) bool {
	passed := make(chan struct{})
	select {
	case p.barrier <- passed:
		<-passed
	case <-p.gone: // all returns were noted
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return *back
}

// usable returns the session to publish on.
func (c *conn) usable() (*session, error) {
	s := c.live.Load()
	if s == nil {
		if c.isClosing() {
			return nil, broker.ErrClosed
		}
		return nil, broker.ErrUnavailable
	}
	if s.blocked.Load() {
		return nil, fmt.Errorf("%w: the broker does not take messages now", broker.ErrUnavailable)
	}
	return s, nil
}

func (c *conn) isClosing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing
}

// failed turns an error of the library into one of the port.
func (c *conn) failed(err error) error {
	if c.isClosing() {
		return broker.ErrClosed
	}
	return fmt.Errorf("%w: publishing: %w", broker.ErrUnavailable, err)
}

// Publish implements broker.Conn.
func (c *conn) Publish(ctx context.Context, msgs ...broker.Message) error {
	for i := range msgs {
		if err := msgs[i].Check(); err != nil {
			return fmt.Errorf("publishing message %d of %d: %w", i+1, len(msgs), err)
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
	}
	s, err := c.usable()
	if err != nil {
		return err
	}
	for i := range msgs {
		m := &msgs[i]
		if s.blocked.Load() {
			return fmt.Errorf("%w: the broker does not take messages now", broker.ErrUnavailable)
		}
		if _, err := s.plain.send(m, publishing(m)); err != nil {
			return c.failed(err)
		}
		c.metrics.published.Inc()
	}
	return nil
}

// send publishes on the current channel. A channel that turns out to be closed
// took nothing, so that the message goes to the next one.
func (o *outlet) send(m *broker.Message, p amqp.Publishing) (*amqp.DeferredConfirmation, error) {
	for {
		sp, err := o.current()
		if err != nil {
			return nil, err
		}
		dc, err := sp.ch.PublishWithDeferredConfirm(m.Exchange, m.Key, m.Mandatory, false, p)
		if err == nil || !errors.Is(err, amqp.ErrClosed) || o.session.publish.IsClosed() {
			return dc, err
		}
	}
}

// PublishConfirmed implements broker.Conn.
func (c *conn) PublishConfirmed(ctx context.Context, m broker.Message) error {
	if err := m.Check(); err != nil {
		return fmt.Errorf("publishing: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
	}
	s, err := c.usable()
	if err != nil {
		return err
	}
	for {
		sp, err := s.confirmed.current()
		if err != nil {
			return c.failed(err)
		}
		err = c.confirmOn(ctx, s, sp, &m)
		if errors.Is(err, amqp.ErrClosed) {
			if !s.publish.IsClosed() {
				continue // the channel took nothing: use the next one
			}
			return c.failed(err)
		}
		return err
	}
}

// confirmOn publishes on one channel and waits. amqp.ErrClosed says that
// nothing was sent.
func (c *conn) confirmOn(ctx context.Context, s *session, sp *spout, m *broker.Message) error {
	p := publishing(m)
	var back *bool
	if m.Mandatory {
		seq := c.seq.Add(1)
		p.Headers = withHeader(m.Headers, returnHeader, seq)
		back = new(bool)
		sp.mu.Lock()
		sp.waiting[seq] = back
		sp.mu.Unlock()
		defer func() {
			sp.mu.Lock()
			delete(sp.waiting, seq)
			sp.mu.Unlock()
		}()
	}
	dc, err := sp.ch.PublishWithDeferredConfirm(m.Exchange, m.Key, m.Mandatory, false, p)
	if err != nil {
		if errors.Is(err, amqp.ErrClosed) {
			return amqp.ErrClosed
		}
		return c.failed(err)
	}
	c.metrics.published.Inc()
	c.metrics.unconfirmed.Inc()
	defer c.metrics.unconfirmed.Dec()
	late := time.NewTimer(c.cfg.ConfirmTimeout)
	defer late.Stop()
	select {
	case <-dc.Done():
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", broker.ErrUnconfirmed, ctx.Err())
	case <-late.C:
		s.confirmed.giveUp(sp, 0, "it does not confirm")
		return fmt.Errorf("%w: no answer for %v", broker.ErrUnconfirmed, c.cfg.ConfirmTimeout)
	}
	switch {
	case back != nil && sp.cameBack(back):
		return fmt.Errorf("%w: exchange %q, key %q", broker.ErrUnroutable, m.Exchange, m.Key)
	case dc.Acked():
		return nil
	case sp.ch.IsClosed():
		// The library settles what is outstanding as refused when the channel
		// ends; whether the broker has it is not known.
		<-sp.gone
		if sp.err != nil {
			return fmt.Errorf("%w: %w", broker.ErrUnconfirmed, sp.err)
		}
		return broker.ErrUnconfirmed
	default:
		if time.Since(sp.opened) > refusing {
			s.confirmed.giveUp(sp, c.cfg.ConfirmTimeout, "it refuses")
		}
		return broker.ErrRejected
	}
}
