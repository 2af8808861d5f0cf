package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/store/postgres"
)

// childURL and childSchema name, in the environment, the store that the process is to
// open and close.
const childURL, childSchema = "STORE_TEST_URL", "STORE_TEST_SCHEMA"

func TestMain(m *testing.M) {
	url := os.Getenv(childURL)
	if url == "" {
		os.Exit(m.Run())
	}
	s, err := schema{url, os.Getenv(childSchema)}.Open(context.Background(), 7)
	if err == nil {
		fmt.Println(s.Shards())
		err = s.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func TestTenProcessesThatStartTogetherMakeTheSchemaOnce(t *testing.T) {
	d := newSchema(t, testenv.Postgres(t))
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			child := exec.Command(os.Args[0])
			child.Env = append(os.Environ(), childURL+"="+d.url, childSchema+"="+d.name)
			if out, err := child.CombinedOutput(); err != nil || string(out) != "7\n" {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wg.Wait()
	if n := d.count(t, "SELECT count(*) FROM schema_versions WHERE version_id > 0"); n != d.count(t, "SELECT count(DISTINCT version_id) FROM schema_versions WHERE version_id > 0") {
		t.Errorf("%d migrations were made, some of them more than once", n)
	}
}

// count returns the number that a query answers.
func (d schema) count(t testing.TB, query string) (n int) {
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
	if err := c.QueryRow(ctx, query).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

func TestOpenRefuses(t *testing.T) {
	url := testenv.Postgres(t)
	made := func(t *testing.T, d schema) {
		s, err := d.Open(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name    string
		prepare func(*testing.T, schema)
		change  func(*postgres.Config)
		want    error  // or
		says    string // in the error
	}{
		{name: "a newer schema", prepare: func(t *testing.T, d schema) {
			made(t, d)
			d.exec(t, "INSERT INTO schema_versions (version_id, is_applied) VALUES (4711, true)", "UPDATE meta SET value = 4000 WHERE name = 'schema_floor'")
		}, want: store.ErrNewerSchema, says: "version 4711, for programs that know version 4000"},
		{name: "a newer schema that does not say who can use it", prepare: func(t *testing.T, d schema) {
			made(t, d)
			d.exec(t, "INSERT INTO schema_versions (version_id, is_applied) VALUES (4711, true)", "DELETE FROM meta WHERE name = 'schema_floor'")
		}, want: store.ErrNewerSchema, says: "4711"},
		{name: "a number of shards that is damaged", prepare: func(t *testing.T, d schema) {
			made(t, d)
			d.exec(t, "UPDATE meta SET value = -1 WHERE name = 'shards'")
		}, says: "damaged"},
		{name: "commits that a crash of the server would lose", change: func(c *postgres.Config) {
			c.URL += "&synchronous_commit=off"
		}, says: "synchronous_commit is off"},
		{name: "no URL", change: func(c *postgres.Config) { c.URL = "" }, says: "URL is required"},
		{name: "what is no URL", change: func(c *postgres.Config) { c.URL = "postgres://h:port/" }, says: "the URL"},
		{name: "a long name", change: func(c *postgres.Config) { c.Schema = strings.Repeat("x", 64) }, says: "at most 63 bytes"},
		{name: "too many shards", change: func(c *postgres.Config) { c.Shards = 1<<16 + 1 }, says: "at most 65536"},
		{name: "less than no connection", change: func(c *postgres.Config) { c.Conns = -1 }, says: "must not be negative"},
		{name: "less than no patience", change: func(c *postgres.Config) { c.Patience = -1 }, says: "must not be negative"},
		{name: "nobody there", change: func(c *postgres.Config) { c.URL = "postgres://u:secret@127.0.0.1:1/x" }, says: "127.0.0.1:1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newSchema(t, url)
			cfg := d.config(0)
			if tt.prepare != nil {
				tt.prepare(t, d)
			}
			if tt.change != nil {
				tt.change(&cfg)
			}
			_, err := postgres.Open(t.Context(), cfg)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "secret") {
				t.Errorf("error is %v; want %v and %q", err, tt.want, tt.says)
			}
		})
	}
}

// The first of several orchestrators has been upgraded and has added to the schema,
// which says that programs of this version can go on.
func TestANewerSchemaThatAllowsItIsUsed(t *testing.T) {
	d := newSchema(t, testenv.Postgres(t))
	before, epoch := opened(t, d, postgres.Tuning{})
	d.exec(t, "INSERT INTO schema_versions (version_id, is_applied) VALUES (4711, true)", "CREATE TABLE later (n BIGINT)",
		"ALTER TABLE runs ADD COLUMN later TEXT", "ALTER TABLE shards ADD COLUMN later BIGINT NOT NULL DEFAULT 0")
	if errs, err := before.Commit([]store.Part{creates(epoch, 1)}); errs != nil || err != nil {
		t.Error("a program that is there goes on:", errs, err)
	}
	if err := before.Close(); err != nil {
		t.Error(err)
	}
	again, epoch := opened(t, d, postgres.Tuning{})
	if errs, err := again.Commit([]store.Part{creates(epoch, 2)}); errs != nil || err != nil {
		t.Error("one that is started:", errs, err)
	}
	if n := d.count(t, "SELECT count(*) FROM runs"); n != 2 {
		t.Errorf("%d runs", n)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// A user without the right to make schemas works with one that was made for it.
func TestASchemaOfItsOwnIsAllThatAUserNeeds(t *testing.T) {
	url := testenv.Postgres(t)
	d := newSchema(t, url)
	name := pgx.Identifier{d.name}.Sanitize()
	user := "u" + strings.ReplaceAll(d.name, "it's ", "")
	d.exec(t, "CREATE ROLE "+user+" LOGIN", "CREATE SCHEMA "+name+" AUTHORIZATION "+user)
	t.Cleanup(func() { d.exec(t, "DROP OWNED BY "+user+" CASCADE", "DROP ROLE "+user) })
	own := schema{strings.Replace(url, "postgres@", user+"@", 1), d.name}
	s, epoch := opened(t, own, postgres.Tuning{})
	if errs, err := s.Commit([]store.Part{creates(epoch, 1)}); errs != nil || err != nil {
		t.Error(errs, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	there, err := postgres.Exists(t.Context(), own.config(0))
	if err != nil || !there {
		t.Errorf("the schema exists: %v, %v", there, err)
	}
}

// Two orchestrators share a store: what one registers the other knows.
func TestWorkflowsOfOthersAreKnown(t *testing.T) {
	d := newSchema(t, testenv.Postgres(t))
	first, epoch := opened(t, d, postgres.Tuning{})
	second, err := d.Open(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if _, _, err := second.PutWorkflow(t.Context(), store.WorkflowInfo{Name: "w", Version: "2"}, nil); err != nil {
		t.Fatal(err)
	}
	p := creates(epoch, 1)
	p.Create[0].Version = "2"
	if errs, err := first.Commit([]store.Part{p}); errs != nil || err != nil {
		t.Fatal(errs, err)
	}
	if _, _, err := first.PutWorkflow(t.Context(), store.WorkflowInfo{Name: "w", Version: "3"}, nil); err != nil {
		t.Fatal(err)
	}
	p = creates(epoch, 2)
	p.Create[0].Version = "3"
	if errs, err := first.Commit([]store.Part{p}); errs != nil || err != nil {
		t.Fatal(errs, err)
	}
	if r, err := second.Run(t.Context(), "run 2"); err != nil || r.Version != "3" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestMetricsAreRegisteredWhileTheStoreIsOpen(t *testing.T) {
	cfg := newSchema(t, testenv.Postgres(t)).config(0)
	reg := prometheus.NewRegistry()
	cfg.Registerer = reg
	for range 2 { // the second would panic if the first were left
		s, err := postgres.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := reg.Gather(); err != nil || len(got) == 0 {
			t.Errorf("gathered %d metrics, %v", len(got), err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// What PostgreSQL cannot hold, in fields that people write, fails no commit.
func TestTextsThatAreNotUTF8AreKept(t *testing.T) {
	s, epoch := opened(t, newSchema(t, testenv.Postgres(t)), postgres.Tuning{})
	p := creates(epoch, 1)
	p.Create[0].Key, p.Create[0].Error, p.Create[0].Tags = "k\x00", "E: \xff", map[string]string{"a\x00": "\xfe"}
	p.Locks = []store.Lock{{Name: "l\x00\xff", Data: []byte{1}}}
	if errs, err := s.Commit([]store.Part{p}); errs != nil || err != nil {
		t.Fatal(errs, err)
	}
	if _, err := s.Lock(t.Context(), 1, "l\x00\xff"); err != nil {
		t.Error(err)
	}
	for _, f := range []store.Filter{{Key: "k\x00"}, {TagName: "a\x00", TagValue: "\xfe"}} {
		page, err := s.List(t.Context(), f)
		if err != nil || len(page.Runs) != 1 {
			t.Errorf("%+v finds %d runs, %v", f, len(page.Runs), err)
		}
	}
	if _, err := s.Run(t.Context(), "\xff\x00"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("error is %v", err)
	}
}
