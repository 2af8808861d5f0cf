package session

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ringmaster-dev/ringmaster/lock"
)

// Backend is what a provider does for one session. Errors that wrap lock.ErrLost
// say that the provider no longer knows the session, and end it; after any other
// error the outcome is unknown.
type Backend interface {
	// Renew has the provider keep the session for another TTL.
	Renew(ctx context.Context) error
	// TryLock takes a lease and returns its token, or lock.ErrHeld. If the
	// session holds it already, because an earlier answer was lost, its token
	// is returned.
	TryLock(ctx context.Context, name string) (token uint64, err error)
	// Lock is TryLock that waits. Who has a place among those who wait keeps it
	// when requests fail, and repeats them: see Pause.
	Lock(ctx context.Context, name string) (token uint64, err error)
	// Release gives a lease back, or returns lock.ErrNotHolder.
	Release(ctx context.Context, name string, token uint64) error
	// Forget gives back the lease of a name, whatever its token, and the place
	// of the session among those who wait for it.
	Forget(ctx context.Context, name string) error
	// Held lists the names whose leases the provider keeps for the session, if
	// it can happen there that a request takes effect after one that was sent
	// later; else nothing.
	Held(ctx context.Context) ([]string, error)
	// End releases everything and ends the session. It is called once, also when
	// the session is lost.
	End(ctx context.Context) error
}

// Session implements lock.Session.
type Session struct {
	cfg      lock.SessionConfig
	backend  Backend
	ctx      context.Context // ends, with lock.ErrLost, when the session is lost
	cancel   context.CancelCauseFunc
	watch    *time.Timer // goes off when the deadline may have passed
	closing  sync.Once
	closed   error // what closing returned
	backgrnd sync.WaitGroup

	mu       sync.Mutex
	deadline time.Time
	ended    bool
	doubtful int // for how many renewals more to look for leases that nobody knows of
	places   map[string]*place
	leases   map[string]*Lease
}

// place is where the goroutines of this session queue for one name: at most one
// of them deals with the provider or holds the lease.
type place struct {
	turn  chan struct{} // holds a value while somebody has it
	users int           // who has it or waits for it; at zero the place goes
}

// Pause waits before a request of a waiter is repeated that has failed with err. It
// returns an error when that is of no use: ctx has ended, or the session has.
func Pause(ctx context.Context, err error) error {
	if errors.Is(err, lock.ErrLost) {
		return err
	}
	timer := time.NewTimer(100 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Start makes a session of what a provider has opened. The configuration has its
// defaults; opened is the time, by its clock, just before the request was sent
// that opened the session.
func Start(cfg lock.SessionConfig, opened time.Time, b Backend) *Session {
	s := &Session{cfg: cfg, backend: b, places: map[string]*place{}, leases: map[string]*Lease{}}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.deadline = opened.Add(s.sure())
	s.watch = time.AfterFunc(s.deadline.Sub(cfg.Now()), s.expire)
	s.backgrnd.Go(s.keep)
	return s
}

// sure is for how long after it was renewed the session is surely alive.
func (s *Session) sure() time.Duration { return s.cfg.TTL - s.cfg.TTL/20 }

// keep renews until the session is over.
func (s *Session) keep() {
	wait, failed := s.cfg.TTL/3, false
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-timer.C:
		}
		// An attempt that hangs leaves time for another.
		ctx, cancel := context.WithTimeout(s.ctx, s.cfg.TTL/4)
		err := s.Renew(ctx)
		cancel()
		switch {
		case err == nil:
			s.audit()
			wait, failed = s.cfg.TTL/3, false
		case errors.Is(err, lock.ErrLost):
			s.Lose(err)
			return
		case s.ctx.Err() == nil:
			if !failed {
				s.cfg.Logger.Warn("a lock session was not renewed, trying on", "owner", s.cfg.Owner, "error", err)
			}
			wait, failed = s.cfg.TTL/20, true
		}
		timer.Reset(wait)
	}
}

// Renew renews the session now.
func (s *Session) Renew(ctx context.Context) error {
	sent := s.cfg.Now()
	if err := s.backend.Renew(ctx); err != nil {
		return err
	}
	s.extend(sent)
	return nil
}

