package locktest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/lock"
)

func invalid(t *testing.T, c Config) {
	p := c.provider(t, c.URL)
	for what, sc := range map[string]lock.SessionConfig{
		"no owner":       {},
		"a long owner":   {Owner: strings.Repeat("x", lock.MaxNameBytes+1)},
		"a broken owner": {Owner: "a\nb"},
		"a short TTL":    {Owner: "x", TTL: lock.MinTTL - 1},
	} {
		if _, err := p.Open(t.Context(), sc); !errors.Is(err, lock.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	s := session(t, p, lock.SessionConfig{})
	for what, name := range map[string]string{
		"empty":       "",
		"too long":    strings.Repeat("x", lock.MaxNameBytes+1),
		"with spaces": "a b",
		"with tabs":   "a\tb",
		"not UTF-8":   "a\xff",
		"not printed": "a\x00b",
	} {
		if _, err := s.TryLock(t.Context(), name); !errors.Is(err, lock.ErrInvalid) {
			t.Errorf("TryLock of a name that is %s: %v", what, err)
		}
		if _, err := s.Lock(t.Context(), name); !errors.Is(err, lock.ErrInvalid) {
			t.Errorf("Lock of a name that is %s: %v", what, err)
		}
	}
	for _, name := range []string{"x", "a/b//c/", "..", ".", "{a}*?[^]%'\"\\$", "ein-schöner-Name/漢字", newName(strings.Repeat("x", lock.MaxNameBytes-13))} {
		l := tryLock(t, s, name)
		mustBeHeld(t, session(t, p, lock.SessionConfig{}), name)
		release(t, l)
	}
}

func holdAndRelease(t *testing.T, c Config) {
	s, name := c.sessions(t, 2, lock.SessionConfig{}), newName("hold")
	var last uint64
	for i := range 6 {
		l := tryLock(t, s[i%2], name)
		if l.Token() <= last {
			t.Fatalf("token %d after %d", l.Token(), last)
		}
		last = l.Token()
		mustBeHeld(t, s[0], name)
		mustBeHeld(t, s[1], name)
		other := tryLock(t, s[(i+1)%2], newName("other"))
		release(t, l)
		release(t, other)
	}
}

func wrongHolder(t *testing.T, c Config) {
	s, name := c.sessions(t, 2, lock.SessionConfig{}), newName("wrong")
	first := tryLock(t, s[0], name)
	release(t, first)
	for range 2 {
		// The one before may be anybody's, the session's own too.
		for _, by := range s {
			second := tryLock(t, by, name)
			if err := first.Release(t.Context()); !errors.Is(err, lock.ErrNotHolder) {
				t.Fatalf("releasing a lease for the second time: %v", err)
			}
			mustBeHeld(t, s[0], name)
			mustBeHeld(t, s[1], name)
			release(t, second)
		}
	}
	closed := tryLock(t, s[0], name)
	if err := s[0].Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	l := tryLock(t, s[1], name)
	if err := closed.Release(t.Context()); !errors.Is(err, lock.ErrNotHolder) {
		t.Fatalf("releasing a lease of a closed session: %v", err)
	}
	mustNotBeLost(t, "the lease of another", l.Lost(), 0)
	release(t, l)
}

func closing(t *testing.T, c Config) {
	s, name := c.sessions(t, 3, lock.SessionConfig{TTL: 20 * time.Second}), newName("closing")
	l := tryLock(t, s[0], name)
	second := tryLock(t, s[0], newName("second"))
	waits := make(chan error, 1)
	go func() {
		_, err := s[1].Lock(t.Context(), name)
		waits <- err
	}()
	if c.Waiters != nil {
		c.waiting(t, name, 1)
	}
	for range 2 {
		if err := s[1].Close(t.Context()); err != nil {
			t.Fatalf("closing a session: %v", err)
		}
	}
	if err := <-waits; !errors.Is(err, lock.ErrLost) {
		t.Fatalf("Lock while the session closes: %v", err)
	}
	if err := s[0].Close(t.Context()); err != nil {
		t.Fatalf("closing a session: %v", err)
	}
	mustBeLost(t, "a closed session", s[0].Lost())
	mustBeLost(t, "a lease of a closed session", l.Lost())
	mustBeLost(t, "a lease of a closed session", second.Lost())
	for _, name := range []string{name, second.Name()} {
		if l := waitLock(t, s[2], name); l.Token() <= second.Token() && name == second.Name() {
			t.Fatalf("token %d after %d", l.Token(), second.Token())
		}
	}
	if _, err := s[0].TryLock(t.Context(), name); !errors.Is(err, lock.ErrLost) {
		t.Fatalf("TryLock of a closed session: %v", err)
	}
	if _, err := s[0].Lock(t.Context(), name); !errors.Is(err, lock.ErrLost) {
		t.Fatalf("Lock of a closed session: %v", err)
	}
}

// turns has goroutines of several sessions count without any other lock.
func turns(t *testing.T, c Config) {
	s, name := c.sessions(t, 3, lock.SessionConfig{TTL: 20 * time.Second}), newName("turns")
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	var inside, last atomic.Int64
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() {
			for range 5 {
				l, err := s[g%len(s)].Lock(ctx, name)
				if err != nil {
					t.Errorf("Lock: %v", err)
					return
				}
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d hold the lease", n)
				}
				if before := last.Swap(int64(l.Token())); before >= int64(l.Token()) {
					t.Errorf("token %d after %d", l.Token(), before)
				}
				inside.Add(-1)
				if err := l.Release(ctx); err != nil {
					t.Errorf("Release: %v", err)
				}
			}
		})
	}
	wg.Wait()
}

