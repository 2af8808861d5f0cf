package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/lock/internal/session"
)

// DefaultPath is where leases are kept if no path is given.
const DefaultPath = "/ringmaster/locks"

// Config says where leases are kept.
type Config struct {
	// Servers are host:port each, or host for the port 2181. Required.
	Servers []string
	// Path is the node below which all is kept, and is made if there is none;
	// DefaultPath if empty. Providers that share it share their leases.
	Path string
	// Username and Password authenticate by the scheme digest, and only they may
	// then touch the nodes that are made; empty: anybody may.
	Username, Password string
	// Logger gets what the client says about its connections; nil discards.
	Logger *slog.Logger
}

// Provider implements lock.Provider. It is safe for concurrent use. It has no
// connection of its own: each session has one.
type Provider struct {
	cfg Config
	acl []zk.ACL
}

// New makes a provider. That it reaches the servers is known when a session opens.
func New(c Config) (*Provider, error) {
	if len(c.Servers) == 0 {
		return nil, fmt.Errorf("%w: no server is given", lock.ErrInvalid)
	}
	if c.Path == "" {
		c.Path = DefaultPath
	}
	if c.Path = path.Clean(c.Path); c.Path[0] != '/' || c.Path == "/" {
		return nil, fmt.Errorf("%w: path %q is not below /", lock.ErrInvalid, c.Path)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Provider{cfg: c, acl: zk.WorldACL(zk.PermAll)}
	if c.Username != "" {
		p.acl = zk.DigestACL(zk.PermAll, c.Username, c.Password)
	}
	return p, nil
}

// Close implements lock.Provider.
func (p *Provider) Close() error { return nil }

// Open implements lock.Provider.
func (p *Provider) Open(ctx context.Context, c lock.SessionConfig) (lock.Session, error) {
	c, err := c.WithDefaults()
	if err != nil {
		return nil, err
	}
	b := &backend{p: p, cfg: c, ready: make(chan struct{}), busy: map[string]chan struct{}{}}
	b.mu.Lock() // events wait until the connection is known
	b.conn, _, err = zk.Connect(p.cfg.Servers, c.TTL, zk.WithEventCallback(b.event), zk.WithHostProvider(newHosts()),
		zk.WithLogger(clientLog{p.cfg.Logger}), zk.WithLogInfo(false), zk.WithDialer(b.dial))
	b.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("opening a lock session: %w", err)
	}
	if err := b.begin(ctx); err != nil {
		b.conn.Close()
		return nil, fmt.Errorf("opening a lock session: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.expired {
		return nil, fmt.Errorf("opening a lock session: %w", lock.ErrLost)
	}
	b.session = session.Start(c, b.opened, b)
	return b.session, nil
}

// begin waits until the servers know of the session, and makes the nodes that
// all leases need.
func (b *backend) begin(ctx context.Context) error {
	select {
	case <-b.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	b.mu.Lock()
	granted := b.granted
	b.mu.Unlock()
	if granted < b.cfg.TTL {
		return fmt.Errorf("%w: TTL is %v, and the servers grant %v", lock.ErrInvalid, b.cfg.TTL, granted)
	}
	return do(ctx, func() error {
		if u := b.p.cfg.Username; u != "" {
			if err := b.conn.AddAuth("digest", []byte(u+":"+b.p.cfg.Password)); err != nil {
				return err
			}
		}
		made := ""
		for part := range strings.SplitSeq(b.p.cfg.Path[1:], "/") {
			made += "/" + part
			if _, err := b.conn.Create(made, nil, 0, b.p.acl); err != nil && !errors.Is(err, zk.ErrNodeExists) {
				return fmt.Errorf("making the node %s: %w", made, err)
			}
		}
		return nil
	})
}

// event is called by the client for whatever happens to the session, before it
// goes on: in particular before it opens a new session in the place of one that
// has expired, in which nothing must be done in the name of the old one.
func (b *backend) event(e zk.Event) {
	if e.Type != zk.EventSession {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e.State {
	case zk.StateConnected:
		if b.granted == 0 {
			b.opened = b.cfg.Now() // the session is asked for next
		}
	case zk.StateHasSession:
		if b.granted == 0 {
			b.granted = granted(b.conn)
			b.mine = fmt.Sprintf("%016x-", uint64(b.conn.SessionID()))
			close(b.ready)
		}
	case zk.StateExpired:
		b.expired = true
		go b.conn.Close() // or it would begin another
		if b.session != nil {
			go b.session.Lose(fmt.Errorf("%w: ZooKeeper says that it has expired", lock.ErrLost))
		}
	}
}

// granted is the time to live that the servers have granted, which the client
// keeps to itself. It is called from the goroutine that sets it.
func granted(c *zk.Conn) time.Duration {
	if v := reflect.ValueOf(c).Elem().FieldByName("sessionTimeoutMs"); v.IsValid() && v.CanInt() {
		return time.Duration(v.Int()) * time.Millisecond
	}
	return 0
}

// hosts is in which order servers are tried: one after the other without a pause,
// unless all have been tried since the last connection. The client's own makes a
// pause of a second whenever there is only one.
type hosts struct {
	zk.HostProvider
	mu    sync.Mutex
	tried int
}

func newHosts() *hosts { return &hosts{HostProvider: zk.NewDNSHostProvider()} }

// Next implements zk.HostProvider.
func (h *hosts) Next() (server string, retryStart bool) {
	server, _ = h.HostProvider.Next()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tried++
	return server, h.tried > h.Len()
}

// Connected implements zk.HostProvider.
func (h *hosts) Connected() {
	h.HostProvider.Connected()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tried = 0
}

// clientLog has the client log here. What it says matters to whoever looks for
// the cause of a lost session.
type clientLog struct{ log *slog.Logger }

// Printf implements zk.Logger.
func (l clientLog) Printf(format string, args ...any) {
	l.log.Debug("ZooKeeper client: " + fmt.Sprintf(format, args...))
}
