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

const (
	defaultPrefetch = 1000
	maxPrefetch     = 65535
	// announceTime bounds the wait for OnDeclared, which a Handler that blocks
	// may hold up.
	announceTime = 2 * time.Second
)

// subscription implements broker.Consumer.
type subscription struct {
	broker.Subscription
	conn *conn

	mu    sync.Mutex
	next  *stream // to be consumed next
	ended bool    // run takes no more

	serving atomic.Pointer[stream] // what is being consumed; tests look at it

	binding  chan struct{} // holds one value while the fields below are in use
	routes   routes
	attached *stream // whose queue is there, if any; the latest

	offered chan struct{} // next was set (capacity 1)
	stopped chan struct{}
	once    sync.Once
	done    chan struct{} // closed when run has ended

	first    chan struct{} // closed when the first stream was there, or failed
	firstErr error
}

// stream is a subscription's consumer in one session, or the failure to get
// one (err).
type stream struct {
	session    *session
	ch         *amqp.Channel
	queue      string
	deliveries <-chan amqp.Delivery
	acks       *acker
	announced  chan struct{} // closed after OnDeclared
	err        error
}

// Subscribe implements broker.Conn.
func (c *conn) Subscribe(ctx context.Context, s broker.Subscription) (broker.Consumer, error) {
	if err := checkSubscription(&s); err != nil {
		return nil, err
	}
	sub := &subscription{
		Subscription: s, conn: c,
		offered: make(chan struct{}, 1), stopped: make(chan struct{}),
		done: make(chan struct{}), first: make(chan struct{}),
		binding: make(chan struct{}, 1), routes: routesOf(s.Bindings),
	}
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		return nil, broker.ErrClosed
	}
	c.subs[sub] = struct{}{}
	current := c.current
	c.mu.Unlock()
	go sub.run()

	// Without a session, the supervisor attaches it when there is one.
	if current != nil {
		go func() { sub.offer(sub.attach(current)) }()
	}
	var err error
	select {
	case <-sub.first:
		if err = sub.firstErr; err == nil {
			return sub, nil
		}
	case <-ctx.Done():
		err = fmt.Errorf("%w: %w", broker.ErrUnavailable, ctx.Err())
	case <-c.ctx.Done():
		err = broker.ErrClosed
	}
	sub.end()
	<-sub.done
	return nil, fmt.Errorf("subscribing to %s: %w", s.Queue, err)
}

func checkSubscription(s *broker.Subscription) error {
	if s.Handler == nil {
		return fmt.Errorf("%w: Handler is nil", broker.ErrInvalid)
	}
	if s.Queue == "" {
		return fmt.Errorf("%w: Queue is empty", broker.ErrInvalid)
	}
	if s.Kind != broker.Exclusive && s.Kind != broker.Shared {
		return fmt.Errorf("%w: Kind is %d; Exclusive and Shared are known", broker.ErrInvalid, s.Kind)
	}
	if s.Prefetch == 0 {
		s.Prefetch = defaultPrefetch
	}
	if s.Prefetch < 0 || s.Prefetch > maxPrefetch {
		return fmt.Errorf("%w: Prefetch is %d; 0 to %d are allowed", broker.ErrInvalid, s.Prefetch, maxPrefetch)
	}
	for _, b := range s.Bindings {
		if err := checkBinding(b); err != nil {
			return err
		}
	}
	// Room for the suffix of an exclusive queue's name.
	return broker.CheckName("Queue", s.Queue+".................")
}

// manual reports whether deliveries are acknowledged over AMQP. An exclusive
// queue's are also with NoAck, by this package and seldom: the broker's window
// is what keeps a slow Handler from filling this process's memory.
func (sub *subscription) manual() bool { return !sub.NoAck || sub.Kind == broker.Exclusive }

// attach declares the queue in a session and starts a consumer.
func (sub *subscription) attach(s *session) *stream {
	st := &stream{session: s, announced: make(chan struct{})}
	if st.ch, st.err = s.consume.Channel(); st.err != nil {
		st.err = s.lost("opening a channel", st.err)
		return st
	}
	sub.binding <- struct{}{} // held by nobody longer than a session lasts
	defer func() { <-sub.binding }()
	if last := sub.attached; last != nil && last.session.number > s.number {
		st.err = s.lost("declaring "+sub.Queue, amqp.ErrClosed) // too late
	} else {
		sub.attached = nil
		if st.err = sub.declare(st); st.err == nil {
			st.err = sub.consume(st)
		}
	}
	if st.err != nil {
		_ = st.ch.Close()
		return st
	}
	sub.attached = st
	return st
}

// reattach gives run a stream of the next session and waits until run has
// announced it, for announceTime.
func (sub *subscription) reattach(s *session) {
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
}

// declare makes the queue and what leads to it. sub.binding is held.
func (sub *subscription) declare(st *stream) (err error) {
	s := st.session
	for name, kind := range sub.routes.exchanges {
		if err := s.declareExchange(st.ch, broker.Exchange{Name: name, Kind: kind}); err != nil {
			return err
		}
	}
	if sub.Kind == broker.Shared {
		st.queue, err = sub.Queue, s.declareShared(st.ch, sub.Queue)
	} else {
		st.queue, err = s.declareExclusive(st.ch, sub.Queue)
	}
	if err != nil {
		return err
	}
	return sub.bindAll(st)
}

