package zookeeper_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/lock/locktest"
	"github.com/ringmaster-dev/ringmaster/lock/zookeeper"
)

func open(_ context.Context, url string) (lock.Provider, error) {
	return zookeeper.New(zookeeper.Config{Servers: servers(url)})
}

func servers(url string) []string {
	return strings.Split(strings.TrimPrefix(url, "zookeeper://"), ",")
}

func TestMain(m *testing.M) { locktest.Main(m, open) }

type quiet struct{}

func (quiet) Printf(string, ...any) {}

func connect(t testing.TB, url string) *zk.Conn {
	t.Helper()
	c, _, err := zk.Connect(servers(url), time.Minute, zk.WithLogger(quiet{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// node is the node of a name that holds no character but letters, digits, - and /.
func node(name string) string {
	return zookeeper.DefaultPath + "/" + strings.ReplaceAll(name, "/", "%2f")
}

// config starts a server.
func config(t testing.TB) locktest.Config {
	server, err := testenv.StartZooKeeper(t.Context(), testenv.ZooKeeperConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	conn := connect(t, server.URL)
	return locktest.Config{
		URL:  server.URL,
		Open: open,
		Waiters: func(_ context.Context, name string) (int, error) {
			children, _, err := conn.Children(node(name))
			return len(children) - 1, err
		},
		// An operator removes what an owner holds; nobody but its client can end a session.
		Take: func(_ context.Context, name string) error {
			children, _, err := conn.Children(node(name))
			for _, c := range children {
				err = errors.Join(err, conn.Delete(node(name)+"/"+c, -1))
			}
			return err
		},
		Restart: func(ctx context.Context) error {
			server.Kill()
			return server.Start(ctx)
		},
		// Sessions end with a tick of 200 ms.
		Slack: 2 * time.Second,
	}
}

func TestConformance(t *testing.T) { locktest.Run(t, config(t)) }

func BenchmarkProvider(b *testing.B) { locktest.Benchmark(b, config(b)) }

func TestConfigIsChecked(t *testing.T) {
	for what, c := range map[string]zookeeper.Config{
		"no server":     {},
		"the root":      {Servers: []string{"127.0.0.1"}, Path: "/"},
		"no rooted one": {Servers: []string{"127.0.0.1"}, Path: "a/b"},
	} {
		if _, err := zookeeper.New(c); !errors.Is(err, lock.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestATTLThatTheServersDoNotGrantIsRefused(t *testing.T) {
	p, err := open(t.Context(), testenv.ZooKeeper(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Open(t.Context(), lock.SessionConfig{Owner: "test", TTL: time.Hour}); !errors.Is(err, lock.ErrInvalid) {
		t.Errorf("a TTL of an hour: %v", err)
	}
}

// With a user's name, nobody else may touch the nodes.
func TestNodesBelongToTheirUser(t *testing.T) {
	url := testenv.ZooKeeper(t)
	p, err := zookeeper.New(zookeeper.Config{Servers: servers(url), Path: "/private/locks", Username: "ringmaster", Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Open(t.Context(), lock.SessionConfig{Owner: "test"})
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.TryLock(t.Context(), "name")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := connect(t, url).Children("/private/locks/name"); !errors.Is(err, zk.ErrNoAuth) {
		t.Errorf("a stranger lists the nodes of a name: %v", err)
	}
	if err := errors.Join(l.Release(t.Context()), s.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
}

func TestNoServer(t *testing.T) {
	p, err := open(t.Context(), "zookeeper://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := p.Open(ctx, lock.SessionConfig{Owner: "test"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a session without servers: %v", err)
	}
}
