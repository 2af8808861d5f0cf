package rabbit

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/broker/internal/mailbox"
)

// conn implements broker.Conn.
type conn struct {
	cfg     Config
	opts    broker.Options
	metrics *metrics

	ctx    context.Context // ends when the Conn is to end
	cancel context.CancelFunc
	done   chan struct{} // closed when the supervisor has ended

	first    chan struct{} // closed after the first connection, or its failure
	firstErr error

	// live is the session that takes publishes; nil while there is none.
	live atomic.Pointer[session]

	mu       sync.Mutex
	closing  bool
	current  *session      // the session that subscriptions attach to
	changed  chan struct{} // closed and replaced when current changes
	subs     map[*subscription]struct{}
	topology topology
	dialErr  error

	stateMu sync.Mutex // serializes OnState
	state   atomic.Int32

	returns *mailbox.Mailbox[broker.Message]
	seq     atomic.Int64 // of mandatory confirmed publishes
}

func newConn(cfg Config, o broker.Options, m *metrics) *conn {
	c := &conn{
		cfg: cfg, opts: o, metrics: m,
		done: make(chan struct{}), first: make(chan struct{}), changed: make(chan struct{}),
		subs:     map[*subscription]struct{}{},
		topology: topology{exchanges: map[string]broker.ExchangeKind{}, queues: map[string]struct{}{}},
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.setState(broker.StateDisconnected)
	c.returns = mailbox.New(func(m broker.Message) {
		if o.OnReturn != nil {
			o.OnReturn(m)
		}
	})
	return c
}

func (c *conn) setState(s broker.State) {
	c.state.Store(int32(s))
	c.metrics.state.Set(float64(s))
}

// State implements broker.Conn.
func (c *conn) State() broker.State { return broker.State(c.state.Load()) }

// refresh brings the state in line with the live session.
func (c *conn) refresh() {
	c.stateMu.Lock()
	defer c.stateMu.Unlock()
	next := broker.StateDisconnected
	if s := c.live.Load(); s != nil {
		next = broker.StateConnected
		if s.blocked.Load() {
			next = broker.StateBlocked
		}
	}
	if next == c.State() {
		return
	}
	c.setState(next)
	if c.opts.OnState != nil {
		c.opts.OnState(next)
	}
}

// supervise keeps one session after the other until the Conn is closed.
func (c *conn) supervise() {
	defer close(c.done)
	defer c.returns.Close()
	pause := &backoff.ExponentialBackOff{
		InitialInterval: c.cfg.MinBackoff, MaxInterval: c.cfg.MaxBackoff,
		Multiplier: 2, RandomizationFactor: 0.5,
	}
	pause.Reset()
	next := 0 // index of the URL to try first
	refusals := 0
	for sessions := 0; c.ctx.Err() == nil; {
		s, i, err := c.dialAny(next)
		if err != nil {
			if permanent(err) {
				refusals++
			} else {
				refusals = 0
			}
			if sessions == 0 && refusals == maxRefusals {
				c.firstErr = fmt.Errorf("connecting: %w", err)
				close(c.first)
				return
			}
			c.mu.Lock()
			c.dialErr = err
			c.mu.Unlock()
			wait := pause.NextBackOff()
			if c.ctx.Err() == nil {
				c.opts.Logger.Warn("cannot connect to the broker", "conn", c.opts.Name, "error", err, "retry_in", wait)
			}
			c.sleep(wait)
			continue
		}
		next = i + 1
		s.number = uint64(sessions) + 1
		began := time.Now()
		if sessions++; sessions > 1 {
			c.metrics.reconnects.Inc()
		}
		c.run(s, sessions == 1)
		// A session that did not last is no reason to hurry.
		if time.Since(began) > c.cfg.MaxBackoff {
			pause.Reset()
		}
		c.sleep(pause.NextBackOff())
	}
}

func (c *conn) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.ctx.Done():
	}
}

// maxRefusals is how often in a row the first connection must be refused to
// be given up. Once is not enough: a node that goes away in the middle of the
// handshake looks like one that refuses the credentials.
const maxRefusals = 2

// permanent reports an answer that another attempt is not likely to change.
func permanent(err error) bool {
	var ce *tls.CertificateVerificationError
	if errors.As(err, &ce) {
		return true
	}
	var ae *amqp.Error
	return errors.As(err, &ae) && (ae.Code == amqp.AccessRefused || ae.Code == amqp.NotAllowed)
}

