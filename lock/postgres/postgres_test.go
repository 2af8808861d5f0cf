package postgres_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/lock/locktest"
	"github.com/ringmaster-dev/ringmaster/lock/postgres"
)

func open(ctx context.Context, url string) (lock.Provider, error) {
	return postgres.New(ctx, postgres.Config{URL: url})
}

func TestMain(m *testing.M) { locktest.Main(m, open) }

// config starts a server.
func config(t testing.TB) locktest.Config {
	server, err := testenv.StartPostgres(t.Context(), testenv.PostgresConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	db := openDB(t, server.URL)
	return locktest.Config{
		URL:  server.URL,
		Open: open,
		Waiters: func(ctx context.Context, name string) (n int, err error) {
			err = db.QueryRowContext(ctx, `SELECT count(*) FROM ringmaster_locks.lease_waiters WHERE name = $1`, name).Scan(&n)
			return n, err
		},
		End: func(ctx context.Context, owner string) error {
			_, err := db.ExecContext(ctx, `DELETE FROM ringmaster_locks.lease_sessions WHERE owner = $1`, owner)
			return err
		},
		Take: func(ctx context.Context, name string) error {
			_, err := db.ExecContext(ctx, `DELETE FROM ringmaster_locks.leases WHERE name = $1`, name)
			return err
		},
		Restart: func(ctx context.Context) error {
			server.Kill()
			return server.Start(ctx)
		},
		Slack: 2 * time.Second,
	}
}

func TestConformance(t *testing.T) { locktest.Run(t, config(t)) }

func BenchmarkProvider(b *testing.B) { locktest.Benchmark(b, config(b)) }

func openDB(t testing.TB, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func provider(t testing.TB, c postgres.Config) lock.Provider {
	t.Helper()
	p, err := postgres.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func session(t testing.TB, p lock.Provider) lock.Session {
	t.Helper()
	s, err := p.Open(t.Context(), lock.SessionConfig{Owner: "test", TTL: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

func TestManyProvidersCreateOneSchema(t *testing.T) {
	db := openDB(t, testenv.Postgres(t))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			p, err := postgres.New(t.Context(), postgres.Config{DB: db, Schema: "Several \"no"})
			if !errors.Is(err, lock.ErrInvalid) {
				t.Errorf("a schema with a quote: %v, %v", p, err)
			}
			if p, err = postgres.New(t.Context(), postgres.Config{DB: db, Schema: "Some Schema"}); err != nil {
				t.Error(err)
				return
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := db.PingContext(t.Context()); err != nil {
		t.Fatalf("a pool that was given was closed: %v", err)
	}
	// What is in one schema has nothing to do with what is in another.
	for _, schema := range []string{"Some Schema", "other"} {
		if _, err := session(t, provider(t, postgres.Config{DB: db, Schema: schema})).TryLock(t.Context(), "name"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestASchemaOfAnotherVersionIsRefused(t *testing.T) {
	db := openDB(t, testenv.Postgres(t))
	provider(t, postgres.Config{DB: db})
	if _, err := db.ExecContext(t.Context(), `UPDATE ringmaster_locks.lease_version SET version = 99`); err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.New(t.Context(), postgres.Config{DB: db}); err == nil || !strings.Contains(err.Error(), "version 99") {
		t.Fatalf("a schema of version 99: %v", err)
	}
}

func TestAnotherIsolationLevelIsRefused(t *testing.T) {
	url := testenv.Postgres(t)
	provider(t, postgres.Config{URL: url}) // creates the schema
	p := provider(t, postgres.Config{URL: url + "&default_transaction_isolation=serializable"})
	if s, err := p.Open(t.Context(), lock.SessionConfig{Owner: "test"}); err == nil {
		t.Fatalf("a session was opened: %v", s)
	}
}

// Rows of sessions that nobody closed are removed, with all that belongs to them.
func TestWhatIsLeftBehindIsRemoved(t *testing.T) {
	db := openDB(t, testenv.Postgres(t))
	p := provider(t, postgres.Config{DB: db})
	for i := range 3 {
		if _, err := session(t, p).TryLock(t.Context(), fmt.Sprint("left-", i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.ExecContext(t.Context(), `UPDATE ringmaster_locks.lease_sessions SET expires = clock_timestamp()`); err != nil {
		t.Fatal(err)
	}
	session(t, p)
	var sessions, leases int
	if err := db.QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM ringmaster_locks.lease_sessions), (SELECT count(*) FROM ringmaster_locks.leases)`).
		Scan(&sessions, &leases); err != nil {
		t.Fatal(err)
	}
	if sessions != 1 || leases != 0 {
		t.Fatalf("%d sessions and %d leases are left", sessions, leases)
	}
}

func TestConfigIsChecked(t *testing.T) {
	if _, err := postgres.New(t.Context(), postgres.Config{}); !errors.Is(err, lock.ErrInvalid) {
		t.Errorf("neither DB nor URL: %v", err)
	}
	if _, err := postgres.New(t.Context(), postgres.Config{URL: "postgres://127.0.0.1:1/x"}); err == nil {
		t.Error("no error where no server is")
	}
}
