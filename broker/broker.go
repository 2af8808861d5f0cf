// Package broker is the port to a message broker.
//
// The engine and the workers need little of one: exclusive queues that may
// vanish, mandatory publishes that come back when nobody can receive them, a
// fanout for heartbeats, and one durable shared queue for requests. [Broker]
// and [Conn] say just that. Implementations are in broker/rabbit and
// broker/memory; broker/brokertest is the suite that both pass.
//
// A Conn hides reconnection: subscriptions are declared again after an outage,
// and an acknowledgement can never reach a message of an earlier connection.
// What a Conn does not hide is loss. A message published without confirmation
// may be lost with the connection; whoever cannot bear that uses
// [Conn.PublishConfirmed] or, as the engine does, learns of it from heartbeats.
package broker

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	// ErrUnavailable: there is no connection now (or it is blocked by the
	// broker); the message was not sent.
	ErrUnavailable = errors.New("broker unavailable")
	// ErrUnroutable: a mandatory, confirmed message had no queue to go to.
	ErrUnroutable = errors.New("message unroutable")
	// ErrUnconfirmed: the connection was lost or the context ended before the
	// broker confirmed; whether it has the message is unknown.
	ErrUnconfirmed = errors.New("message unconfirmed")
	// ErrRejected: the broker refused the message (nack); it does not have it.
	ErrRejected = errors.New("message rejected")
	// ErrClosed: the Conn was closed by its user.
	ErrClosed = errors.New("broker connection closed")
)

// Message is what is published and delivered.
type Message struct {
	Exchange string // "" is the default exchange: Key names a queue
	Key      string

	// Mandatory asks for the message back (Options.OnReturn) when it cannot be
	// routed to any queue.
	Mandatory bool
	// Persistent asks the broker to keep the message on disk.
	Persistent bool

	ID            string
	CorrelationID string
	Type          string
	ContentType   string
	AppID         string
	// Headers hold only string, int64, bool and []byte values. Nil is empty.
	Headers map[string]any
	Body    []byte
}

// State is the condition of a Conn.
type State int

// The states of a Conn.
const (
	StateConnected State = iota + 1
	StateDisconnected
	StateBlocked // the broker does not read publishes (memory or disk alarm)
)

// Options are set by whoever opens a Conn. The zero value works.
type Options struct {
	// Name is shown in the broker's management tools.
	Name string
	// OnReturn is called for every unconfirmed mandatory message that came
	// back unrouted. It must not block. Nil ignores returns.
	OnReturn func(Message)
	// OnState is called when the condition changes, after subscriptions are
	// in place on StateConnected. It must not block. Nil ignores it.
	OnState func(State)
	// Logger is used for connection events; nil discards.
	Logger *slog.Logger
	// Registerer takes the implementation's metrics; nil keeps none.
	Registerer prometheus.Registerer
}

// Broker opens connections to one message broker.
type Broker interface {
	// Open returns a Conn. It waits for the first connection until ctx ends;
	// after that the Conn reconnects on its own until it is closed.
	Open(ctx context.Context, o Options) (Conn, error)
}

// ExchangeKind is how an exchange routes.
type ExchangeKind string

// The kinds of exchange that are used.
const (
	Direct ExchangeKind = "direct"
	Fanout ExchangeKind = "fanout"
)

// Exchange is declared durable, before a subscription binds to it or when
// given to [Conn.Declare].
type Exchange struct {
	Name string
	Kind ExchangeKind
}

// QueueKind is how long a queue lives and how it keeps messages.
type QueueKind int

const (
	// Exclusive queues belong to one subscription on one connection, are kept
	// in memory and vanish with that connection. Their name is made anew for
	// every connection: Subscription.OnDeclared tells it.
	Exclusive QueueKind = iota + 1
	// Shared queues are durable and replicated where the broker can (RabbitMQ:
	// quorum queues), and feed any number of consumers.
	Shared
)

// Binding routes messages of an exchange to the subscription's queue.
type Binding struct {
	Exchange Exchange
	Keys     []string // ignored by a fanout; then nil is one binding
}

// Subscription says what to consume and how. The Conn declares it again after
// every reconnect.
type Subscription struct {
	// Queue is the name of a Shared queue, or the prefix of an Exclusive one's.
	Queue    string
	Kind     QueueKind
	Bindings []Binding
	// NoAck has the broker forget messages as it sends them. Otherwise each
	// delivery must be settled.
	NoAck bool
	// Prefetch bounds unsettled deliveries; 0 is 1,000. Ignored with NoAck.
	Prefetch int
	// OnDeclared is called with the queue's actual name after each declaration
	// and before the first delivery from it, from the Handler's goroutine.
	OnDeclared func(queue string)
	// Handler is called in order of arrival from one goroutine per
	// subscription. It may block; then the broker is not read for this
	// subscription. It must not keep Message.Body or Headers after it returned
	// unless it does not change them.
	Handler func(Delivery)
}

// Delivery is one message of a subscription.
type Delivery struct {
	Message
	Redelivered bool
	// Settle tells the broker that the message is done (ok) or is to be
	// delivered again (!ok). It is nil with NoAck; a second call, or one after
	// the connection was lost, does nothing. Safe for concurrent use; does not
	// block on the network.
	Settle func(ok bool)
}

// Consumer is a running subscription. It is safe for concurrent use.
type Consumer interface {
	// Bind routes an exchange's messages to the subscription's queue, besides
	// what is routed there already; the exchange is declared. It returns once
	// the broker has done it, or, while there is no connection, at once: the
	// binding is remembered and made with the queue, now and after every
	// reconnect. Binding what is bound changes nothing. Many keys in one
	// Binding cost little more than one; calls for one subscription take
	// turns, so put together what goes together.
	//
	// After an error nothing is remembered, unless it wraps ctx's: then the
	// binding may be made, now or later. ErrInvalid tells of a Binding that
	// breaks a rule, ErrClosed of a subscription that has been stopped. It may
	// be called from the Handler.
	Bind(ctx context.Context, b Binding) error
	// Unbind ends what Bind or Subscription.Bindings began, in the same way;
	// Exchange and Keys say what, and a fanout has only one binding. Messages
	// that are in the queue are still delivered. Unbinding what is not bound
	// changes nothing.
	Unbind(ctx context.Context, b Binding) error
	// Stop ends deliveries, waits for a Handler call in progress, and drops an
	// Exclusive queue. Unsettled deliveries go back to a Shared queue.
	Stop(ctx context.Context) error
}

// Conn is a connection to the broker that outlives outages. It is safe for
// concurrent use.
type Conn interface {
	// Declare makes exchanges and Shared queues that publishes need; they are
	// declared again after every reconnect.
	Declare(ctx context.Context, exchanges []Exchange, sharedQueues []string) error
	// Publish hands the messages over in order without waiting for the broker.
	// ErrUnavailable means that none of them, or only a prefix of them, was
	// sent; nil does not mean that they arrived. It may block for a bounded
	// time on a slow socket (never longer than the write deadline).
	Publish(ctx context.Context, msgs ...Message) error
	// PublishConfirmed returns nil once the broker has taken responsibility
	// for the message; see the errors of this package for the rest.
	PublishConfirmed(ctx context.Context, m Message) error
	// Subscribe starts a subscription. It returns once the queue is declared.
	Subscribe(ctx context.Context, s Subscription) (Consumer, error)
	// State is the present condition.
	State() State
	// Close stops all subscriptions and closes the connection.
	Close(ctx context.Context) error
}

// WriteDeadline bounds how long a write to a broker's socket may hang before
// the connection counts as lost.
const WriteDeadline = 10 * time.Second
