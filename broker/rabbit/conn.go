package rabbit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

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

	nodes addresses      // the supervisor's
	late  sync.WaitGroup // what ends with the sessions: see dismiss and attachAll

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
		cfg: cfg, opts: o, metrics: m, nodes: newAddresses(cfg),
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
	defer c.late.Wait()
	var s *session
	var at *address
	for sessions := uint64(0); c.ctx.Err() == nil; {
		if s == nil {
			if s, at = c.connectAny(); s == nil {
				if c.firstErr != nil {
					return
				}
				continue
			}
		}
		if sessions++; sessions > 1 {
			c.metrics.reconnects.Inc()
		}
		s.number = sessions
		began := time.Now()
		next := c.run(s, at)
		at.ended(time.Now(), time.Since(began))
		if s = next; next != nil {
			at = c.nodes[0]
		}
	}
	if s != nil {
		s.close()
	}
}

// connectAny asks the nodes whose turn it is; when it is nobody's, it waits.
func (c *conn) connectAny() (*session, *address) {
	ready, wait := c.nodes.due(time.Now())
	if len(ready) == 0 {
		c.sleep(wait)
		return nil, nil
	}
	s, at := c.race(ready)
	if s != nil || c.ctx.Err() != nil {
		return s, at
	}
	err := c.nodes.reason()
	c.mu.Lock()
	c.dialErr = err
	c.mu.Unlock()
	if !c.wasOpened() && c.nodes.refused() {
		c.firstErr = fmt.Errorf("connecting: %w", err)
		close(c.first)
		return nil, nil
	}
	_, wait = c.nodes.due(time.Now())
	c.opts.Logger.Warn("cannot connect to the broker", "conn", c.opts.Name, "error", err, "retry_in", wait)
	return nil, nil
}

func (c *conn) wasOpened() bool {
	select {
	case <-c.first:
		return true
	default:
		return false
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

func (c *conn) lastDialError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dialErr
}

// setupTime bounds how long a node may take to declare what a Conn needs
// before another is asked. It is long, because many may come at once, and
// because all nodes of a cluster may have to wait until one counts as lost.
const setupTime = 30 * time.Second

// errSetup is why a session ended that never came into service.
var errSetup = errors.New("the node did not declare in time what is needed")

// run brings a session into service and returns when it is over, or has been
// ended for another one, at home, which it then returns.
func (c *conn) run(s *session, at *address) (next *session) {
	log := c.opts.Logger.With("conn", c.opts.Name, "node", s.node)
	defer c.retire(s)
	subs, err := c.setUp(s, log)
	if err != nil {
		log.Warn("gave up a session with the broker", "error", err)
		s.abort()
		return nil
	}
	c.live.Store(s)
	if c.wasOpened() {
		log.Info("connected to the broker again", "subscriptions", subs)
	} else {
		log.Info("connected to the broker")
	}
	c.refresh()
	if !c.wasOpened() {
		close(c.first)
	}
	home := c.comeHome(at)
	defer home.stop()
	for {
		select {
		case <-s.over:
			log.Warn("lost the connection to the broker", "error", s.reason())
			return nil
		case <-c.ctx.Done():
			return nil
		case <-home.timer.C:
			home.ask()
		case r := <-home.answers:
			if next = home.answered(r); next != nil {
				log.Info("goes back to the node it was connected to at first", "home", next.node)
				return next
			}
		}
	}
}

// setUp declares again what was declared and attaches the subscriptions.
func (c *conn) setUp(s *session, log *slog.Logger) (subscriptions int, err error) {
	ctx, cancel := context.WithTimeoutCause(c.ctx, setupTime, errSetup)
	defer cancel()
	c.mu.Lock()
	exchanges, queues := c.topology.list()
	c.mu.Unlock()
	if err := s.declare(ctx, exchanges, queues); err != nil {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
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
	attached := make(chan struct{})
	go func() {
		defer close(attached)
		c.attachAll(s, subs)
	}()
	select {
	case <-attached:
		if s.isOver() {
			return 0, broker.ErrUnavailable
		}
		return len(subs), nil
	case <-ctx.Done():
		s.abort()
		<-attached
		return 0, context.Cause(ctx)
	}
}

// retire takes a session out of service.
func (c *conn) retire(s *session) {
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
// Shared queues, whose names do not change, hold nobody up for long: a quorum
// queue whose leader was lost takes a while to find another.
func (c *conn) attachAll(s *session, subs []*subscription) {
	var own sync.WaitGroup
	var shared sync.WaitGroup
	for _, sub := range subs {
		wg := &own
		if sub.Kind == broker.Shared {
			wg = &shared
		}
		wg.Add(1)
		c.late.Go(func() {
			defer wg.Done()
			sub.reattach(s)
		})
	}
	own.Wait()
	there := make(chan struct{})
	c.late.Go(func() {
		shared.Wait()
		close(there)
	})
	t := time.NewTimer(announceTime)
	defer t.Stop()
	select {
	case <-there:
	case <-t.C:
	}
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
