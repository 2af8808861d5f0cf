package redis_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/lock/locktest"
	"github.com/ringmaster-dev/ringmaster/lock/redis"
)

func open(_ context.Context, url string) (lock.Provider, error) {
	return redis.New(redis.Config{URLs: urls(url)})
}

// urls makes an address for each host.
func urls(url string) (list []string) {
	for host := range strings.SplitSeq(strings.TrimPrefix(url, "redis://"), ",") {
		list = append(list, "redis://"+host)
	}
	return list
}

func TestMain(m *testing.M) { locktest.Main(m, open) }

// nodes starts redis servers, and connects to them.
func nodes(t testing.TB, n int) (url string, servers []*testenv.RedisServer, clients []*goredis.Client) {
	t.Helper()
	var hosts []string
	for range n {
		s, err := testenv.StartRedis(t.Context(), testenv.RedisConfig{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		options, err := goredis.ParseURL(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		c := goredis.NewClient(options)
		t.Cleanup(func() { _ = c.Close() })
		servers, clients, hosts = append(servers, s), append(clients, c), append(hosts, options.Addr)
	}
	return "redis://" + strings.Join(hosts, ","), servers, clients
}

// config starts so many nodes.
func config(t testing.TB, n int) locktest.Config {
	url, servers, clients := nodes(t, n)
	c := locktest.Config{
		URL:  url,
		Open: open,
		End: func(ctx context.Context, owner string) error {
			var errs []error
			for _, c := range clients {
				errs = append(errs, end(ctx, c, owner))
			}
			return errors.Join(errs...)
		},
		Restart: func(ctx context.Context) error {
			var errs []error
			for _, s := range servers {
				s.Kill()
				errs = append(errs, s.Start(ctx))
			}
			return errors.Join(errs...)
		},
		Slack: 2 * time.Second,
	}
	if n == 1 {
		c.Waiters = func(ctx context.Context, name string) (int, error) {
			n, err := clients[0].ZCard(ctx, redis.DefaultPrefix+"wait:"+name).Result()
			return int(n), err
		}
	}
	return c
}

var sizes = map[string]int{"one node": 1, "three nodes": 3}

func TestConformance(t *testing.T) {
	for name, n := range sizes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			locktest.Run(t, config(t, n))
		})
	}
}

func BenchmarkProvider(b *testing.B) {
	for name, n := range sizes {
		b.Run(name, func(b *testing.B) { locktest.Benchmark(b, config(b, n)) })
	}
}

// end removes the sessions of an owner.
func end(ctx context.Context, c *goredis.Client, owner string) error {
	owners, err := c.HGetAll(ctx, redis.DefaultPrefix+"owners").Result()
	for id, o := range owners {
		if o == owner {
			err = errors.Join(err, c.ZRem(ctx, redis.DefaultPrefix+"sessions", id).Err())
		}
	}
	return err
}

