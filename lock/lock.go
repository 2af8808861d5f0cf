package lock

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

var (
	// ErrHeld: another session, or this one, holds the lease.
	ErrHeld = errors.New("lease is held")
	// ErrLost: the session has ended, or is no longer sure that it has not.
	ErrLost = errors.New("lock session lost")
	// ErrNotHolder: the lease is not held by whoever wants to release it.
	ErrNotHolder = errors.New("not the holder of the lease")
	// ErrInvalid: a name or a setting breaks a rule of the port.
	ErrInvalid = errors.New("invalid lock name or setting")
)

// Limits of what providers take.
const (
	MaxNameBytes = 255
	DefaultTTL   = 5 * time.Second
	MinTTL       = time.Second
)

// SessionConfig says how to open a session.
type SessionConfig struct {
	// Owner is who opens it, for people: at most MaxNameBytes of printable
	// text. Required. Two sessions of one owner are two sessions.
	Owner string
	// TTL is how long the provider keeps the leases of a session that it does
	// not hear of; at least MinTTL; default DefaultTTL.
	TTL time.Duration
	// Logger gets what an operator should know; nil discards.
	Logger *slog.Logger
}

// Provider keeps leases. It is safe for concurrent use.
type Provider interface {
	// Open begins a session. It returns once the provider knows of it.
	Open(ctx context.Context, c SessionConfig) (Session, error)
	// Close lets go of connections. Sessions must have been closed before.
	Close() error
}

// Session holds leases, and renews all of them together. It is safe for
// concurrent use.
type Session interface {
	// TryLock takes the lease of a name, or returns ErrHeld at once. A name has
	// 1 to MaxNameBytes bytes of printable text without spaces.
	TryLock(ctx context.Context, name string) (Lease, error)
	// Lock waits for the lease of a name. Those who wait get it in the order in
	// which they came, as far as the provider says so in its own documentation.
	// When ctx ends, the session no longer waits.
	Lock(ctx context.Context, name string) (Lease, error)
	// Lost is closed as soon as the session may have ended: the provider said
	// so, or so much time has passed since the last renewal was sent, by the
	// monotonic clock, that it may be over at the provider. It is never opened
	// again: open another session.
	Lost() <-chan struct{}
	// Close releases all leases and ends the session. It is idempotent.
	Close(ctx context.Context) error
}

// Lease is the lease of one name, held by one session.
type Lease interface {
	Name() string
	// Token is the fencing token: higher than the token of every earlier lease
	// of the name.
	Token() uint64
	// Lost is closed when the lease is no longer held: it was released, taken
	// away, or its session is lost.
	Lost() <-chan struct{}
	// Release gives the lease back: ErrNotHolder if it is held no longer. What
	// is known to be lost is never released in the name of another.
	Release(ctx context.Context) error
}
