package session_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/lock/internal/session"
)

const ttl = 10 * time.Second

var errNetwork = errors.New("the network is down")

// provider is one in memory whose answers can be made to fail.
type provider struct {
	mu       sync.Mutex
	tokens   uint64
	held     []string
	fail     error // of every request; what is asked for is done all the same
	renewals int
	ends     int
	hang     bool // requests do not come back
}

func (p *provider) do(ctx context.Context, f func()) error {
	p.mu.Lock()
	hang := p.hang
	p.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	return p.fail
}

func (p *provider) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

func (p *provider) Renew(ctx context.Context) error {
	return p.do(ctx, func() { p.renewals++ })
}

func (p *provider) TryLock(ctx context.Context, name string) (token uint64, err error) {
	err = p.do(ctx, func() {
		p.tokens++
		token = p.tokens
		p.held = append(p.held, name)
	})
	return token, err
}

func (p *provider) Lock(ctx context.Context, name string) (uint64, error) {
	return p.TryLock(ctx, name)
}

func (p *provider) Release(ctx context.Context, name string, _ uint64) error {
	return p.Forget(ctx, name)
}

func (p *provider) Forget(ctx context.Context, name string) error {
	return p.do(ctx, func() {
		if p.fail == nil {
			p.held = slices.DeleteFunc(p.held, func(n string) bool { return n == name })
		}
	})
}

func (p *provider) Held(ctx context.Context) (names []string, err error) {
	err = p.do(ctx, func() { names = slices.Clone(p.held) })
	return names, err
}

func (p *provider) End(ctx context.Context) error {
	return p.do(ctx, func() { p.ends++ })
}

func (p *provider) holds(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.held, name)
}

// run runs a test on a virtual clock.
func run(t *testing.T, f func(t *testing.T, p *provider, s *session.Session)) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{}
		c, err := lock.SessionConfig{Owner: "test", TTL: ttl}.WithDefaults()
		if err != nil {
			t.Fatal(err)
		}
		s := session.Start(c, time.Now(), p)
		f(t, p, s)
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if p.ends != 1 {
			t.Errorf("the session was ended %d times", p.ends)
		}
	})
}

func isLost(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestASessionIsRenewedUntilItIsClosed(t *testing.T) {
	run(t, func(t *testing.T, p *provider, s *session.Session) {
		<-time.After(10 * ttl)
		synctest.Wait()
		if isLost(s.Lost()) || p.renewals < 29 || p.renewals > 31 {
			t.Errorf("%d renewals in ten times the TTL, lost: %v", p.renewals, isLost(s.Lost()))
		}
	})
}

// The deadline counts from when the last renewal was sent, and comes a little
// before the TTL is over.
func TestASilentSessionIsLostBeforeItsTTL(t *testing.T) {
	for what, hang := range map[string]bool{"errors": false, "no answers": true} {
		t.Run(what, func(t *testing.T) {
			run(t, func(t *testing.T, p *provider, s *session.Session) {
				l, err := s.TryLock(t.Context(), "name")
				if err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				p.set(func() { p.fail, p.hang = errNetwork, hang })
				<-l.Lost()
				if took := time.Since(begin); took < ttl*9/10 || took >= ttl {
					t.Errorf("lost after %v", took)
				}
				p.set(func() { p.fail, p.hang = nil, false })
				<-time.After(2 * ttl)
				if !isLost(s.Lost()) {
					t.Error("it is open again")
				}
				p.set(func() { p.ends = min(p.ends, 1) }) // tried while the network was down, perhaps
				if p.ends == 0 {
					p.ends = 1
				}
			})
		})
	}
}

// One renewal that fails is not the end.
func TestARenewalIsRepeated(t *testing.T) {
	run(t, func(t *testing.T, p *provider, s *session.Session) {
		p.set(func() { p.hang = true })
		<-time.After(ttl * 6 / 10)
		p.set(func() { p.hang = false })
		<-time.After(ttl)
		if isLost(s.Lost()) {
			t.Error("the session is lost")
		}
	})
}

// A process that was stopped learns that its session is over when it asks, not
// when its timers come to run.
func TestTheFirstQuestionAfterAPauseIsAnsweredRightly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{}
		var paused time.Duration
		c, _ := lock.SessionConfig{Owner: "test", TTL: ttl, Now: func() time.Time { return time.Now().Add(paused) }}.WithDefaults()
		s := session.Start(c, c.Now(), p)
		l, err := s.TryLock(t.Context(), "name")
		if err != nil || isLost(l.Lost()) {
			t.Fatal(err)
		}
		paused = ttl
		if !isLost(l.Lost()) || !isLost(s.Lost()) {
			t.Error("it is not lost")
		}
		if _, err := s.TryLock(t.Context(), "other"); !errors.Is(err, lock.ErrLost) {
			t.Errorf("TryLock: %v", err)
		}
		if err := l.Release(t.Context()); !errors.Is(err, lock.ErrNotHolder) {
			t.Errorf("Release: %v", err)
		}
		_ = s.Close(t.Context())
	})
}

// What a request whose answer was lost has done is undone, and until then nobody
// of the session gets the name.
func TestAnUnknownOutcomeIsUndone(t *testing.T) {
	run(t, func(t *testing.T, p *provider, s *session.Session) {
		p.set(func() { p.fail = errNetwork })
		if _, err := s.TryLock(t.Context(), "name"); !errors.Is(err, errNetwork) {
			t.Fatal(err)
		}
		if _, err := s.TryLock(t.Context(), "name"); !errors.Is(err, lock.ErrHeld) {
			t.Errorf("while it is undone: %v", err)
		}
		if !p.holds("name") {
			t.Fatal("nothing is to be undone")
		}
		p.set(func() { p.fail = nil })
		l, err := s.Lock(t.Context(), "name") // waits for that
		if err != nil {
			t.Fatal(err)
		}
		// So is a release.
		p.set(func() { p.fail = errNetwork })
		if err := l.Release(t.Context()); !errors.Is(err, errNetwork) {
			t.Errorf("Release: %v", err)
		}
		p.set(func() { p.fail = nil })
		<-time.After(ttl / 2)
		if p.holds("name") {
			t.Error("it is not released")
		}
	})
}

// A request that takes effect after the one that was to undo it is found.
func TestALateRequestIsUndone(t *testing.T) {
	run(t, func(t *testing.T, p *provider, s *session.Session) {
		kept, err := s.TryLock(t.Context(), "kept")
		if err != nil {
			t.Fatal(err)
		}
		p.set(func() { p.hang = true })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.TryLock(ctx, "name"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		p.set(func() { p.hang = false })
		<-time.After(time.Second) // it is forgotten
		p.set(func() { p.held = append(p.held, "name") })
		<-time.After(2 * ttl)
		if p.holds("name") || !p.holds("kept") || isLost(kept.Lost()) {
			t.Errorf("the provider keeps %v", p.held)
		}
	})
}

func TestASessionThatTheProviderHasEndedIsLost(t *testing.T) {
	run(t, func(t *testing.T, p *provider, s *session.Session) {
		p.set(func() { p.fail = lock.ErrLost })
		if _, err := s.TryLock(t.Context(), "name"); !errors.Is(err, lock.ErrLost) {
			t.Fatal(err)
		}
		if !isLost(s.Lost()) {
			t.Error("it is not lost")
		}
	})
}
