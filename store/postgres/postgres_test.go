package postgres_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/store/postgres"
	"github.com/ringmaster-dev/ringmaster/store/storetest"
)

// schema is a database of the suite: a schema of a PostgreSQL database.
type schema struct{ url, name string }

func (d schema) Open(ctx context.Context, shards uint32) (store.Store, error) {
	s, err := postgres.Open(ctx, d.config(shards))
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (d schema) config(shards uint32) postgres.Config {
	return postgres.Config{URL: d.url, Schema: d.name, Shards: shards, Conns: 4, Patience: 20 * time.Second, Logger: quiet}
}

var quiet = slog.New(slog.DiscardHandler)

// newSchema names a schema that does not exist, and drops it when the test ends.
func newSchema(t testing.TB, url string) schema {
	d := schema{url, "it's " + strings.ToLower(rand.Text()[:8])}
	t.Cleanup(func() { d.exec(t, "DROP SCHEMA IF EXISTS "+pgx.Identifier{d.name}.Sanitize()+" CASCADE") })
	return d
}

// exec runs statements beside the store.
func (d schema) exec(t testing.TB, statements ...string) {
	t.Helper()
	ctx := context.Background()
	c, err := pgx.Connect(ctx, d.url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	if _, err := c.Exec(ctx, "SET search_path = "+pgx.Identifier{d.name}.Sanitize()); err != nil {
		t.Fatal(err)
	}
	for _, s := range statements {
		if _, err := c.Exec(ctx, s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// harness makes schemas of one database. One that a test had is emptied, which is
// faster than making another, when it asks for more.
func harness(t *testing.T) storetest.Harness {
	url := testenv.Postgres(t)
	had := map[testing.TB]schema{}
	return storetest.Harness{New: func(t testing.TB) storetest.Database {
		d, again := had[t]
		if !again {
			d = newSchema(t, url)
			had[t] = d
			return d
		}
		d.exec(t, "DELETE FROM meta", "DELETE FROM shards", "DELETE FROM writers", "DELETE FROM workflows", "DELETE FROM runs", "DELETE FROM tags",
			"DELETE FROM counts", "DELETE FROM history", "DELETE FROM tombstones", "DELETE FROM locks", "DELETE FROM notes")
		return d
	}}
}

func TestStorePassesTheSuite(t *testing.T) { storetest.Run(t, harness(t)) }