// extend moves the deadline after a renewal that was sent at that time.
func (s *Session) extend(sent time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := sent.Add(s.sure()); !s.ended && d.After(s.deadline) {
		s.deadline = d
		s.watch.Reset(d.Sub(s.cfg.Now()))
	}
}

// expire runs when the deadline may have passed.
func (s *Session) expire() {
	if !s.Alive() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		// The timer has its own idea of time. Not at once, whatever the clock says.
		s.watch.Reset(max(s.deadline.Sub(s.cfg.Now()), time.Millisecond))
	}
}

// Alive reports whether the session is surely alive, and ends it if it is not.
func (s *Session) Alive() bool {
	s.mu.Lock()
	ended, over := s.ended, !s.cfg.Now().Before(s.deadline)
	s.mu.Unlock()
	if over && !ended {
		s.Lose(fmt.Errorf("%w: not renewed for %v", lock.ErrLost, s.sure()))
	}
	return !ended && !over
}

// Lose ends the session; the cause wraps lock.ErrLost. What the provider may still
// keep for it is given up in the background, so that others need not wait.
func (s *Session) Lose(cause error) {
	if s.end(cause, true) {
		s.cfg.Logger.Error("a lock session is lost", "owner", s.cfg.Owner, "error", cause)
	}
}

// end ends the session here, and in the background at the provider if told so.
func (s *Session) end(cause error, background bool) (first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.ended = true
	s.watch.Stop()
	for _, l := range s.leases {
		close(l.lost)
	}
	clear(s.leases)
	s.cancel(cause)
	if background {
		s.backgrnd.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), s.cfg.TTL)
			defer cancel()
			if err := s.backend.End(ctx); err != nil {
				s.cfg.Logger.Debug("a lost lock session was not ended at its provider", "owner", s.cfg.Owner, "error", err)
			}
		})
	}
	return true
}

// LoseLease ends one lease here, if the session holds it under that token.
func (s *Session) LoseLease(name string, token uint64) {
	if s.drop(name, token) {
		s.cfg.Logger.Error("a lease is lost", "owner", s.cfg.Owner, "name", name, "token", token)
		s.leave(name)
	}
}

// drop removes a lease from the books.
func (s *Session) drop(name string, token uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.leases[name]
	if !ok || l.token != token {
		return false
	}
	delete(s.leases, name)
	close(l.lost)
	return true
}

// Lost implements lock.Session.
func (s *Session) Lost() <-chan struct{} {
	s.Alive()
	return s.ctx.Done()
}

// TryLock implements lock.Session.
func (s *Session) TryLock(ctx context.Context, name string) (lock.Lease, error) {
	if err := lock.CheckName(name); err != nil {
		return nil, err
	}
	if !s.Alive() {
		return nil, fmt.Errorf("taking the lease of %s: %w", name, context.Cause(s.ctx))
	}
	select {
	case s.enter(name) <- struct{}{}:
	default:
		s.exit(name)
		return nil, fmt.Errorf("taking the lease of %s: %w", name, lock.ErrHeld)
	}
	return s.acquire(ctx, name, s.backend.TryLock)
}

// Lock implements lock.Session.
func (s *Session) Lock(ctx context.Context, name string) (lock.Lease, error) {
	if err := lock.CheckName(name); err != nil {
		return nil, err
	}
	select {
	case s.enter(name) <- struct{}{}:
	case <-s.Lost():
		s.exit(name)
		return nil, fmt.Errorf("waiting for the lease of %s: %w", name, context.Cause(s.ctx))
	case <-ctx.Done():
		s.exit(name)
		return nil, fmt.Errorf("waiting for the lease of %s: %w", name, ctx.Err())
	}
	return s.acquire(ctx, name, s.backend.Lock)
}

