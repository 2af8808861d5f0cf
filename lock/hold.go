package lock

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Hold waits for the lease of a name and calls f while it is held, with its
// fencing token. The context of f ends when the lease is lost, with a cause that
// wraps ErrLost; if f returns an error then, so does that of Hold. What f has
// done before it noticed may overlap with the next holder: pass the token on to
// whatever can refuse a lower one than it has seen.
func Hold(ctx context.Context, s Session, name string, f func(ctx context.Context, token uint64) error) error {
	l, err := s.Lock(ctx, name)
	if err != nil {
		return err
	}
	held, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-l.Lost():
			cancel(fmt.Errorf("the lease of %s: %w", name, ErrLost))
		case <-held.Done():
		}
	}()
	defer func() {
		cancel(nil) // also when f panics
		<-watched
		// What cannot be released now is given back in the background, or lost.
		_ = l.Release(context.WithoutCancel(ctx))
	}()
	if err = f(held, l.Token()); err == nil {
		return nil
	}
	if cause := context.Cause(held); errors.Is(cause, ErrLost) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// Holder keeps a session open for those who hold leases for a while, such as the
// handlers of a worker, and opens another when it is lost. It is safe for
// concurrent use.
type Holder struct {
	provider Provider
	config   SessionConfig

	opening chan struct{} // holds a value while somebody opens a session

	mu      sync.Mutex
	session Session
	closed  bool
}

// NewHolder makes a holder. It opens its session when it is first needed.
func NewHolder(p Provider, c SessionConfig) *Holder {
	return &Holder{provider: p, config: c, opening: make(chan struct{}, 1)}
}

// Hold is the function Hold in the holder's session.
func (h *Holder) Hold(ctx context.Context, name string, f func(ctx context.Context, token uint64) error) error {
	s, err := h.Session(ctx)
	if err != nil {
		return err
	}
	return Hold(ctx, s, name, f)
}

// Session returns a session that was not lost just now. It is the holder's to
// close.
func (h *Holder) Session(ctx context.Context) (Session, error) {
	select {
	case h.opening <- struct{}{}:
		defer func() { <-h.opening }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	h.mu.Lock()
	s, closed := h.session, h.closed
	h.mu.Unlock()
	switch {
	case closed:
		return nil, fmt.Errorf("%w: the holder was closed", ErrLost)
	case s != nil && !lost(s):
		return s, nil
	case s != nil:
		_ = s.Close(ctx) // it is lost, and has nothing left to release
	}
	s, err := h.provider.Open(ctx, h.config)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.session = s
	return s, nil
}

func lost(s Session) bool {
	select {
	case <-s.Lost():
		return true
	default:
		return false
	}
}

// Close ends the session, and with it whatever is still held. The holder is of no
// use after it; it is idempotent.
func (h *Holder) Close(ctx context.Context) error {
	select {
	case h.opening <- struct{}{}:
		defer func() { <-h.opening }()
	case <-ctx.Done():
		return ctx.Err()
	}
	h.mu.Lock()
	s := h.session
	h.session, h.closed = nil, true
	h.mu.Unlock()
	if s == nil {
		return nil
	}
	return s.Close(ctx)
}
