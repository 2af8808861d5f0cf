package etcd_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/lock/etcd"
	"github.com/ringmaster-dev/ringmaster/lock/locktest"
)

func open(_ context.Context, url string) (lock.Provider, error) {
	return etcd.New(etcd.Config{Endpoints: endpoints(url)})
}

func endpoints(url string) []string { return strings.Split(strings.TrimPrefix(url, "etcd://"), ",") }

func TestMain(m *testing.M) { locktest.Main(m, open) }

func connect(t testing.TB, url string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints(url), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// config starts a server.
func config(t testing.TB) locktest.Config {
	server, err := testenv.StartEtcd(t.Context(), testenv.EtcdConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	client := connect(t, server.URL)
	return locktest.Config{
		URL:  server.URL,
		Open: open,
		Waiters: func(ctx context.Context, name string) (int, error) {
			answer, err := client.Get(ctx, etcd.DefaultPrefix+"/leases/"+strings.ReplaceAll(name, "/", "%2F")+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
			if err != nil {
				return 0, err
			}
			return int(answer.Count) - 1, nil
		},
		End: func(ctx context.Context, owner string) error {
			answer, err := client.Get(ctx, etcd.DefaultPrefix+"/sessions/", clientv3.WithPrefix())
			if err != nil {
				return err
			}
			for _, kv := range answer.Kvs {
				if string(kv.Value) == owner {
					_, err = client.Revoke(ctx, clientv3.LeaseID(kv.Lease))
				}
			}
			return err
		},
		Restart: func(ctx context.Context) error {
			server.Kill()
			return server.Start(ctx)
		},
		// Leases are looked at twice a second, and last whole seconds.
		Slack: 3 * time.Second,
	}
}

func TestConformance(t *testing.T) { locktest.Run(t, config(t)) }

func BenchmarkProvider(b *testing.B) { locktest.Benchmark(b, config(b)) }

// Programs that lock by etcd's own recipe take part.
func TestItExcludesTheMutexOfEtcd(t *testing.T) {
	url := testenv.Etcd(t)
	p, err := open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	s, err := p.Open(t.Context(), lock.SessionConfig{Owner: "test", TTL: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close(context.Background()) }()
	newMutex := func() *concurrency.Mutex {
		theirs, err := concurrency.NewSession(connect(t, url))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = theirs.Close() })
		return concurrency.NewMutex(theirs, etcd.DefaultPrefix+"/leases/shared%2Fname")
	}
	mutex, another := newMutex(), newMutex()

	if err := mutex.Lock(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l, err := s.TryLock(t.Context(), "shared/name"); !errors.Is(err, lock.ErrHeld) {
		t.Fatalf("a lease that the mutex holds: %v, %v", l, err)
	}
	got := make(chan error, 1)
	go func() {
		l, err := s.Lock(t.Context(), "shared/name")
		if err == nil && another.TryLock(t.Context()) == nil {
			err = errors.New("the mutex was locked while the lease was held")
		}
		if err == nil {
			err = l.Release(t.Context())
		}
		got <- err
	}()
	if err := mutex.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if err := mutex.Lock(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	if _, err := etcd.New(etcd.Config{}); !errors.Is(err, lock.ErrInvalid) {
		t.Errorf("neither client nor endpoints: %v", err)
	}
}
