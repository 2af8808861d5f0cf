package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/lock/internal/session"
)

// DefaultPrefix is where leases are kept if no prefix is given.
const DefaultPrefix = "ringmaster/locks"

// Config says where leases are kept.
type Config struct {
	// Client stays the caller's to close.
	Client *clientv3.Client
	// Endpoints are connected to if Client is nil, host:port or http(s)://host:port
	// each. One of the two is required.
	Endpoints []string
	// Username and Password are for Endpoints; empty: no authentication.
	Username, Password string
	// Prefix precedes all keys; DefaultPrefix if empty. Providers that share it
	// share their leases.
	Prefix string
}

// Provider implements lock.Provider. It is safe for concurrent use.
type Provider struct {
	client *clientv3.Client
	own    bool // client was opened here
	prefix string
}

// New makes a provider. That it reaches the servers is known when a session opens.
func New(c Config) (*Provider, error) {
	p := &Provider{client: c.Client, prefix: c.Prefix}
	if p.prefix == "" {
		p.prefix = DefaultPrefix
	}
	if p.client != nil {
		return p, nil
	}
	if len(c.Endpoints) == 0 {
		return nil, fmt.Errorf("%w: neither a client nor endpoints are given", lock.ErrInvalid)
	}
	// A connection must be there again long before the sessions are over.
	quick := grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
		MinConnectTimeout: 2 * time.Second,
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: c.Endpoints, Username: c.Username, Password: c.Password, DialTimeout: 5 * time.Second,
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 3 * time.Second,
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(quick)}, Logger: zap.NewNop(),
	})
	if err != nil {
		return nil, fmt.Errorf("connecting to etcd: %w", err)
	}
	p.client, p.own = client, true
	return p, nil
}

// Close implements lock.Provider.
func (p *Provider) Close() error {
	if p.own {
		return p.client.Close()
	}
	return nil
}

// below is the prefix of the keys of a name.
func (p *Provider) below(name string) string {
	return p.prefix + "/leases/" + url.PathEscape(name) + "/"
}

// Open implements lock.Provider.
func (p *Provider) Open(ctx context.Context, c lock.SessionConfig) (lock.Session, error) {
	c, err := c.WithDefaults()
	if err != nil {
		return nil, err
	}
	sent := c.Now()
	lease, err := p.client.Grant(ctx, int64((c.TTL+time.Second-1)/time.Second))
	if err != nil {
		return nil, fmt.Errorf("opening a lock session: %w", err)
	}
	b := &backend{p: p, lease: lease.ID, owner: c.Owner, watched: make(chan struct{})}
	// Its end is seen by the end of this key.
	put, err := p.client.Put(ctx, b.key(p.prefix+"/sessions/"), c.Owner, clientv3.WithLease(lease.ID))
	if err != nil {
		close(b.watched)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.TTL)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("opening a lock session: %w", err), b.End(ctx))
	}
	s := session.Start(c, sent, b)
	go b.watch(s, put.Header.Revision)
	return s, nil
}
