package zookeeper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/lock/internal/session"
)

// backend is one session at the servers.
type backend struct {
	p     *Provider
	cfg   lock.SessionConfig
	ready chan struct{} // closed when the servers know of the session

	mu      sync.Mutex
	conn    *zk.Conn // set before the session is given away
	opened  time.Time
	granted time.Duration
	mine    string // how the names of the session's nodes begin; set before ready
	expired bool
	session *session.Session
	busy    map[string]chan struct{} // by name: closed when nothing is asked any more
}

// dial connects quickly enough that another server can be tried in time.
func (b *backend) dial(network, address string, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout(network, address, min(timeout, b.cfg.TTL/4))
}

// do runs f, which knows no context; when ctx ends first, f goes on until the
// connection answers it or is closed.
func do(ctx context.Context, f func() error) error {
	_, err := ask(ctx, func() (struct{}, error) { return struct{}{}, f() })
	return err
}

// ask is do with an answer.
func ask[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	c := make(chan result, 1)
	go func() {
		v, err := f()
		c <- result{v, err}
	}()
	select {
	case r := <-c:
		if errors.Is(r.err, zk.ErrSessionExpired) {
			r.err = fmt.Errorf("%w: %w", lock.ErrLost, r.err)
		}
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// askFor is ask for what makes a node of a name. If it goes on after ctx has ended,
// Forget waits for it.
func askFor[T any](ctx context.Context, b *backend, name string, f func() (T, error)) (T, error) {
	done := make(chan struct{})
	b.mu.Lock()
	b.busy[name] = done // nobody else is: a session deals with a name one thing at a time
	b.mu.Unlock()
	return ask(ctx, func() (T, error) {
		defer func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			delete(b.busy, name)
			close(done)
		}()
		return f()
	})
}

// settled returns when nothing is asked for a name any more.
func (b *backend) settled(name string) {
	b.mu.Lock()
	done := b.busy[name]
	b.mu.Unlock()
	if done != nil {
		<-done
	}
}

// Renew implements session.Backend: any request renews the session.
func (b *backend) Renew(ctx context.Context) error {
	return do(ctx, func() error {
		_, _, err := b.conn.Exists(b.p.cfg.Path)
		return err
	})
}

// node is the node of a name: letters, digits, - and _ stand for themselves.
func (b *backend) node(name string) string {
	var s strings.Builder
	for _, c := range []byte(name) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' {
			s.WriteByte(c)
		} else {
			fmt.Fprintf(&s, "%%%02x", c)
		}
	}
	return b.p.cfg.Path + "/" + s.String()
}

// number is the part of a node's name that the servers have added.
func number(child string) string { return child[max(0, len(child)-10):] }

// place makes a node below the node of a name.
func (b *backend) place(name string) (string, error) {
	parent := b.node(name)
	for {
		made, err := b.conn.Create(parent+"/"+b.mine, []byte(b.cfg.Owner), zk.FlagEphemeral|zk.FlagSequence, b.p.acl)
		if !errors.Is(err, zk.ErrNoNode) {
			return made[strings.LastIndexByte(made, '/')+1:], err
		}
		if _, err := b.conn.CreateContainer(parent, nil, zk.FlagContainer, b.p.acl); err != nil && !errors.Is(err, zk.ErrNodeExists) {
			return "", err
		}
	}
}

// line lists the nodes of a name in the order of their numbers.
func (b *backend) line(name string) ([]string, error) {
	children, _, err := b.conn.Children(b.node(name))
	if errors.Is(err, zk.ErrNoNode) {
		return nil, nil
	}
	slices.SortFunc(children, func(x, y string) int { return cmp.Compare(number(x), number(y)) })
	return children, err
}

// TryLock implements session.Backend.
func (b *backend) TryLock(ctx context.Context, name string) (uint64, error) {
	return askFor(ctx, b, name, func() (uint64, error) {
		child, err := b.place(name)
		if err != nil {
			return 0, err
		}
		line, err := b.line(name)
		if err != nil {
			return 0, err
		}
		if len(line) == 0 || line[0] != child {
			if err := b.conn.Delete(b.node(name)+"/"+child, -1); err != nil && !errors.Is(err, zk.ErrNoNode) {
				return 0, err
			}
			return 0, lock.ErrHeld
		}
		return b.take(name, child)
	})
}