func (sub *subscription) consume(st *stream) (err error) {
	lazy := 0
	if sub.manual() {
		prefetch := sub.Prefetch
		if sub.NoAck {
			prefetch = 2 * defaultPrefetch
			lazy = prefetch / 8
		}
		if err := st.ch.Qos(prefetch, 0, false); err != nil {
			return st.session.lost("setting the prefetch", err)
		}
	}
	st.deliveries, err = st.ch.Consume(st.queue, "", !sub.manual(), false, false, false, nil)
	if err != nil {
		return st.session.lost("consuming from "+st.queue, err)
	}
	if sub.manual() {
		st.acks = newAcker(st.ch, lazy)
	}
	return nil
}

// offer hands a stream to run. It takes the place of one of the same or an
// earlier session that run has not looked at yet; one that comes later than
// its successor is given up.
func (sub *subscription) offer(st *stream) {
	sub.mu.Lock()
	old := st
	if !sub.ended && (sub.next == nil || sub.next.session.number <= st.session.number) {
		old, sub.next = sub.next, st
	}
	sub.mu.Unlock()
	if old != nil {
		old.close(false)
	}
	if old != st {
		select {
		case sub.offered <- struct{}{}:
		default:
		}
	}
}

// take returns the stream that was offered, if any.
func (sub *subscription) take() *stream {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	st := sub.next
	sub.next = nil
	return st
}

// run consumes one stream after the other.
func (sub *subscription) run() {
	defer sub.forget()
	for {
		select {
		case <-sub.offered:
			if st := sub.take(); st != nil && !sub.serve(st) {
				return
			}
		case <-sub.stopped:
			return
		}
	}
}

// serve consumes a stream until it ends; while its session lasts, it gets
// itself another. It returns false when the subscription is over.
func (sub *subscription) serve(st *stream) bool {
	pause := newPause(sub.conn.cfg)
	for {
		began := time.Now()
		if st.err == nil {
			sub.drain(st)
		}
		if sub.isStopped() {
			return false
		}
		if st.session.isOver() {
			return true
		}
		select {
		case <-sub.first:
		default: // Subscribe waits, and the broker said no
			sub.firstErr = st.err
			close(sub.first)
			return false
		}
		if time.Since(began) > sub.conn.cfg.MaxBackoff {
			pause.Reset()
		}
		wait := pause.NextBackOff()
		sub.conn.opts.Logger.Warn("a subscription ended and is made again", "conn", sub.conn.opts.Name,
			"queue", sub.Queue, "error", st.err, "retry_in", wait)
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-sub.stopped:
		case <-st.session.over:
		}
		t.Stop()
		if sub.isStopped() {
			return false
		}
		st = sub.attach(st.session)
	}
}

func (s *session) isOver() bool {
	select {
	case <-s.over:
		return true
	default:
		return s.consume.IsClosed() || s.publish.IsClosed()
	}
}

func (sub *subscription) isStopped() bool {
	select {
	case <-sub.stopped:
		return true
	default:
		return false
	}
}

// drain calls the Handler for everything that a stream delivers.
func (sub *subscription) drain(st *stream) {
	defer func() { st.close(sub.Kind == broker.Exclusive && sub.isStopped()) }()
	sub.serving.Store(st)
	if sub.OnDeclared != nil {
		sub.OnDeclared(st.queue)
	}
	close(st.announced)
	select {
	case <-sub.first:
	default:
		close(sub.first)
	}
	delivered := sub.conn.metrics.delivered
	for {
		select {
		case <-sub.stopped:
			return
		case d, ok := <-st.deliveries:
			if !ok || sub.isStopped() {
				return
			}
			delivered.Inc()
			sub.handle(st, &d)
		}
	}
}

func (sub *subscription) handle(st *stream, d *amqp.Delivery) {
	bd := broker.Delivery{Message: fromDelivery(d), Redelivered: d.Redelivered}
	if sub.NoAck {
		sub.Handler(bd)
		if st.acks != nil {
			st.acks.settle(d.DeliveryTag, true)
		}
		return
	}
	acks, tag := st.acks, d.DeliveryTag
	bd.Settle = func(ok bool) { acks.settle(tag, ok) }
	sub.Handler(bd)
}

// close ends a stream: what is settled is told, the rest goes back.
func (st *stream) close(drop bool) {
	if st.ch == nil {
		return
	}
	if st.acks != nil {
		st.acks.stop()
	}
	if drop {
		// Deleting does not wait for the broker to notice that the last
		// consumer is gone, as auto-delete does.
		_, _ = st.ch.QueueDelete(st.queue, false, false, false)
	}
	_ = st.ch.Close()
}

// end asks run to end.
func (sub *subscription) end() { sub.once.Do(func() { close(sub.stopped) }) }

// forget is run's last act.
func (sub *subscription) forget() {
	sub.conn.mu.Lock()
	delete(sub.conn.subs, sub)
	sub.conn.mu.Unlock()
	sub.mu.Lock()
	sub.ended = true
	st := sub.next
	sub.next = nil
	sub.mu.Unlock()
	close(sub.done)
	if st != nil {
		st.close(false)
	}
}

// Stop implements broker.Consumer.
func (sub *subscription) Stop(ctx context.Context) error {
	sub.end()
	select {
	case <-sub.done:
		return nil
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("stopping the subscription to %s", sub.Queue), ctx.Err())
	}
}