// dialAny tries every node once and returns the first that answers.
func (c *conn) dialAny(from int) (*session, int, error) {
	var errs, transient []error
	for n := range c.cfg.URLs {
		i := (from + n) % len(c.cfg.URLs)
		s, err := c.dial(c.cfg.URLs[i])
		if err == nil {
			return s, i, nil
		}
		errs = append(errs, err)
		if !permanent(err) {
			transient = append(transient, err)
		}
		if c.ctx.Err() != nil {
			break
		}
	}
	if len(transient) > 0 { // there is hope: do not look permanent
		return nil, 0, fmt.Errorf("%w: %w", broker.ErrUnavailable, errors.Join(transient...))
	}
	return nil, 0, errors.Join(errs...)
}

func (c *conn) lastDialError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dialErr
}

// run brings a session into service and returns when it is over.
func (c *conn) run(s *session, first bool) {
	log := c.opts.Logger.With("conn", c.opts.Name, "node", s.node)
	c.mu.Lock()
	exchanges, queues := c.topology.list()
	c.mu.Unlock()
	if err := s.declare(c.ctx, exchanges, queues); err != nil {
		// Publishes to what could not be declared will tell; the rest works.
		log.Error("cannot declare again what was declared", "error", err)
	}
	c.mu.Lock()
	c.current = s
	close(c.changed)
	c.changed = make(chan struct{})
	subs := make([]*subscription, 0, len(c.subs))
	for sub := range c.subs {
		subs = append(subs, sub)
	}
	c.mu.Unlock()
	c.attachAll(s, subs)
	c.live.Store(s)
	if first {
		log.Info("connected to the broker")
	} else {
		log.Info("connected to the broker again", "subscriptions", len(subs))
	}
	c.refresh()
	if first {
		close(c.first)
	}

	select {
	case <-s.over:
		log.Warn("lost the connection to the broker", "error", s.reason())
	case <-c.ctx.Done():
	}
	c.live.Store(nil)
	c.mu.Lock()
	c.current = nil
	closing := c.closing
	c.mu.Unlock()
	if !closing {
		c.refresh()
	} else {
		c.setState(broker.StateDisconnected)
	}
	s.close()
}

// attachAll subscribes everything side by side and waits until each
// subscription has its new queue, or its Handler keeps it from taking note.
func (c *conn) attachAll(s *session, subs []*subscription) {
	var wg sync.WaitGroup
	for _, sub := range subs {
		wg.Go(func() {
			st := sub.attach(s)
			sub.offer(st)
			if st.err != nil {
				return // run tries again
			}
			t := time.NewTimer(announceTime)
			defer t.Stop()
			select {
			case <-st.announced:
			case <-sub.stopped:
			case <-s.over:
			case <-t.C:
			}
		})
	}
	wg.Wait()
}

// session returns the session to declare on, and waits for one.
func (c *conn) session(ctx context.Context) (*session, error) {
	for {
		c.mu.Lock()
		s, changed, closing := c.current, c.changed, c.closing
		c.mu.Unlock()
		if closing {
			return nil, broker.ErrClosed
		}
		if s != nil {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", broker.ErrUnavailable, ctx.Err())
		case <-c.ctx.Done():
			return nil, broker.ErrClosed
		}
	}
}

// Close implements broker.Conn. A second call waits for the first.
func (c *conn) Close(ctx context.Context) error {
	c.mu.Lock()
	c.closing = true
	subs := make([]*subscription, 0, len(c.subs))
	for sub := range c.subs {
		subs = append(subs, sub)
	}
	s := c.current
	c.mu.Unlock()

	errs := make([]error, len(subs))
	var wg sync.WaitGroup
	for i, sub := range subs {
		wg.Go(func() { errs[i] = sub.Stop(ctx) })
	}
	wg.Wait()
	c.cancel()
	for _, done := range []<-chan struct{}{c.done, c.returns.Done()} {
		select {
		case <-done:
		case <-ctx.Done():
			if s != nil {
				s.abort()
			}
			return errors.Join(append(errs, fmt.Errorf("closing the broker connection: %w", ctx.Err()))...)
		}
	}
	return errors.Join(errs...)
}
