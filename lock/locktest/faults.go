package locktest

import (
	"context"
	"crypto/rand"
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/ringmaster-dev/ringmaster/lock"
)

// expiry is the longest time after which a silent session's lease is free.
func (c Config) expiry(ttl time.Duration) time.Duration { return ttl + c.Slack }

func killedHolder(t *testing.T, c Config) {
	s, name, r := c.sessions(t, 1, lock.SessionConfig{})[0], newName("killed"), newResource(t)
	h := startHolder(t, c, name, r)
	r.progress(t, 3)
	h.signal(syscall.SIGSTOP) // so that it holds the lease, or just released it
	before := func() uint64 { r.mu.Lock(); defer r.mu.Unlock(); return r.highest }()
	h.kill()
	begin := time.Now()
	l := waitLock(t, s, name)
	if took := time.Since(begin); took > c.expiry(shortTTL) {
		t.Errorf("the lease of a killed holder was free after %v, later than %v", took, c.expiry(shortTTL))
	}
	if l.Token() <= before {
		t.Errorf("token %d after %d", l.Token(), before)
	}
}

// nemesis kills holders and stops others for longer than they may be silent,
// while the lease goes round.
func nemesis(t *testing.T, c Config) {
	name, r := newName("nemesis"), newResource(t)
	var holders []*holder
	for range 3 {
		holders = append(holders, startHolder(t, c, name, r))
	}
	for range 2 {
		for i, h := range holders {
			r.progress(t, 3)
			if i == 0 {
				h.kill()
				holders[i] = startHolder(t, c, name, r)
				continue
			}
			// Whether or not it holds the lease: the others come to their turn,
			// while it sleeps or before.
			h.signal(syscall.SIGSTOP)
			r.progress(t, 3)
			h.signal(syscall.SIGCONT)
		}
	}
	r.progress(t, 10)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.faults {
		t.Error(f)
	}
	t.Logf("%d tokens of %d holders; %d late effects were refused", len(r.holder), len(r.effects), r.refused)
}

// silence stops the network. The session must know that it is lost before
// another has its lease.
func silence(t *testing.T, c Config) {
	url, network := proxied(t, c.URL)
	silent := session(t, c.provider(t, url), lock.SessionConfig{TTL: shortTTL})
	other := c.sessions(t, 1, lock.SessionConfig{})[0]
	l := tryLock(t, silent, newName("silence"))
	got := make(chan struct{})
	var token atomic.Uint64
	go func() {
		defer close(got)
		if next, err := other.Lock(t.Context(), l.Name()); err == nil {
			select {
			case <-l.Lost():
			default:
				t.Error("another has the lease, and its holder does not know")
			}
			token.Store(next.Token())
		}
	}()
	network.stop()
	defer network.resume()
	within(t, "the silent session is lost", silent.Lost(), shortTTL+c.Slack)
	mustBeLost(t, "a lease of a lost session", l.Lost())
	within(t, "another has the lease", got, c.expiry(shortTTL))
	if token.Load() <= l.Token() {
		t.Errorf("token %d after %d", token.Load(), l.Token())
	}
	if err := l.Release(t.Context()); err == nil {
		t.Error("a lost lease was released")
	}
}

func brokenConnection(t *testing.T, c Config) {
	url, network := proxied(t, c.URL)
	s := session(t, c.provider(t, url), lock.SessionConfig{TTL: longTTL})
	l := tryLock(t, s, newName("broken"))
	for range 2 {
		network.cut()
		mustNotBeLost(t, "a lease after its connection broke", l.Lost(), longTTL/2)
	}
	mustBeHeld(t, c.sessions(t, 1, lock.SessionConfig{})[0], l.Name())
	// What waits when a connection breaks goes on waiting.
	other := c.sessions(t, 1, lock.SessionConfig{TTL: longTTL})[0]
	held := tryLock(t, other, newName("broken-waiter"))
	got := make(chan error, 1)
	go func() { got <- lockAgain(t.Context(), s, held.Name()) }()
	if c.Waiters != nil {
		c.waiting(t, held.Name(), 1)
	}
	network.cut()
	release(t, held)
	if err := <-got; err != nil {
		t.Fatalf("Lock while the connection broke: %v", err)
	}
	release(t, l)
}