// order has sessions wait one after the other. A session that asks for the lease
// without waiting does not get it before them.
func order(t *testing.T, c Config) {
	if c.Waiters == nil {
		return // no order is promised
	}
	const n = 5
	s, name := c.sessions(t, n+1, lock.SessionConfig{TTL: 20 * time.Second}), newName("order")
	l := tryLock(t, s[n], name)
	got := make(chan int, n)
	next := make(chan struct{})
	for i := range n {
		go func() {
			l, err := s[i].Lock(t.Context(), name)
			if err != nil {
				t.Errorf("Lock: %v", err)
			}
			got <- i
			<-next
			if l != nil {
				_ = l.Release(t.Context())
			}
			next <- struct{}{}
		}()
		c.waiting(t, name, i+1)
	}
	release(t, l)
	for i := range n {
		begin := time.Now()
		if who := <-got; who != i {
			t.Fatalf("session %d has the lease, and it is the turn of %d", who, i)
		}
		// Woken by the release, not by the end of something.
		if took := time.Since(begin); took > 10*time.Second {
			t.Fatalf("the next had to wait %v", took)
		}
		mustBeHeld(t, s[n], name)
		next <- struct{}{}
		<-next
	}
	release(t, waitLock(t, s[n], name))
}

func givingUp(t *testing.T, c Config) {
	s, name := c.sessions(t, 3, lock.SessionConfig{TTL: 20 * time.Second}), newName("giving-up")
	l := tryLock(t, s[0], name)
	ctx, giveUp := context.WithCancel(t.Context())
	result := make(chan error, 2)
	go func() {
		_, err := s[1].Lock(ctx, name)
		result <- err
	}()
	if c.Waiters != nil {
		c.waiting(t, name, 1)
	}
	go func() {
		l, err := s[2].Lock(t.Context(), name)
		if err == nil {
			err = l.Release(t.Context())
		}
		result <- err
	}()
	if c.Waiters != nil {
		c.waiting(t, name, 2)
	}
	giveUp()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Fatalf("Lock after its context ended: %v", err)
	}
	if c.Waiters != nil {
		c.waiting(t, name, 1)
	}
	mustNotBeLost(t, "a session that gave up", s[1].Lost(), 0)
	release(t, l)
	begin := time.Now()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Fatalf("who waited behind had to wait %v", took)
	}
	// It may come again.
	release(t, waitLock(t, s[1], name))
	if l, err := s[1].Lock(ctx, fmt.Sprint(name, "/free")); !errors.Is(err, context.Canceled) {
		t.Fatalf("Lock with a context that had ended: %v, %v", l, err)
	}
}