func session(t *testing.T, url string, ttl time.Duration) lock.Session {
	t.Helper()
	p, err := open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	s, err := p.Open(t.Context(), lock.SessionConfig{Owner: "test", TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

// lockAgain repeats TryLock while nodes come and go.
func lockAgain(t *testing.T, s lock.Session, name string) lock.Lease {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		l, err := s.TryLock(t.Context(), name)
		if err == nil {
			return l
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func TestAMinorityOfNodesMayBeDown(t *testing.T) {
	t.Parallel()
	url, servers, clients := nodes(t, 3)
	const ttl = 3 * time.Second
	s, other := session(t, url, ttl), session(t, url, ttl)
	before := lockAgain(t, s, "name")
	servers[0].Kill()
	if _, err := other.TryLock(t.Context(), "name"); !errors.Is(err, lock.ErrHeld) {
		t.Fatalf("a lease that is held, with one node down: %v", err)
	}
	during := lockAgain(t, s, "during")
	select {
	case <-s.Lost():
		t.Fatal("a session is lost with one node of three")
	case <-time.After(ttl * 3 / 2):
	}
	// It comes back without its data, and gets what it is to keep.
	if err := servers[0].Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := clients[0].FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	for _, l := range []lock.Lease{before, during} {
		for deadline := time.Now().Add(30 * time.Second); clients[0].Exists(t.Context(), redis.DefaultPrefix+"lease:"+l.Name()).Val() == 0; {
			if time.Now().After(deadline) {
				t.Fatalf("the node does not keep %s", l.Name())
			}
			<-time.After(10 * time.Millisecond)
		}
	}
	// So that another may go down.
	servers[1].Kill()
	if _, err := other.TryLock(t.Context(), "name"); !errors.Is(err, lock.ErrHeld) {
		t.Fatalf("a lease that is held, with another node down: %v", err)
	}
	if err := before.Release(t.Context()); err != nil {
		t.Logf("Release with a node down: %v", err)
	}
	if after := lockAgain(t, other, "name"); after.Token() <= before.Token() || during.Token() == 0 {
		t.Fatalf("token %d after %d", after.Token(), before.Token())
	}
}

// A node that hangs slows nobody down by more than a moment, and what it does
// when it goes on is undone.
func TestAMinorityOfNodesMayHang(t *testing.T) {
	t.Parallel()
	url, servers, clients := nodes(t, 3)
	const ttl = 20 * time.Second
	s, other := session(t, url, ttl), session(t, url, ttl)
	lockAgain(t, s, "kept")
	servers[2].Pause()
	begin := time.Now()
	for range 5 {
		l := lockAgain(t, s, "name")
		if _, err := other.TryLock(t.Context(), "name"); !errors.Is(err, lock.ErrHeld) {
			t.Fatalf("a lease that is held, with one node that hangs: %v", err)
		}
		if err := l.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// Waiting for the node each time would take five times 20 s.
	if took := time.Since(begin); took > ttl {
		t.Errorf("15 requests took %v", took)
	}
	servers[2].Resume()
	for deadline := time.Now().Add(time.Minute); clients[2].Exists(t.Context(), redis.DefaultPrefix+"lease:name").Val() != 0; {
		if time.Now().After(deadline) {
			t.Fatal("the node keeps a lease that was released")
		}
		<-time.After(10 * time.Millisecond)
	}
	if clients[2].Exists(t.Context(), redis.DefaultPrefix+"lease:kept").Val() == 0 {
		t.Fatal("the node has lost a lease that is held")
	}
}

func TestASessionIsLostWithTheMajority(t *testing.T) {
	t.Parallel()
	url, _, clients := nodes(t, 3)
	s := session(t, url, 3*time.Second)
	l := lockAgain(t, s, "name")
	for _, c := range clients[:2] {
		if err := c.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-l.Lost():
	case <-time.After(30 * time.Second):
		t.Fatal("the lease of a majority that has lost its data is not lost")
	}
}

// The token of a lease is higher than those of all before it, whichever nodes
// have granted them: each node counts by itself, and one is ahead.
func TestTokensGrowOverMajorities(t *testing.T) {
	t.Parallel()
	url, servers, clients := nodes(t, 3)
	if err := clients[0].Set(t.Context(), redis.DefaultPrefix+"token", 1000, 0).Err(); err != nil {
		t.Fatal(err)
	}
	s := session(t, url, 20*time.Second)
	var last uint64
	for i := range 6 {
		down := servers[i%3]
		down.Kill()
		l := lockAgain(t, s, "name")
		if l.Token() <= last {
			t.Fatalf("token %d after %d", l.Token(), last)
		}
		last = l.Token()
		_ = l.Release(t.Context()) // the node that is down does not answer
		if err := down.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if last < 1000 {
		t.Fatalf("the last token is %d", last)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for what, c := range map[string]redis.Config{
		"no node":          {},
		"two nodes":        {URLs: []string{"redis://127.0.0.1:1", "redis://127.0.0.1:2"}},
		"no URL":           {URLs: []string{"::"}},
		"a prefix with \n": {URLs: []string{"redis://127.0.0.1:1"}, Prefix: "a\nb"},
	} {
		if _, err := redis.New(c); !errors.Is(err, lock.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
