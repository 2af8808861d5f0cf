package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/lock/internal/session"
)

// DefaultPrefix is where leases are kept if no prefix is given.
const DefaultPrefix = "{ringmaster:locks}:"

// Config says where leases are kept.
type Config struct {
	// Clients are one for each node, and stay the caller's to close. An odd
	// number of independent nodes, or one.
	Clients []redis.UniversalClient
	// URLs are connected to if Clients is empty, as redis.ParseURL takes them, one
	// for each node. One of the two is required.
	URLs []string
	// Prefix precedes all keys; DefaultPrefix if empty. Providers that share it
	// share their leases. No spaces; a tag in braces keeps all on one slot.
	Prefix string
	// Logger gets what an operator should know; nil discards.
	Logger *slog.Logger
}

// Provider implements lock.Provider. It is safe for concurrent use.
type Provider struct {
	nodes  []redis.UniversalClient
	own    bool // the clients were made here
	prefix string
	log    *slog.Logger

	stopListening context.CancelFunc
	listening     sync.WaitGroup

	mu       sync.Mutex
	sessions map[string]*backend
}

// New makes a provider. That it reaches the nodes is known when a session opens.
func New(c Config) (*Provider, error) {
	p := &Provider{nodes: c.Clients, prefix: c.Prefix, log: c.Logger, sessions: map[string]*backend{}}
	if p.prefix == "" {
		p.prefix = DefaultPrefix
	}
	if strings.ContainsAny(p.prefix, " \n") {
		return nil, fmt.Errorf("%w: prefix %q has spaces", lock.ErrInvalid, p.prefix)
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if len(p.nodes) == 0 {
		p.own = true
		for _, u := range c.URLs {
			options, err := redis.ParseURL(u)
			if err != nil {
				return nil, errors.Join(fmt.Errorf("%w: address of a node: %w", lock.ErrInvalid, err), p.Close())
			}
			options.ContextTimeoutEnabled = true // or contexts do not bound what is under way
			options.MaxRetries = -1              // a session repeats what it must
			options.DialerRetries = 1
			p.nodes = append(p.nodes, redis.NewClient(options))
		}
	}
	if n := len(p.nodes); n == 0 || n%2 == 0 {
		return nil, errors.Join(fmt.Errorf("%w: %d nodes are given; one, or an odd number", lock.ErrInvalid, n), p.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.stopListening = cancel
	for _, node := range p.nodes {
		p.listening.Go(func() { p.listen(ctx, node) })
	}
	return p, nil
}

// quorum is more than half of the nodes.
func (p *Provider) quorum() int { return len(p.nodes)/2 + 1 }

// Close implements lock.Provider.
func (p *Provider) Close() error {
	if p.stopListening != nil {
		p.stopListening()
		p.listening.Wait()
	}
	if !p.own {
		return nil
	}
	var errs []error
	for _, node := range p.nodes {
		errs = append(errs, node.Close())
	}
	return errors.Join(errs...)
}

// Open implements lock.Provider.
func (p *Provider) Open(ctx context.Context, c lock.SessionConfig) (lock.Session, error) {
	c, err := c.WithDefaults()
	if err != nil {
		return nil, err
	}
	b := &backend{p: p, id: rand.Text(), cfg: c, woken: map[string]chan struct{}{}, held: map[string]*grant{},
		fresh: make([]bool, len(p.nodes)), losses: make([]int, len(p.nodes))}
	sent := c.Now()
	answers := onAll(ctx, b, func(ctx context.Context, node int) (int, error) {
		return b.run(ctx, node, openScript, c.Owner, c.TTL.Milliseconds()).Int()
	})
	if n, err := count(answers); n < p.quorum() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.TTL)
		defer cancel()
		_ = b.End(ctx) // where it was opened it expires, too
		return nil, fmt.Errorf("opening a lock session: %d of %d nodes have: %w", n, len(p.nodes), err)
	}
	for i, a := range answers {
		b.fresh[i] = a.err == nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.session = session.Start(c, sent, b)
	p.sessions[b.id] = b
	return b.session, nil
}

func (p *Provider) find(id string) *backend {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sessions[id]
}

func (p *Provider) remove(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sessions, id)
}

// each calls f for every session.
func (p *Provider) each(f func(*backend)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.sessions {
		f(b)
	}
}

// listen hears the notes of a node. They only make things faster: what is missed
// is noticed by renewals and by waiters that ask again.
func (p *Provider) listen(ctx context.Context, node redis.UniversalClient) {
	sub := node.Subscribe(ctx, p.prefix+"notes")
	defer func() { _ = sub.Close() }()
	notes := sub.ChannelWithSubscriptions(redis.WithChannelHealthCheckInterval(3 * time.Second))
	for {
		select {
		case <-ctx.Done():
			return
		case n, ok := <-notes:
			switch n := n.(type) {
			case *redis.Subscription:
				// Notes may have been missed.
				p.each(func(b *backend) { b.wake("") })
			case *redis.Message:
				p.note(n.Payload)
			}
			if !ok {
				return
			}
		}
	}
}

// note acts on what a node says.
func (p *Provider) note(text string) {
	f := strings.Fields(text)
	if len(f) < 2 {
		return
	}
	several := len(p.nodes) > 1
	switch {
	case f[0] == "free" && several:
		p.each(func(b *backend) { b.wake(f[1]) })
		return
	case f[0] == "free" || several && f[0] != "wake":
		return // what one of several nodes ends is not ended
	}
	b := p.find(f[1])
	switch {
	case b == nil: // another provider's, or closed
	case f[0] == "ended":
		b.session.Lose(fmt.Errorf("%w: Redis ended it", lock.ErrLost))
	case f[0] == "wake" && len(f) == 3:
		b.wake(f[2])
	case f[0] == "lost" && len(f) == 4:
		b.lose(f[2], f[3])
	}
}
