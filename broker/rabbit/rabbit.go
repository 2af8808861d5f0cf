package rabbit

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ringmaster-dev/ringmaster/broker"
)

// Config says where RabbitMQ is and how to talk to it.
type Config struct {
	// URLs are the addresses (amqp:// or amqps://) of the nodes of one cluster.
	// At least one is needed. Each Conn shuffles them, so that many spread over
	// the nodes. Its first is its home; when that is lost the next one is asked
	// at once, and the one after it when that does not answer for half a
	// second. A node that failed is left alone for a while of its own.
	URLs []string
	// TLS is used for amqps. Nil takes Go's defaults and what the URL says.
	TLS *tls.Config
	// Heartbeat is the interval agreed with the server, whole seconds. A peer
	// that is silent for one and a half of it is lost. 0 is 5 s; negative is an
	// error.
	Heartbeat time.Duration
	// DialTimeout bounds the dial and the handshake with one node. 0 is 10 s.
	DialTimeout time.Duration
	// MinBackoff and MaxBackoff bound the pause between attempts to connect to
	// one node; it doubles, with jitter, from the one to the other. 0 is 50 ms
	// and 5 s.
	MinBackoff, MaxBackoff time.Duration
	// ConfirmTimeout bounds the wait for the answer to a confirmed publish.
	// After it the publish is broker.ErrUnconfirmed, and so is whatever else
	// waits on its channel, which is replaced. 0 is 5 s.
	ConfirmTimeout time.Duration
	// ReturnAfter is how long, give or take half of it, a Conn stays with
	// another node before it goes back to its home, which it dials before it
	// lets go. Without that, a node that was away would have no connections
	// afterwards. 0 is 5 min; negative never.
	ReturnAfter time.Duration
}

func (c Config) withDefaults() Config {
	if c.Heartbeat == 0 {
		c.Heartbeat = 5 * time.Second
	}
	if c.DialTimeout == 0 {
		c.DialTimeout = 10 * time.Second
	}
	if c.MinBackoff == 0 {
		c.MinBackoff = 50 * time.Millisecond
	}
	if c.MaxBackoff == 0 {
		c.MaxBackoff = 5 * time.Second
	}
	if c.ConfirmTimeout == 0 {
		c.ConfirmTimeout = 5 * time.Second
	}
	if c.ReturnAfter == 0 {
		c.ReturnAfter = 5 * time.Minute
	}
	c.URLs = slices.Clone(c.URLs)
	return c
}

func (c Config) validate() error {
	if len(c.URLs) == 0 {
		return errors.New("rabbit: URLs is empty: give at least one amqp:// or amqps:// address")
	}
	for i, u := range c.URLs {
		if _, err := amqp.ParseURI(u); err != nil {
			return fmt.Errorf("rabbit: URLs[%d]: %w", i, err)
		}
	}
	if c.Heartbeat < time.Second {
		return fmt.Errorf("rabbit: Heartbeat is %v; at least 1s is needed", c.Heartbeat)
	}
	if c.DialTimeout < 0 || c.ConfirmTimeout < 0 || c.MinBackoff < 0 || c.MaxBackoff < c.MinBackoff {
		return errors.New("rabbit: DialTimeout, ConfirmTimeout, MinBackoff and MaxBackoff must not be negative, and MinBackoff not above MaxBackoff")
	}
	return nil
}

// Broker opens connections to RabbitMQ. It holds nothing but its
// configuration and is safe for concurrent use.
type Broker struct {
	cfg Config
}

var _ broker.Broker = (*Broker)(nil)

// New checks the configuration. It does not connect.
func New(cfg Config) (*Broker, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Broker{cfg: cfg}, nil
}

// Open connects. It fails early when every node refuses the credentials or the
// virtual host, or shows a certificate that is not trusted, and keeps trying
// until ctx ends otherwise.
func (b *Broker) Open(ctx context.Context, o broker.Options) (broker.Conn, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Name == "" {
		o.Name = "ringmaster"
	}
	m, err := newMetrics(o.Registerer, o.Name)
	if err != nil {
		return nil, err
	}
	c := newConn(b.cfg, o, m)
	go c.supervise()
	select {
	case <-c.first:
		if c.firstErr == nil {
			return c, nil
		}
		err = c.firstErr
	case <-ctx.Done():
		err = fmt.Errorf("%w: connecting: %w", broker.ErrUnavailable, errors.Join(ctx.Err(), c.lastDialError()))
	}
	c.cancel()
	<-c.done
	return nil, err
}
