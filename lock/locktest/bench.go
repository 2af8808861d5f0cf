package locktest

import (
	"context"
	"crypto/rand"
	"slices"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/lock"
)

// renewer is what the sessions of all providers here can do.
type renewer interface {
	Renew(ctx context.Context) error
}

// Benchmark measures what a provider's requests take, one after the other:
// taking and releasing a lease that nobody else wants, renewing a session that
// holds 64 leases, and passing a lease on to a session that waits for it. Beside
// the mean it reports the 99th percentile.
func Benchmark(b *testing.B, c Config) {
	open := func(b *testing.B) lock.Session {
		p, err := c.Open(b.Context(), c.URL)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = p.Close() })
		s, err := p.Open(b.Context(), lock.SessionConfig{Owner: "benchmark " + rand.Text()[:8], TTL: time.Minute})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = s.Close(context.Background()) })
		return s
	}
	try := func(b *testing.B, s lock.Session, name string) lock.Lease {
		l, err := s.TryLock(b.Context(), name)
		if err != nil {
			b.Fatal(err)
		}
		return l
	}
	release := func(b *testing.B, l lock.Lease) {
		if err := l.Release(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("TryLock", func(b *testing.B) {
		s, name := open(b), newName("bench")
		measure(b, func() func() {
			l := try(b, s, name)
			return func() { release(b, l) }
		})
	})
	b.Run("Release", func(b *testing.B) {
		s, name := open(b), newName("bench")
		l := try(b, s, name)
		measure(b, func() func() {
			release(b, l)
			return func() { l = try(b, s, name) }
		})
	})
	b.Run("Renew", func(b *testing.B) {
		s := open(b)
		for range 64 {
			try(b, s, newName("bench"))
		}
		measure(b, func() func() {
			if err := s.(renewer).Renew(b.Context()); err != nil {
				b.Fatal(err)
			}
			return func() {}
		})
	})
	b.Run("PassOn", func(b *testing.B) { passOn(b, c, open(b), open(b)) })
}

// measure times f; what f returns is not timed.
func measure(b *testing.B, f func() func()) {
	var all []time.Duration
	b.ResetTimer()
	for b.Loop() {
		begin := time.Now()
		rest := f()
		all = append(all, time.Since(begin))
		b.StopTimer()
		rest()
		b.StartTimer()
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2])/1e6, "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100])/1e6, "p99-ms")
}

// passOn measures from the call of Release to the return of another's Lock.
func passOn(b *testing.B, c Config, x, y lock.Session) {
	name := newName("bench")
	held, err := x.TryLock(b.Context(), name)
	if err != nil {
		b.Fatal(err)
	}
	type result struct {
		lease lock.Lease
		err   error
	}
	wait := func() chan result {
		got := make(chan result, 1)
		go func() {
			l, err := y.Lock(b.Context(), name)
			got <- result{l, err}
		}()
		if c.Waiters == nil {
			<-time.After(5 * time.Millisecond) // it has probably asked
			return got
		}
		for {
			if n, err := c.Waiters(b.Context(), name); err != nil {
				b.Fatal(err)
			} else if n == 1 {
				return got
			}
		}
	}
	got := wait()
	measure(b, func() func() {
		if err := held.Release(b.Context()); err != nil {
			b.Fatal(err)
		}
		r := <-got
		if r.err != nil {
			b.Fatal(r.err)
		}
		return func() {
			held = r.lease
			x, y = y, x
			got = wait()
		}
	})
	if err := held.Release(b.Context()); err != nil {
		b.Fatal(err)
	}
	if r := <-got; r.err != nil {
		b.Fatal(r.err)
	}
}
