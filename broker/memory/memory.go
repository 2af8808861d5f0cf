package memory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"crypto/rand"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/broker/internal/mailbox"
)

// Config bounds a Broker. The zero value works.
type Config struct {
	// QueueMessages and QueueBytes (of bodies) bound what waits in one queue;
	// unsettled deliveries do not count. A single message always fits into an
	// empty queue. 0 is 100,000 messages and 256 MiB.
	QueueMessages int
	QueueBytes    int64
}

// Broker is a message broker in this process. Use [New]. It is safe for
// concurrent use, needs no closing and runs no goroutine of its own.
type Broker struct {
	cfg Config

	mu        sync.RWMutex
	exchanges map[string]*exchange
	queues    map[string]*queue
}

var _ broker.Broker = (*Broker)(nil)

// exchange routes by key, or to every queue bound (fanout: the key is "").
type exchange struct {
	kind     broker.ExchangeKind
	bindings map[string][]*queue
}

// New makes a broker that holds nothing yet.
func New(cfg Config) (*Broker, error) {
	if cfg.QueueMessages < 0 || cfg.QueueBytes < 0 {
		return nil, errors.New("memory: QueueMessages and QueueBytes must not be negative")
	}
	if cfg.QueueMessages == 0 {
		cfg.QueueMessages = 100_000
	}
	if cfg.QueueBytes == 0 {
		cfg.QueueBytes = 256 << 20
	}
	return &Broker{cfg: cfg, exchanges: map[string]*exchange{}, queues: map[string]*queue{}}, nil
}

// Open implements broker.Broker. It fails only with ctx.
func (b *Broker) Open(ctx context.Context, o broker.Options) (broker.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", broker.ErrUnavailable, err)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c := &conn{b: b, opts: o, subs: map[*consumer]struct{}{}}
	c.returns = mailbox.New(func(m broker.Message) {
		if o.OnReturn != nil {
			o.OnReturn(m)
		}
	})
	if o.OnState != nil {
		o.OnState(broker.StateConnected)
	}
	return c, nil
}

// declareExchange makes an exchange or checks the one that is there. b.mu is
// held.
func (b *Broker) declareExchange(x broker.Exchange) error {
	if x.Name == "" {
		return fmt.Errorf("%w: an exchange needs a name", broker.ErrInvalid)
	}
	if err := broker.CheckName("exchange", x.Name); err != nil {
		return err
	}
	if x.Kind != broker.Direct && x.Kind != broker.Fanout {
		return fmt.Errorf("%w: exchange %s: kind %q is not known; direct and fanout are", broker.ErrInvalid, x.Name, x.Kind)
	}
	old := b.exchanges[x.Name]
	if old == nil {
		b.exchanges[x.Name] = &exchange{kind: x.Kind, bindings: map[string][]*queue{}}
		return nil
	}
	if old.kind != x.Kind {
		return fmt.Errorf("declaring exchange %s: the broker has one of this name with other properties "+
			"(%s, wanted: %s); delete it there or choose another namespace", x.Name, old.kind, x.Kind)
	}
	return nil
}

// declareShared makes a shared queue or finds it. b.mu is held.
func (b *Broker) declareShared(name string) (*queue, error) {
	if err := broker.CheckName("queue", name); err != nil {
		return nil, err
	}
	q := b.queues[name]
	if q == nil {
		q = newQueue(name, b.cfg)
		b.queues[name] = q
	}
	return q, nil
}

// declareExclusive makes a queue with a name of its own. b.mu is held.
func (b *Broker) declareExclusive(prefix string) *queue {
	q := newQueue(prefix+"."+strings.ToLower(rand.Text()[:16]), b.cfg)
	q.exclusive = true
	b.queues[q.name] = q
	return q
}

// bind routes messages to a queue. b.mu is held.
func (b *Broker) bind(q *queue, bs []broker.Binding) {
	for _, bd := range bs {
		x := b.exchanges[bd.Exchange.Name]
		keys := bd.Keys
		if x.kind == broker.Fanout {
			keys = []string{""}
		}
		for _, k := range keys {
			if !slices.Contains(x.bindings[k], q) {
				// A new slice: routes hand out the old one.
				x.bindings[k] = append(slices.Clip(x.bindings[k]), q)
			}
		}
	}
}

// unbind ends routes to a queue. b.mu is held.
func (b *Broker) unbind(q *queue, bd broker.Binding) {
	x := b.exchanges[bd.Exchange.Name]
	keys := bd.Keys
	if x.kind == broker.Fanout {
		keys = []string{""}
	}
	for _, k := range keys {
		x.remove(k, q)
	}
}

// remove takes a queue from those of a key.
func (x *exchange) remove(key string, q *queue) {
	qs := x.bindings[key]
	switch {
	case !slices.Contains(qs, q):
	case len(qs) == 1:
		delete(x.bindings, key)
	default:
		// A new slice: routes hand out the old one.
		x.bindings[key] = slices.DeleteFunc(slices.Clone(qs), func(o *queue) bool { return o == q })
	}
}

// drop deletes a queue with its bindings.
func (b *Broker) drop(q *queue) {
	b.mu.Lock()
	delete(b.queues, q.name)
	for _, x := range b.exchanges {
		for k := range x.bindings {
			x.remove(k, q)
		}
	}
	b.mu.Unlock()
	q.delete()
}

// route finds the queues for a message. one saves the slice for a single
// queue. known is false when the exchange does not exist.
func (b *Broker) route(m *broker.Message) (one *queue, many []*queue, known bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if m.Exchange == "" {
		return b.queues[m.Key], nil, true
	}
	x := b.exchanges[m.Exchange]
	if x == nil {
		return nil, nil, false
	}
	key := m.Key
	if x.kind == broker.Fanout {
		key = ""
	}
	return nil, x.bindings[key], true
}
