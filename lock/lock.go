package lock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
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
	// Now is the clock by which the session judges how long ago it was renewed;
	// nil is time.Now. Only differences between its readings count, which
	// time.Time takes by the monotonic clock: whatever the wall clock does, a
	// session lives as long as it would have.
	Now func() time.Time
}

// WithDefaults fills in what was left out, or says which setting breaks which
// rule (ErrInvalid).
func (c SessionConfig) WithDefaults() (SessionConfig, error) {
	if c.TTL == 0 {
		c.TTL = DefaultTTL
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.TTL < MinTTL {
		return c, fmt.Errorf("%w: TTL is %v, below the least of %v", ErrInvalid, c.TTL, MinTTL)
	}
	if err := checkText("owner", c.Owner, true); err != nil {
		return c, err
	}
	return c, nil
}

// CheckName returns ErrInvalid for what cannot be the name of a lease.
func CheckName(name string) error { return checkText("name", name, false) }

func checkText(what, text string, spaces bool) error {
	switch {
	case text == "":
		return fmt.Errorf("%w: %s is empty", ErrInvalid, what)
	case len(text) > MaxNameBytes:
		return fmt.Errorf("%w: %s has %d bytes, more than %d", ErrInvalid, what, len(text), MaxNameBytes)
	case !utf8.ValidString(text):
		return fmt.Errorf("%w: %s is not UTF-8", ErrInvalid, what)
	case strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' && !spaces }):
		return fmt.Errorf("%w: %s %q has a character that it must not have", ErrInvalid, what, text)
	}
	return nil
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
	// TryLock takes the lease of a name, or returns ErrHeld at once, also when
	// others are waiting for it. A name has 1 to MaxNameBytes bytes of printable
	// text without spaces. After any other error but ErrLost the provider may
	// have granted the lease all the same; the session then gives it back in the
	// background.
	TryLock(ctx context.Context, name string) (Lease, error)
	// Lock waits for the lease of a name. Those who wait get it in the order in
	// which they came, as far as the provider says so in its own documentation.
	// A session has one place in that order for each name, however many of its
	// goroutines wait. When ctx ends, the session no longer waits.
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
