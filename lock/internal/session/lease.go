package session

import (
	"context"
	"errors"
	"fmt"

	"github.com/ringmaster-dev/ringmaster/lock"
)

// Lease implements lock.Lease.
type Lease struct {
	session *Session
	name    string
	token   uint64
	lost    chan struct{} // closed under the session's mutex, when the lease leaves its books
}

// Name implements lock.Lease.
func (l *Lease) Name() string { return l.name }

// Token implements lock.Lease.
func (l *Lease) Token() uint64 { return l.token }

// Lost implements lock.Lease.
func (l *Lease) Lost() <-chan struct{} {
	l.session.Alive()
	return l.lost
}

// Release implements lock.Lease. The lease is over here before the provider is
// asked, so that nobody relies on it while the answer is on its way. If the
// answer does not come, the session goes on trying in the background.
func (l *Lease) Release(ctx context.Context) error {
	s := l.session
	s.Alive()
	if !s.drop(l.name, l.token) {
		return fmt.Errorf("releasing the lease of %s: %w", l.name, lock.ErrNotHolder)
	}
	err := s.backend.Release(ctx, l.name, l.token)
	switch {
	case err == nil, errors.Is(err, lock.ErrNotHolder):
		s.leave(l.name)
	case errors.Is(err, lock.ErrLost):
		s.Lose(err)
		s.leave(l.name)
		err = lock.ErrNotHolder
	default:
		s.undo(ctx, l.name)
	}
	if err != nil {
		return fmt.Errorf("releasing the lease of %s: %w", l.name, err)
	}
	return nil
}