// acquire asks the provider. The caller has the turn for the name.
func (s *Session) acquire(ctx context.Context, name string, ask func(context.Context, string) (uint64, error)) (lock.Lease, error) {
	bound, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(context.Cause(s.ctx)) })()

	if !s.Alive() {
		s.leave(name)
		return nil, fmt.Errorf("taking the lease of %s: %w", name, context.Cause(s.ctx))
	}
	token, err := ask(bound, name)
	if errors.Is(err, lock.ErrLost) {
		s.Lose(err)
	}
	if !s.Alive() {
		s.leave(name)
		return nil, fmt.Errorf("taking the lease of %s: %w", name, context.Cause(s.ctx))
	}
	switch {
	case errors.Is(err, lock.ErrHeld):
		s.leave(name)
		return nil, fmt.Errorf("taking the lease of %s: %w", name, lock.ErrHeld)
	case err != nil:
		s.undo(ctx, name)
		return nil, fmt.Errorf("taking the lease of %s: %w", name, err)
	}
	l := &Lease{session: s, name: name, token: token, lost: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil, fmt.Errorf("taking the lease of %s: %w", name, context.Cause(s.ctx))
	}
	s.leases[name] = l
	return l, nil
}

// undo gives back what the provider may have granted, and then the turn. It tries
// once while the caller waits; what fails is tried on in the background.
func (s *Session) undo(ctx context.Context, name string) {
	s.Doubt()
	if s.forget(context.WithoutCancel(ctx), name) {
		s.leave(name)
		return
	}
	s.background(func() {
		defer s.leave(name)
		for {
			select {
			case <-s.ctx.Done():
				return
			case <-time.After(s.cfg.TTL / 20):
			}
			if s.forget(s.ctx, name) {
				return
			}
		}
	})
}

// Doubt has the session look, for some time, for leases that the provider keeps for
// it and that nobody here knows of.
func (s *Session) Doubt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doubtful = doubtfulRenewals
}

// forget asks once; true: there is nothing left to be done.
func (s *Session) forget(ctx context.Context, name string) bool {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.TTL/3)
	defer cancel()
	err := s.backend.Forget(ctx, name)
	if errors.Is(err, lock.ErrLost) {
		s.Lose(err)
	}
	return err == nil || s.ctx.Err() != nil
}

// doubtfulRenewals is for how many renewals a request is feared that was given up
// and may yet take effect: more than three times the TTL.
const doubtfulRenewals = 10

// audit gives back what the provider keeps for the session and nobody here knows
// of: the work of a request that was given up and then overtaken by the one that
// was to undo it.
func (s *Session) audit() {
	s.mu.Lock()
	due := s.doubtful > 0
	s.doubtful -= min(s.doubtful, 1)
	s.mu.Unlock()
	if !due {
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.TTL/3)
	defer cancel()
	names, err := s.backend.Held(ctx)
	if err != nil {
		return // the next renewal comes
	}
	for _, name := range names {
		select {
		case s.enter(name) <- struct{}{}:
			s.background(func() { s.undo(s.ctx, name) })
		default: // somebody has it, or is busy with it
			s.exit(name)
		}
	}
}

// background runs f unless the session has ended, whose leases end with it.
func (s *Session) background(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.backgrnd.Go(f)
	}
}

// enter joins those who want the turn for a name.
func (s *Session) enter(name string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.places[name]
	if p == nil {
		p = &place{turn: make(chan struct{}, 1)}
		s.places[name] = p
	}
	p.users++
	return p.turn
}

// leave gives the turn to the next.
func (s *Session) leave(name string) {
	s.mu.Lock()
	turn := s.places[name].turn
	s.mu.Unlock()
	<-turn
	s.exit(name)
}

// exit leaves without having had the turn, or after it.
func (s *Session) exit(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.places[name]
	if p.users--; p.users == 0 {
		delete(s.places, name)
	}
}

// Close implements lock.Session. Of a session that is lost already it returns no
// error: there is nothing left to release that the provider would not take back
// by itself.
func (s *Session) Close(ctx context.Context) error {
	s.closing.Do(func() {
		first := s.end(fmt.Errorf("%w: it was closed", lock.ErrLost), false)
		quiet := make(chan struct{})
		go func() {
			s.backgrnd.Wait()
			close(quiet)
		}()
		select {
		case <-quiet:
		case <-ctx.Done(): // a provider that hangs; it is left to its timeouts
		}
		if !first {
			return
		}
		if err := s.backend.End(ctx); err != nil {
			s.closed = fmt.Errorf("closing a lock session: %w", err)
		}
	})
	return s.closed
}
