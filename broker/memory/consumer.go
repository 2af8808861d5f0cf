package memory

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
)

const (
	defaultPrefetch = 1000
	maxPrefetch     = 65535
	// announceTime bounds the wait for OnDeclared.
	announceTime = 2 * time.Second
)

// consumer implements broker.Consumer.
type consumer struct {
	broker.Subscription
	conn *conn
	q    *queue

	announced chan struct{} // closed after OnDeclared
	done      chan struct{} // closed when the goroutine has ended

	// Guarded by q.mu.
	stopped   bool
	tag       uint64
	unsettled map[uint64]item
}

// Subscribe implements broker.Conn.
func (c *conn) Subscribe(ctx context.Context, s broker.Subscription) (broker.Consumer, error) {
	if err := checkSubscription(&s); err != nil {
		return nil, err
	}
	sub := &consumer{
		Subscription: s, conn: c,
		announced: make(chan struct{}), done: make(chan struct{}), unsettled: map[uint64]item{},
	}
	c.mu.Lock()
	if c.closed.Load() {
		c.mu.Unlock()
		return nil, fmt.Errorf("subscribing to %s: %w", s.Queue, broker.ErrClosed)
	}
	if err := sub.declare(); err != nil {
		c.mu.Unlock()
		return nil, fmt.Errorf("subscribing to %s: %w", s.Queue, err)
	}
	c.subs[sub] = struct{}{}
	c.mu.Unlock()
	go sub.run()
	t := time.NewTimer(announceTime)
	defer t.Stop()
	select {
	case <-sub.announced:
	case <-ctx.Done():
	case <-t.C:
	}
	return sub, nil
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
		if err := checkKeys(b); err != nil {
			return err
		}
	}
	return broker.CheckName("Queue", s.Queue+".................")
}

func checkKeys(b broker.Binding) error {
	for _, k := range b.Keys {
		if err := broker.CheckName("binding key", k); err != nil {
			return err
		}
	}
	return nil
}

func (s *consumer) declare() (err error) {
	b := s.conn.b
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, bd := range s.Bindings {
		if err := b.declareExchange(bd.Exchange); err != nil {
			return err
		}
	}
	if s.Kind == broker.Exclusive {
		s.q = b.declareExclusive(s.Queue)
	} else if s.q, err = b.declareShared(s.Queue); err != nil {
		return err
	}
	b.bind(s.q, s.Bindings)
	return nil
}

// Bind implements broker.Consumer.
func (s *consumer) Bind(ctx context.Context, bd broker.Binding) error {
	err := s.rebind(ctx, bd, func(b *Broker) { b.bind(s.q, []broker.Binding{bd}) })
	if err != nil {
		return fmt.Errorf("binding %s to %s: %w", s.Queue, bd.Exchange.Name, err)
	}
	return nil
}

// Unbind implements broker.Consumer.
func (s *consumer) Unbind(ctx context.Context, bd broker.Binding) error {
	err := s.rebind(ctx, bd, func(b *Broker) { b.unbind(s.q, bd) })
	if err != nil {
		return fmt.Errorf("unbinding %s from %s: %w", s.Queue, bd.Exchange.Name, err)
	}
	return nil
}

func (s *consumer) rebind(ctx context.Context, bd broker.Binding, change func(*Broker)) error {
	if err := checkKeys(bd); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
	}
	b := s.conn.b
	b.mu.Lock()
	defer b.mu.Unlock()
	s.q.mu.Lock()
	stopped := s.stopped
	s.q.mu.Unlock()
	if stopped { // and with it, sooner or later, an exclusive queue's bindings
		return broker.ErrClosed
	}
	if err := b.declareExchange(bd.Exchange); err != nil {
		return err
	}
	change(b)
	return nil
}

// next waits for a message and takes it. ok is false when it is over.
func (s *consumer) next() (it item, tag uint64, ok bool) {
	q := s.q
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if s.stopped || q.deleted {
			return item{}, 0, false
		}
		room := s.NoAck || len(s.unsettled) < s.Prefetch
		if room && (len(q.back) > 0 || q.size() > 0) {
			break
		}
		q.ready.Wait()
	}
	it = q.pop()
	if !s.NoAck {
		s.tag++
		tag = s.tag
		s.unsettled[tag] = it
	}
	return it, tag, true
}

func (s *consumer) run() {
	defer close(s.done)
	if s.OnDeclared != nil {
		s.OnDeclared(s.q.name)
	}
	close(s.announced)
	for {
		it, tag, ok := s.next()
		if !ok {
			return
		}
		d := broker.Delivery{Message: *it.msg, Redelivered: it.redelivered}
		if !s.NoAck {
			d.Settle = func(ok bool) { s.settle(tag, ok) }
		}
		s.Handler(d)
	}
}

// settle ends a delivery. After Stop its message is not ours any more.
func (s *consumer) settle(tag uint64, ok bool) {
	q := s.q
	q.mu.Lock()
	defer q.mu.Unlock()
	it, held := s.unsettled[tag]
	if !held {
		return
	}
	delete(s.unsettled, tag)
	switch {
	case !ok:
		q.giveBack(it)
	case len(s.unsettled) == s.Prefetch-1:
		q.ready.Broadcast() // there is room again
	}
}

// Stop implements broker.Consumer.
func (s *consumer) Stop(ctx context.Context) error {
	s.q.mu.Lock()
	s.stopped = true
	s.q.ready.Broadcast()
	s.q.mu.Unlock()
	select {
	case <-s.done:
	case <-ctx.Done():
		return fmt.Errorf("stopping the subscription to %s: %w", s.Queue, ctx.Err())
	}
	s.conn.mu.Lock()
	delete(s.conn.subs, s)
	s.conn.mu.Unlock()
	if s.Kind == broker.Exclusive {
		s.conn.b.drop(s.q)
	}
	s.q.mu.Lock()
	defer s.q.mu.Unlock()
	if !s.q.deleted && len(s.unsettled) > 0 {
		tags := slices.Sorted(maps.Keys(s.unsettled))
		its := make([]item, len(tags))
		for i, t := range tags {
			its[i] = s.unsettled[t]
		}
		s.q.giveBack(its...)
	}
	clear(s.unsettled)
	return nil
}
