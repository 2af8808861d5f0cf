package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/jmoiron/sqlx"
	_ "github.com/mattn/go-sqlite3"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/broker/memory"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/worker/outbox"
)

// patience is far more than anything here takes.
const patience = 2 * time.Minute

// bench is a database with an outbox and a table of orders.
type bench struct {
	db      *sqlx.DB
	dialect outbox.Dialect
	driver  string
	dsn     string
	box     *outbox.Outbox
}

func onEach(t *testing.T, o outbox.Options, f func(t *testing.T, b bench)) {
	t.Helper()
	run := func(name string, d outbox.Dialect, driver string, dsn func() string) {
		t.Run(name, func(t *testing.T) {
			b := bench{dialect: d, driver: driver, dsn: dsn()}
			b.db = sqlx.MustOpen(driver, b.dsn)
			b.db.SetMaxOpenConns(20)
			t.Cleanup(func() { b.db.Close() })
			b.box = must(outbox.New(t.Context(), b.db, d, o))
			b.db.MustExec(`CREATE TABLE orders (id VARCHAR(200) NOT NULL)`)
			f(t, b)
		})
	}
	run("SQLite", outbox.SQLite, "sqlite3", func() string { return sqliteDSN(t) })
	run("MariaDB", outbox.MySQL, "mysql", func() string { return testenv.MySQL(t) })
	run("PostgreSQL", outbox.Postgres, "pgx", func() string { return testenv.Postgres(t) })
}

