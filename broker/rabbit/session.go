package rabbit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ringmaster-dev/ringmaster/broker"
)

// closeTime bounds the handshake that ends a connection.
const closeTime = 2 * time.Second

// session is a pair of connections to one node.
type session struct {
	number  uint64 // counts the sessions of a Conn, from 1
	node    string // host:port, for the log
	publish *amqp.Connection
	consume *amqp.Connection
	wires   [2]*wire

	plain     *outlet // unconfirmed publishes
	confirmed *outlet // confirmed ones

	blocked atomic.Bool
	over    chan struct{} // closed when either connection is lost
	once    sync.Once
	err     error // set before over is closed
}

// dial makes a session with one node. ctx ends the attempt, not the session.
func (c *conn) dial(ctx context.Context, url string) (_ *session, err error) {
	uri, err := amqp.ParseURI(url)
	if err != nil {
		return nil, err
	}
	s := &session{node: net.JoinHostPort(uri.Host, fmt.Sprint(uri.Port)), over: make(chan struct{})}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", s.node, err)
			s.abort()
		}
	}()
	if s.consume, s.wires[0], err = c.connect(ctx, url, "consume"); err != nil {
		return nil, err
	}
	if s.publish, s.wires[1], err = c.connect(ctx, url, "publish"); err != nil {
		return nil, err
	}
	s.watch(c)
	s.plain = &outlet{conn: c, session: s}
	s.confirmed = &outlet{conn: c, session: s, confirm: true}
	for _, o := range []*outlet{s.plain, s.confirmed} {
		if _, err = o.open(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// connect dials one connection of the pair.
func (c *conn) connect(ctx context.Context, url, purpose string) (*amqp.Connection, *wire, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.DialTimeout)
	defer cancel()
	// The handshake itself knows no context: closing the socket ends it.
	var mu sync.Mutex
	var w *wire
	finished := false
	cfg := amqp.Config{
		Heartbeat: c.cfg.Heartbeat,
		Locale:    "en_US",
		Properties: amqp.Table{
			"product": "Ringmaster", "platform": "Go",
			"connection_name": c.opts.Name + " (" + purpose + ")",
		},
		Dial: func(network, addr string) (net.Conn, error) {
			var d net.Dialer
			nc, err := d.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			if tcp, ok := nc.(*net.TCPConn); ok {
				// Merging is done here, by what is there, not by waiting.
				_ = tcp.SetNoDelay(true)
			}
			mu.Lock()
			defer mu.Unlock()
			if w = newWire(nc); ctx.Err() != nil {
				w.abort()
			}
			return w, nil
		},
	}
	if c.cfg.TLS != nil {
		cfg.TLSClientConfig = c.cfg.TLS.Clone()
	}
	stop := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		if !finished && w != nil {
			w.abort()
		}
	})
	ac, err := amqp.DialConfig(url, cfg)
	mu.Lock()
	finished = true
	mu.Unlock()
	stop()
	if err != nil {
		if w != nil {
			w.abort()
		}
		return nil, nil, errors.Join(err, context.Cause(ctx))
	}
	return ac, w, nil
}

// watch ends the session with either connection and follows alarms. Its
// goroutines do nothing else, since the library's reader waits for them; they
// end with the connections.
func (s *session) watch(c *conn) {
	for _, ac := range []*amqp.Connection{s.consume, s.publish} {
		closed := ac.NotifyClose(make(chan *amqp.Error, 1))
		go func() {
			if e, ok := <-closed; ok {
				s.end(e)
			} else {
				s.end(amqp.ErrClosed)
			}
		}()
	}
	blocked := s.publish.NotifyBlocked(make(chan amqp.Blocking, 16))
	go func() {
		for b := range blocked {
			s.blocked.Store(b.Active)
			if b.Active {
				c.opts.Logger.Warn("the broker does not take messages", "conn", c.opts.Name, "reason", b.Reason)
			} else {
				c.opts.Logger.Info("the broker takes messages again", "conn", c.opts.Name)
			}
			if c.live.Load() == s {
				c.refresh()
			}
		}
	}()
}

func (s *session) end(err error) {
	s.once.Do(func() {
		s.err = err
		close(s.over)
	})
}

func (s *session) reason() error {
	<-s.over
	return s.err
}

// close ends both connections. Unconfirmed messages that were handed over
// before are processed by the broker first: closing their channel waits.
func (s *session) close() {
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.AfterFunc(closeTime, s.wires[1].abort)
		defer t.Stop()
		if !s.blocked.Load() {
			s.plain.close()
			s.confirmed.close()
		}
		_ = s.publish.CloseDeadline(time.Now().Add(closeTime))
	})
	wg.Go(func() {
		_ = s.consume.CloseDeadline(time.Now().Add(closeTime))
	})
	wg.Wait()
	s.abort()
	s.end(amqp.ErrClosed)
}

// abort closes the sockets at once.
func (s *session) abort() {
	for _, w := range s.wires {
		if w != nil {
			w.abort()
		}
	}
}

// within runs f, which talks to the broker and knows no context, and gives up
// waiting for it when ctx or the session ends. f goes on until its answer
// comes or the session ends.
func (s *session) within(ctx context.Context, f func() error) error {
	result := make(chan error, 1)
	go func() { result <- f() }()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", broker.ErrUnavailable, ctx.Err())
	}
}
