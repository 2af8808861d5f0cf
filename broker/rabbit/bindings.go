package rabbit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ringmaster-dev/ringmaster/broker"
)

// inFlight is how many bindings are asked for before the first answer.
const inFlight = 64

// route is one key of one exchange that leads to a queue.
type route struct{ exchange, key string }

// routes is what leads to the queue of a subscription, over all sessions.
type routes struct {
	exchanges map[string]broker.ExchangeKind
	wanted    map[route]struct{}
	// unwanted are bindings of a Shared queue that may still be there: the
	// broker could not be asked to drop them. Exclusive queues take their
	// bindings with them.
	unwanted map[route]struct{}
}

func (r routes) clone() routes {
	return routes{maps.Clone(r.exchanges), maps.Clone(r.wanted), maps.Clone(r.unwanted)}
}

func routesOf(bs []broker.Binding) routes {
	r := routes{map[string]broker.ExchangeKind{}, map[route]struct{}{}, map[route]struct{}{}}
	for _, b := range bs {
		r.exchanges[b.Exchange.Name] = b.Exchange.Kind
		r.change(broker.Shared, keysOf(b), true)
	}
	return r
}

// change notes what is wanted from now on.
func (r *routes) change(kind broker.QueueKind, keys []route, bound bool) {
	for _, k := range keys {
		switch {
		case bound:
			r.wanted[k] = struct{}{}
			delete(r.unwanted, k)
		default:
			delete(r.wanted, k)
			if kind == broker.Shared {
				r.unwanted[k] = struct{}{}
			}
		}
	}
}

func keysOf(b broker.Binding) []route {
	if b.Exchange.Kind == broker.Fanout {
		return []route{{b.Exchange.Name, ""}}
	}
	rs := make([]route, len(b.Keys))
	for i, k := range b.Keys {
		rs[i] = route{b.Exchange.Name, k}
	}
	return rs
}

func checkBinding(b broker.Binding) error {
	if err := checkExchange(b.Exchange); err != nil {
		return err
	}
	for _, k := range b.Keys {
		if err := broker.CheckName("binding key", k); err != nil {
			return err
		}
	}
	return nil
}

// Bind implements broker.Consumer.
func (sub *subscription) Bind(ctx context.Context, b broker.Binding) error {
	if err := sub.rebind(ctx, b, true); err != nil {
		return fmt.Errorf("binding %s to %s: %w", sub.Queue, b.Exchange.Name, err)
	}
	return nil
}

// Unbind implements broker.Consumer.
func (sub *subscription) Unbind(ctx context.Context, b broker.Binding) error {
	if err := sub.rebind(ctx, b, false); err != nil {
		return fmt.Errorf("unbinding %s from %s: %w", sub.Queue, b.Exchange.Name, err)
	}
	return nil
}

// rebind changes what is wanted and then the queue that is there. Whoever
// declares the next queue waits for its turn, so that no change falls between
// the two.
func (sub *subscription) rebind(ctx context.Context, b broker.Binding, bound bool) error {
	if err := checkBinding(b); err != nil {
		return err
	}
	select {
	case sub.binding <- struct{}{}:
	case <-sub.stopped:
		return broker.ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", broker.ErrUnavailable, ctx.Err())
	}
	if sub.isStopped() {
		<-sub.binding
		return broker.ErrClosed
	}
	before, keys := sub.routes.clone(), keysOf(b)
	if bound {
		sub.routes.exchanges[b.Exchange.Name] = b.Exchange.Kind
	}
	sub.routes.change(sub.Kind, keys, bound)
	st := sub.attached
	if st == nil || st.session.isOver() {
		<-sub.binding
		return nil
	}
	// It goes on when the caller has gone, and then lets the next one in.
	return st.session.within(ctx, func() error {
		defer func() { <-sub.binding }()
		err := st.rebind(b.Exchange, keys, bound)
		switch {
		case err == nil && !bound:
			for _, k := range keys {
				delete(sub.routes.unwanted, k)
			}
		case err != nil && st.gone(err):
			return nil // what comes next follows what is wanted
		case err != nil:
			sub.routes = before
		}
		return err
	})
}

// gone reports that a refusal only says that the stream's queue is not there
// any more, or its session.
func (st *stream) gone(err error) bool {
	var ae *amqp.Error
	return st.session.isOver() || errors.As(err, &ae) && ae.Code == amqp.NotFound
}

// rebind works on a channel of its own, since a refusal closes the channel.
func (st *stream) rebind(x broker.Exchange, keys []route, bound bool) error {
	s := st.session
	ch, err := s.consume.Channel()
	if err != nil {
		return s.lost("opening a channel", err)
	}
	defer func() { _ = ch.Close() }()
	if err := s.declareExchange(ch, x); err != nil {
		return err
	}
	return st.ask(ch, keys, bound)
}

// ask has the broker bind or unbind keys without waiting for one answer before
// the next request. The answers to requests of one kind are all alike, which
// is why they may be taken in any order.
func (st *stream) ask(ch *amqp.Channel, keys []route, bound bool) error {
	doing, do := "binding", func(k route) error {
		return ch.QueueBind(st.queue, k.key, k.exchange, false, nil)
	}
	if !bound {
		doing, do = "unbinding", func(k route) error {
			return ch.QueueUnbind(st.queue, k.key, k.exchange, nil)
		}
	}
	for len(keys) > 0 {
		some := keys[:min(inFlight, len(keys))]
		keys = keys[len(some):]
		errs := make([]error, len(some))
		var wg sync.WaitGroup
		for i, k := range some {
			wg.Go(func() { errs[i] = do(k) })
		}
		wg.Wait()
		if err := reason(errs); err != nil {
			return st.session.lost(fmt.Sprintf("%s %s and %d keys", doing, st.queue, len(some)), err)
		}
	}
	return nil
}

// reason picks the broker's refusal from errors that merely follow from it.
func reason(errs []error) (why error) {
	for _, err := range errs {
		if err != nil && (why == nil || errors.Is(why, amqp.ErrClosed)) {
			why = err
		}
	}
	return why
}

// bindAll brings the bindings of a queue in line with what is wanted.
// sub.binding is held.
func (sub *subscription) bindAll(st *stream) error {
	wanted := make([]route, 0, len(sub.routes.wanted))
	for k := range sub.routes.wanted {
		wanted = append(wanted, k)
	}
	unwanted := make([]route, 0, len(sub.routes.unwanted))
	for k := range sub.routes.unwanted {
		unwanted = append(unwanted, k)
	}
	if err := st.ask(st.ch, wanted, true); err != nil {
		return err
	}
	if err := st.ask(st.ch, unwanted, false); err != nil {
		return err
	}
	clear(sub.routes.unwanted)
	return nil
}