// take returns the token of a lease whose node is the first, and watches it.
func (b *backend) take(name, child string) (uint64, error) {
	_, stat, gone, err := b.conn.GetW(b.node(name) + "/" + child)
	if err != nil {
		return 0, err
	}
	token := uint64(stat.Czxid)
	go func() {
		// Of a closed connection and of an expired session, too, the watch ends.
		if e := <-gone; e.Type == zk.EventNodeDeleted {
			b.lost(name, token)
		}
	}()
	return token, nil
}

// lost tells the session that a node is gone. One that was released is not in
// its books any more.
func (b *backend) lost(name string, token uint64) {
	b.mu.Lock()
	s := b.session
	b.mu.Unlock()
	s.LoseLease(name, token)
}

// Lock implements session.Backend.
func (b *backend) Lock(ctx context.Context, name string) (uint64, error) {
	child, err := askFor(ctx, b, name, func() (string, error) { return b.place(name) })
	if err != nil {
		return 0, err
	}
	for {
		token, err := b.turn(ctx, name, child)
		switch {
		case err == nil:
			return token, nil
		case errors.Is(err, errRemoved):
			return 0, err
		}
		// The node is there as long as the session.
		if err := session.Pause(ctx, err); err != nil {
			return 0, err
		}
	}
}

// turn waits until a node is the first.
func (b *backend) turn(ctx context.Context, name, child string) (uint64, error) {
	for {
		before, err := ask(ctx, func() (<-chan zk.Event, error) { return b.before(name, child) })
		if err != nil {
			return 0, err
		}
		if before == nil {
			return ask(ctx, func() (uint64, error) { return b.take(name, child) })
		}
		select {
		case e := <-before:
			if errors.Is(e.Err, zk.ErrSessionExpired) {
				return 0, lock.ErrLost
			}
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

var errRemoved = errors.New("the place among those who wait was removed")

// before watches the node before one's own; nil: it is the first.
func (b *backend) before(name, child string) (<-chan zk.Event, error) {
	for {
		line, err := b.line(name)
		if err != nil {
			return nil, err
		}
		i := slices.Index(line, child)
		if i < 0 {
			return nil, errRemoved
		}
		if i == 0 {
			return nil, nil
		}
		_, _, c, err := b.conn.GetW(b.node(name) + "/" + line[i-1])
		if !errors.Is(err, zk.ErrNoNode) {
			return c, err
		}
	}
}

// Release implements session.Backend.
func (b *backend) Release(ctx context.Context, name string, token uint64) error {
	return do(ctx, func() error {
		line, err := b.line(name)
		if err != nil {
			return err
		}
		for _, child := range line {
			if !strings.HasPrefix(child, b.mine) {
				continue
			}
			path := b.node(name) + "/" + child
			there, stat, err := b.conn.Exists(path)
			if err != nil {
				return err
			}
			if there && uint64(stat.Czxid) == token {
				if err := b.conn.Delete(path, -1); !errors.Is(err, zk.ErrNoNode) {
					return err
				}
			}
		}
		return lock.ErrNotHolder
	})
}

// Forget implements session.Backend.
func (b *backend) Forget(ctx context.Context, name string) error {
	return do(ctx, func() error {
		b.settled(name)
		// What was created through another server is seen after this.
		if _, err := b.conn.Sync(b.node(name)); err != nil && !errors.Is(err, zk.ErrNoNode) {
			return err
		}
		line, err := b.line(name)
		for _, child := range line {
			if err == nil && strings.HasPrefix(child, b.mine) {
				if err = b.conn.Delete(b.node(name)+"/"+child, -1); errors.Is(err, zk.ErrNoNode) {
					err = nil
				}
			}
		}
		return err
	})
}

// Held implements session.Backend: Forget waits for what it must undo, the requests
// of a connection are performed in order, and none of an earlier connection after
// the session has moved to another.
func (b *backend) Held(context.Context) ([]string, error) { return nil, nil }

// End implements session.Backend. The servers end the session when they are
// asked to, or else after its time.
func (b *backend) End(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.conn.Close()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
