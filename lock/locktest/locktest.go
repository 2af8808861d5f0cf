package locktest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/lock"
)

// OpenFunc opens a provider from the address of its servers.
type OpenFunc func(ctx context.Context, url string) (lock.Provider, error)

// Config says what is tested.
type Config struct {
	// URL is the address of the servers, their hosts divided by commas.
	URL string
	// Open opens a provider. It must be the function that Main was given.
	Open OpenFunc
	// Waiters tells how many sessions wait for a name, as the servers know it,
	// their holder not counted. Nil: the provider promises no order.
	Waiters func(ctx context.Context, name string) (int, error)
	// End ends the session of an owner at the servers, as an operator would. Nil:
	// that cannot be done.
	End func(ctx context.Context, owner string) error
	// Take removes the lease of a name at the servers. Nil: its holder would not
	// notice.
	Take func(ctx context.Context, name string) error
	// Restart kills the servers and starts them again.
	Restart func(ctx context.Context) error
	// Slack is how much longer than the TTL the servers may keep a session that
	// is silent. Machines under load need some, too.
	Slack time.Duration
}

// How long the suite waits for what must happen soon, on a machine of any speed.
const patience = 30 * time.Second

// Times to live: the shorter one where the end of a session is awaited, the
// longer one where a session must live through something.
const (
	shortTTL = time.Second
	longTTL  = 4 * time.Second
)

// Run runs the suite.
func Run(t *testing.T, c Config) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Config)
	}{
		{"what is invalid is refused", invalid},
		{"one session holds a lease, until it releases it", holdAndRelease},
		{"a lease is released by its holder only", wrongHolder},
		{"a session closes with all that it holds and waits for", closing},
		{"many goroutines and sessions take turns", turns},
		{"those who wait get the lease in order", order},
		{"who gives up waiting is passed over", givingUp},
		{"a killed holder's lease is free after its time", killedHolder},
		{"effects of holders that are killed and stopped never overlap", nemesis},
		{"a silent session is lost here before its leases go there", silence},
		{"a broken connection loses nothing", brokenConnection},
		{"a session that the servers end is lost at once", endedSession},
		{"a lease that the servers take away is lost at once", takenLease},
		{"a jump of the wall clock changes nothing", wallClock},
		{"a restart of the servers loses nothing", restart},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, c) })
	}
}

// provider opens a provider that closes with the test.
func (c Config) provider(t *testing.T, url string) lock.Provider {
	t.Helper()
	p, err := c.Open(t.Context(), url)
	if err != nil {
		t.Fatalf("opening a provider: %v", err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("closing a provider: %v", err)
		}
	})
	return p
}

// session opens a session that closes with the test.
func session(t *testing.T, p lock.Provider, c lock.SessionConfig) lock.Session {
	t.Helper()
	if c.Owner == "" {
		c.Owner = "owner " + rand.Text()[:8]
	}
	s, err := p.Open(t.Context(), c)
	if err != nil {
		t.Fatalf("opening a session: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Errorf("closing a session: %v", err)
		}
	})
	return s
}

// sessions opens n sessions, each on a provider of its own.
func (c Config) sessions(t *testing.T, n int, sc lock.SessionConfig) []lock.Session {
	t.Helper()
	list := make([]lock.Session, n)
	for i := range list {
		list[i] = session(t, c.provider(t, c.URL), sc)
	}
	return list
}

// newName is a name of a lease that nobody else uses.
func newName(what string) string { return what + "/" + strings.ToLower(rand.Text()[:12]) }

func tryLock(t *testing.T, s lock.Session, name string) lock.Lease {
	t.Helper()
	l, err := s.TryLock(t.Context(), name)
	if err != nil {
		t.Fatalf("TryLock: %v", err)
	}
	if l.Name() != name {
		t.Fatalf("the lease of %s has the name %s", name, l.Name())
	}
	return l
}

func mustBeHeld(t *testing.T, s lock.Session, name string) {
	t.Helper()
	if l, err := s.TryLock(t.Context(), name); !errors.Is(err, lock.ErrHeld) {
		t.Fatalf("TryLock of a lease that is held: %v, %v", l, err)
	}
}

// waitLock waits for a lease.
func waitLock(t *testing.T, s lock.Session, name string) lock.Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l, err := s.Lock(ctx, name)
	if err != nil {
		t.Fatalf("Lock: %v", err)
	}
	return l
}

func release(t *testing.T, l lock.Lease) {
	t.Helper()
	if err := l.Release(t.Context()); err != nil {
		t.Fatalf("Release: %v", err)
	}
	mustBeLost(t, "a released lease", l.Lost())
}

// mustBeLost checks that something is lost now.
func mustBeLost(t *testing.T, what string, lost <-chan struct{}) {
	t.Helper()
	select {
	case <-lost:
	default:
		t.Fatalf("%s is not lost", what)
	}
}

// mustNotBeLost checks that something is not lost for a while.
func mustNotBeLost(t *testing.T, what string, lost <-chan struct{}, d time.Duration) {
	t.Helper()
	select {
	case <-lost:
		t.Fatalf("%s is lost", what)
	case <-time.After(d):
	}
}

// within waits for something that must happen in time.
func within(t *testing.T, what string, done <-chan struct{}, d time.Duration) {
	t.Helper()
	begin := time.Now()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s: not within %v", what, patience)
	}
	if took := time.Since(begin); took > d {
		t.Fatalf("%s: took %v, more than %v", what, took, d)
	}
}

// eventually waits until f returns nil.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// waiting waits until that many sessions wait for a name.
func (c Config) waiting(t *testing.T, name string, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d wait for %s", n, name), func() error {
		have, err := c.Waiters(t.Context(), name)
		if err == nil && have != n {
			err = fmt.Errorf("%d wait", have)
		}
		return err
	})
}