func sqliteDSN(t *testing.T) string {
	return "file:" + filepath.Join(t.TempDir(), "app.db") + "?_journal_mode=WAL&_synchronous=OFF&_busy_timeout=10000&_txlock=immediate"
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// order writes an order and the start of its run in one transaction.
func (b bench) order(ctx context.Context, id string) error {
	return b.box.Do(ctx, func(ctx context.Context, tx *sqlx.Tx) error {
		tx.MustExecContext(ctx, fmt.Sprintf(`INSERT INTO orders VALUES ('%s')`, id))
		_, err := b.box.Start(ctx, tx, rest.Start{Workflow: "order", ID: id, Input: json.RawMessage(`{"total":12}`)})
		return err
	})
}

func (b bench) cancel(ctx context.Context, id, reason string) error {
	return b.box.Do(ctx, func(ctx context.Context, tx *sqlx.Tx) error {
		return b.box.Cancel(ctx, tx, id, rest.Cancel{Reason: reason})
	})
}

// key is the name of the column.
func (b bench) key() string {
	if b.dialect == outbox.MySQL {
		return "`key`"
	}
	return `"key"`
}

// relay runs a relay until the test ends or it is stopped.
func (b bench) relay(t *testing.T, br broker.Broker) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- outbox.NewRelay(b.box, br).Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("relay: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// drained waits until no row is left to be sent.
func (b bench) drained(t *testing.T) {
	t.Helper()
	eventually(t, "the outbox is empty", func() bool {
		n, _, err := b.box.Pending(t.Context())
		return err == nil && n == 0
	})
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// inProcess returns a broker in memory.
func inProcess(t *testing.T) broker.Broker { return must(memory.New(memory.Config{})) }

// requests collects what arrives in the requests queue.
type requests struct {
	mu  sync.Mutex
	all []protocol.Request
}

func collect(t *testing.T, br broker.Broker) *requests {
	t.Helper()
	conn := must(br.Open(t.Context(), broker.Options{Name: "test"}))
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	r := &requests{}
	_, err := conn.Subscribe(t.Context(), broker.Subscription{
		Queue: protocol.RequestsQueue(""), Kind: broker.Shared,
		Handler: func(d broker.Delivery) {
			req, err := protocol.DecodeRequest(&d.Message)
			if err != nil {
				t.Errorf("a bad request: %v", err)
			}
			r.mu.Lock()
			r.all = append(r.all, req)
			r.mu.Unlock()
			d.Settle(true)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *requests) of(run string) (kinds []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, req := range r.all {
		if req.RunID != run {
			continue
		}
		var c rest.Cancel
		_ = json.Unmarshal(req.Body, &c)
		kinds = append(kinds, strings.TrimSpace(string(req.Type)+" "+c.Reason))
	}
	return kinds
}

func (r *requests) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.all)
}

func TestARequestLeavesExactlyWhenItsTransactionCommits(t *testing.T) {
	onEach(t, outbox.Options{Poll: time.Hour}, func(t *testing.T, b bench) {
		br := inProcess(t)
		got := collect(t, br)
		b.relay(t, br)
		boom := errors.New("boom")
		err := b.box.Do(t.Context(), func(ctx context.Context, tx *sqlx.Tx) error {
			_, err := b.box.Start(ctx, tx, rest.Start{Workflow: "order", ID: "rolled-back"})
			return errors.Join(err, boom)
		})
		if !errors.Is(err, boom) {
			t.Fatal(err)
		}
		func() {
			defer func() { _ = recover() }()
			_ = b.box.Do(t.Context(), func(ctx context.Context, tx *sqlx.Tx) error {
				_ = must(b.box.Start(ctx, tx, rest.Start{Workflow: "order", ID: "panicked"}))
				panic(boom)
			})
		}()
		if err := b.order(t.Context(), "committed"); err != nil {
			t.Fatal(err)
		}
		// Notified, without a poll.
		b.drained(t)
		eventually(t, "the request arrives", func() bool { return got.count() == 1 })
		if k := got.of("committed"); !slices.Equal(k, []string{"run.start"}) {
			t.Fatalf("%q", k)
		}
	})
}

func TestAStartWithoutAnIDGetsOne(t *testing.T) {
	onEach(t, outbox.Options{}, func(t *testing.T, b bench) {
		br := inProcess(t)
		got := collect(t, br)
		tx := must(b.db.Begin()) // database/sql's own will do
		id := must(b.box.Start(t.Context(), tx, rest.Start{Workflow: "order"}))
		other := must(b.box.Start(t.Context(), tx, rest.Start{Workflow: "order"}))
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		if id == "" || id == other {
			t.Fatalf("ids %q and %q", id, other)
		}
		b.relay(t, br)
		eventually(t, "both arrive", func() bool { return got.count() == 2 })
		var s rest.Start
		if err := json.Unmarshal(got.all[0].Body, &s); err != nil || s.ID != got.all[0].RunID || s.ID != id && s.ID != other {
			t.Fatalf("%s, %v", got.all[0].Body, err)
		}
	})
}

func TestARequestThatWouldBeRefusedIsNotWritten(t *testing.T) {
	cases := map[string]rest.Start{
		"workflow": {ID: "x"},
		"id":       {Workflow: "order", ID: "a b"},
		"rm-run":   {Workflow: "order", ID: strings.Repeat("x", 300)},
		"key":      {Workflow: "order", Key: strings.Repeat("x", 300)},
		"priority": {Workflow: "order", Priority: 10},
		"input":    {Workflow: "order", Input: json.RawMessage(`{`)},
		"payload":  {Workflow: "order", Input: json.RawMessage(`"` + strings.Repeat("x", protocol.MaxPayloadBytes) + `"`)},
	}
	onEach(t, outbox.Options{}, func(t *testing.T, b bench) {
		tx := must(b.db.Beginx())
		for field, s := range cases {
			if _, err := b.box.Start(t.Context(), tx, s); !errors.Is(err, outbox.ErrInvalid) || !strings.Contains(err.Error(), field) {
				t.Errorf("%s: %.200v", field, err)
			}
		}
		if err := b.box.Cancel(t.Context(), tx, "", rest.Cancel{}); !errors.Is(err, outbox.ErrInvalid) {
			t.Errorf("cancel: %v", err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		if n, _, err := b.box.Pending(t.Context()); n != 0 || err != nil {
			t.Errorf("%d rows, %v", n, err)
		}
	})
}

func TestARowThatCanNeverBeSentIsSetAside(t *testing.T) {
	onEach(t, outbox.Options{}, func(t *testing.T, b bench) {
		br := inProcess(t)
		got := collect(t, br)
		for _, values := range []string{`'a', 'run.fly', '{}', 0`, `'b', 'run.start', '{', 0`} {
			b.db.MustExec(`INSERT INTO ringmaster_outbox (` + b.key() + `, kind, body, created) VALUES (` + values + `)`)
		}
		if err := b.order(t.Context(), "good"); err != nil {
			t.Fatal(err)
		}
		b.relay(t, br)
		b.drained(t)
		eventually(t, "the good one arrives", func() bool { return got.count() == 1 })
		aside := must(b.box.SetAside(t.Context(), 0, 0))
		if len(aside) != 2 || !strings.Contains(aside[0].Reason, "run.fly") || !strings.Contains(aside[1].Reason, "not JSON") {
			t.Fatalf("%+v", aside)
		}
		b.db.MustExec(`UPDATE ringmaster_outbox SET body = '{}' WHERE ` + b.key() + ` = 'b'`) // mended by hand
		if err := b.box.Retry(t.Context(), aside[1].ID); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the mended one arrives", func() bool { return len(got.of("b")) == 1 })
		if err := b.box.Discard(t.Context(), aside[0].ID); err != nil {
			t.Fatal(err)
		}
		if err := b.box.Discard(t.Context(), aside[0].ID); !errors.Is(err, outbox.ErrNotFound) {
			t.Fatalf("discarding again: %v", err)
		}
		if aside, err := b.box.SetAside(t.Context(), 0, 0); err != nil || len(aside) != 0 {
			t.Fatalf("%+v, %v", aside, err)
		}
	})
}

func TestBadOptionsAreRefused(t *testing.T) {
	db := sqlx.MustOpen("sqlite3", sqliteDSN(t))
	defer db.Close()
	cases := map[string]outbox.Options{
		"Table": {Table: `a"b`}, "Batch": {Batch: -1}, "InFlight": {InFlight: -1},
		"Poll": {Poll: -1}, "Lease": {Lease: time.Millisecond}, "MaxBackoff": {MaxBackoff: -1},
	}
	for name, o := range cases {
		if _, err := outbox.New(t.Context(), db, outbox.SQLite, o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := outbox.New(t.Context(), db, 0, outbox.Options{}); err == nil || !strings.Contains(err.Error(), "dialect") {
		t.Errorf("dialect: %v", err)
	}
}

func TestTheTablesMayBeMadeByManyAtOnce(t *testing.T) {
	onEach(t, outbox.Options{}, func(t *testing.T, b bench) {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if _, err := outbox.New(t.Context(), b.db, b.dialect, outbox.Options{Table: "another"}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

// A signal that is written after its run's start is delivered after it, with an
// id by which the run tells a repetition.
func TestASignalFollowsItsStart(t *testing.T) {
	onEach(t, outbox.Options{}, func(t *testing.T, b bench) {
		br := inProcess(t)
		got := collect(t, br)
		b.relay(t, br)
		if err := b.order(t.Context(), "o"); err != nil {
			t.Fatal(err)
		}
		boom := errors.New("boom")
		for _, end := range []error{boom, nil} {
			err := b.box.Do(t.Context(), func(ctx context.Context, tx *sqlx.Tx) error {
				err := b.box.Signal(ctx, tx, "o", "paid", rest.Signal{Payload: json.RawMessage(`{"by":"card"}`)})
				return errors.Join(err, end)
			})
			if !errors.Is(err, end) {
				t.Fatal(err)
			}
		}
		eventually(t, "both arrive", func() bool { return got.count() == 2 })
		if kinds := got.of("o"); !slices.Equal(kinds, []string{"run.start", "run.signal"}) {
			t.Fatalf("%q", kinds)
		}
		var s rest.SignalRequest
		if err := json.Unmarshal(got.all[1].Body, &s); err != nil || s.Name != "paid" || s.ID == "" || string(s.Payload) != `{"by":"card"}` {
			t.Fatalf("%s, %v", got.all[1].Body, err)
		}
		b.drained(t)
	})
}

func TestASignalThatWouldBeRefusedIsNotWritten(t *testing.T) {
	long := strings.Repeat("x", 300)
	onEach(t, outbox.Options{}, func(t *testing.T, b bench) {
		tx := must(b.db.Beginx())
		for field, call := range map[string]struct {
			run, name string
			s         rest.Signal
		}{
			"run":     {name: "paid"},
			"rm-run":  {run: long, name: "paid"},
			"name":    {run: "o"},
			"at most": {run: "o", name: long},
			"id":      {run: "o", name: "paid", s: rest.Signal{ID: long}},
			"payload": {run: "o", name: "paid", s: rest.Signal{Payload: json.RawMessage(`{`)}},
		} {
			err := b.box.Signal(t.Context(), tx, call.run, call.name, call.s)
			if !errors.Is(err, outbox.ErrInvalid) || !strings.Contains(err.Error(), field) {
				t.Errorf("%s: %.200v", field, err)
			}
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		if n, _, err := b.box.Pending(t.Context()); n != 0 || err != nil {
			t.Errorf("%d rows, %v", n, err)
		}
	})
}