// lockAgain repeats Lock after an error that ends nothing: the first request may be
// under way when the connection breaks.
func lockAgain(ctx context.Context, s lock.Session, name string) error {
	for {
		_, err := s.Lock(ctx, name)
		if err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-s.Lost():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func endedSession(t *testing.T, c Config) {
	if c.End == nil {
		return
	}
	owner := "ended " + rand.Text()[:8]
	p := c.provider(t, c.URL)
	s := session(t, p, lock.SessionConfig{Owner: owner, TTL: longTTL})
	l := tryLock(t, s, newName("ended"))
	if err := c.End(t.Context(), owner); err != nil {
		t.Fatal(err)
	}
	within(t, "the ended session is lost", s.Lost(), longTTL/3+c.Slack)
	mustBeLost(t, "a lease of a lost session", l.Lost())
	next := waitLock(t, session(t, p, lock.SessionConfig{Owner: owner, TTL: longTTL}), l.Name())
	if next.Token() <= l.Token() {
		t.Errorf("token %d after %d", next.Token(), l.Token())
	}
}

func takenLease(t *testing.T, c Config) {
	if c.Take == nil {
		return
	}
	s := c.sessions(t, 2, lock.SessionConfig{TTL: 20 * time.Second})
	l, kept := tryLock(t, s[0], newName("taken")), tryLock(t, s[0], newName("kept"))
	if err := c.Take(t.Context(), l.Name()); err != nil {
		t.Fatal(err)
	}
	within(t, "the lease is lost", l.Lost(), 10*time.Second)
	next := waitLock(t, s[1], l.Name())
	if next.Token() <= l.Token() {
		t.Errorf("token %d after %d", next.Token(), l.Token())
	}
	if err := l.Release(t.Context()); !errors.Is(err, lock.ErrNotHolder) {
		t.Errorf("releasing a lease that was taken away: %v", err)
	}
	mustNotBeLost(t, "another lease of the session", kept.Lost(), 0)
	mustNotBeLost(t, "the session", s[0].Lost(), 0)
	// It may be had again.
	release(t, next)
	release(t, tryLock(t, s[0], l.Name()))
}

// wallClock gives sessions clocks that jump by years.
func wallClock(t *testing.T, c Config) {
	p := c.provider(t, c.URL)
	var jump atomic.Int64
	now := func() time.Time { return withWall(t, time.Now(), jump.Load()) }
	s := session(t, p, lock.SessionConfig{TTL: shortTTL * 2, Now: now})
	l := tryLock(t, s, newName("clock"))
	for _, years := range []int64{10, -10} {
		jump.Store(years * 365 * 24 * 3600)
		mustNotBeLost(t, "a lease after the clock jumped", l.Lost(), shortTTL*3/2)
		other := session(t, p, lock.SessionConfig{Now: now})
		mustBeHeld(t, other, l.Name())
		release(t, tryLock(t, other, newName("clock")))
	}
	release(t, l)
}

// withWall moves the wall clock in a reading by some seconds and leaves the
// monotonic one, as when the system's clock is set. The standard library has no
// way to do so; the layout of time.Time with a monotonic reading (1 bit that
// says so, 33 bits of seconds, 30 of nanoseconds) is checked by the result.
func withWall(t *testing.T, now time.Time, seconds int64) time.Time {
	moved := now
	wall := (*uint64)(unsafe.Pointer(&moved))
	*wall += uint64(seconds) << 30
	if moved.Sub(now) != 0 || moved.Unix()-now.Unix() != seconds {
		t.Errorf("the wall clock was to move by %d s and moved by %d s", seconds, moved.Unix()-now.Unix())
	}
	return moved
}

func restart(t *testing.T, c Config) {
	s := c.sessions(t, 2, lock.SessionConfig{TTL: 20 * time.Second})
	l := tryLock(t, s[0], newName("restart"))
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The connections of both may have to be made anew.
	eventually(t, "the lease is asked for", func() error {
		if next, err := s[1].TryLock(t.Context(), l.Name()); err == nil {
			t.Fatalf("a lease was lost in a restart: token %d beside %d", next.Token(), l.Token())
		} else if !errors.Is(err, lock.ErrHeld) {
			return err
		}
		return nil
	})
	mustNotBeLost(t, "a lease after a restart", l.Lost(), 0)
	if err := l.Release(t.Context()); err != nil {
		t.Logf("Release, which goes on in the background: %v", err)
	}
	next := waitLock(t, s[1], l.Name())
	if next.Token() <= l.Token() {
		t.Fatalf("token %d after %d", next.Token(), l.Token())
	}
}
