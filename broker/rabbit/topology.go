package rabbit

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ringmaster-dev/ringmaster/broker"
)

// topology is what was declared on a Conn and is declared again in every
// session.
type topology struct {
	exchanges map[string]broker.ExchangeKind
	queues    map[string]struct{}
}

func (t *topology) add(exchanges []broker.Exchange, queues []string) {
	for _, x := range exchanges {
		t.exchanges[x.Name] = x.Kind
	}
	for _, q := range queues {
		t.queues[q] = struct{}{}
	}
}

func (t *topology) list() (exchanges []broker.Exchange, queues []string) {
	for name, kind := range t.exchanges {
		exchanges = append(exchanges, broker.Exchange{Name: name, Kind: kind})
	}
	for name := range t.queues {
		queues = append(queues, name)
	}
	return exchanges, queues
}

// Declare implements broker.Conn.
func (c *conn) Declare(ctx context.Context, exchanges []broker.Exchange, sharedQueues []string) error {
	for _, x := range exchanges {
		if err := checkExchange(x); err != nil {
			return err
		}
	}
	for _, q := range sharedQueues {
		if err := broker.CheckName("queue", q); err != nil {
			return err
		}
	}
	s, err := c.session(ctx)
	if err != nil {
		return fmt.Errorf("declaring: %w", err)
	}
	if err := s.declare(ctx, exchanges, sharedQueues); err != nil {
		return err
	}
	c.mu.Lock()
	c.topology.add(exchanges, sharedQueues)
	c.mu.Unlock()
	return nil
}

func checkExchange(x broker.Exchange) error {
	if x.Name == "" {
		return fmt.Errorf("%w: an exchange needs a name", broker.ErrInvalid)
	}
	if x.Kind != broker.Direct && x.Kind != broker.Fanout {
		return fmt.Errorf("%w: exchange %s: kind %q is not known; direct and fanout are", broker.ErrInvalid, x.Name, x.Kind)
	}
	return broker.CheckName("exchange", x.Name)
}

// declare works on a channel of its own, since a refused declaration closes
// the channel, and on the consuming connection, which is never blocked.
func (s *session) declare(ctx context.Context, exchanges []broker.Exchange, queues []string) error {
	return s.within(ctx, func() error {
		ch, err := s.consume.Channel()
		if err != nil {
			return s.lost("declaring", err)
		}
		defer func() { _ = ch.Close() }()
		for _, x := range exchanges {
			if err := s.declareExchange(ch, x); err != nil {
				return err
			}
		}
		for _, q := range queues {
			if err := s.declareShared(ch, q); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *session) declareExchange(ch *amqp.Channel, x broker.Exchange) error {
	err := ch.ExchangeDeclare(x.Name, string(x.Kind), true, false, false, false, nil)
	return s.explain(err, "exchange", x.Name, fmt.Sprintf("%s, durable", x.Kind))
}

// sharedArgs make a quorum queue. The delivery limit is given because servers
// differ in what they take without one (3.x none, 4.x 20), and a request that
// is dropped at a limit would be lost. It must not differ between versions of
// this program: a queue cannot be declared again with other arguments. The
// number of members is left to the server, whose default is the three that a
// cluster needs, also where one of its nodes is away just then.
func sharedArgs() amqp.Table {
	return amqp.Table{
		amqp.QueueTypeArg:  amqp.QueueTypeQuorum,
		"x-delivery-limit": int64(math.MaxInt32),
	}
}

func (s *session) declareShared(ch *amqp.Channel, name string) error {
	_, err := ch.QueueDeclare(name, true, false, false, false, sharedArgs())
	return s.explain(err, "queue", name, "quorum, durable, x-delivery-limit "+fmt.Sprint(math.MaxInt32))
}

// declareExclusive makes a queue with a name that was never used before: a
// name that a frozen holder still has would be refused until it is given up.
func (s *session) declareExclusive(ch *amqp.Channel, prefix string) (string, error) {
	name := prefix + "." + strings.ToLower(rand.Text()[:16])
	_, err := ch.QueueDeclare(name, false, true, true, false, nil)
	return name, s.explain(err, "queue", name, "exclusive, transient")
}

// explain says what to do about a refused declaration.
func (s *session) explain(err error, what, name, wanted string) error {
	if err == nil {
		return nil
	}
	var ae *amqp.Error
	if !errors.As(err, &ae) {
		return s.lost("declaring "+what+" "+name, err)
	}
	switch ae.Code {
	case amqp.PreconditionFailed:
		return fmt.Errorf("declaring %s %s: the broker has one of this name with other properties (wanted: %s); "+
			"delete it there, once nothing uses it, or choose another namespace: %w", what, name, wanted, err)
	case amqp.AccessRefused:
		return fmt.Errorf("declaring %s %s: the broker's user lacks the permission; give it configure, write and read "+
			"on the names that begin with the namespace: %w", what, name, err)
	}
	return s.lost("declaring "+what+" "+name, err)
}

// lost names what was being done. When the session is over the error is an
// ErrUnavailable, whatever the library made of it.
func (s *session) lost(doing string, err error) error {
	if s.consume.IsClosed() || s.publish.IsClosed() {
		return fmt.Errorf("%s: %w: %w", doing, broker.ErrUnavailable, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
