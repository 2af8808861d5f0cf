package lease_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/broker/rabbit"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/lock/postgres"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/inbox"
	"github.com/ringmaster-dev/ringmaster/worker/lease"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// bench is a database with leases and an inbox.
type bench struct {
	db       *sqlx.DB
	provider lock.Provider
	box      *inbox.Inbox
}

func newBench(t *testing.T) bench {
	t.Helper()
	db := must(sqlx.Open("pgx", testenv.Postgres(t)))
	t.Cleanup(func() { _ = db.Close() })
	p := must(postgres.New(t.Context(), postgres.Config{DB: db.DB}))
	t.Cleanup(func() { _ = p.Close() })
	return bench{db, p, must(inbox.New(t.Context(), db, inbox.Postgres, inbox.Options{}))}
}

func (b bench) holder(t *testing.T) *lock.Holder {
	h := lock.NewHolder(b.provider, lock.SessionConfig{Owner: "test", TTL: 10 * time.Second})
	t.Cleanup(func() { _ = h.Close(context.Background()) })
	return h
}

// loseSessions has all sessions end at the database.
func (b bench) loseSessions(t *testing.T) {
	t.Helper()
	if _, err := b.db.Exec(`DELETE FROM ringmaster_locks.lease_sessions`); err != nil {
		t.Fatal(err)
	}
}

// attempt is the context of an attempt of a run's only step.
func attempt(ctx context.Context, run string) context.Context {
	return worker.WithTask(ctx, worker.TaskInfo{RunID: run, Step: "s", Phase: protocol.PhaseAction, Attempt: 1,
		IdempotencyKey: run + "/s/action/1", Tokens: []protocol.Token{{Name: "of the engine", Token: 7}}})
}

func stated(t *testing.T, err error, code string, outcome protocol.Outcome) {
	t.Helper()
	var e *worker.Error
	if !errors.As(err, &e) || e.Code != code || e.Outcome != outcome {
		t.Fatalf("error %v (%+v), expected code %s and outcome %v", err, e, code, outcome)
	}
}

// The token is the task's, beside those of the engine, and the inbox refuses an
// attempt whose lease is another's now.
func TestTheInboxRefusesAnAttemptWhoseLeaseHasGoneOn(t *testing.T) {
	b := newBench(t)
	effects := 0
	do := func(ctx context.Context) ([]byte, error) {
		return b.box.Do(ctx, func(context.Context, *sqlx.Tx) ([]byte, error) {
			effects++
			return []byte("1"), nil
		})
	}
	_, err := lease.Hold(attempt(t.Context(), "run-1"), b.holder(t), "name", func(ctx context.Context) ([]byte, error) {
		b.loseSessions(t)
		<-ctx.Done() // it notices, and in spite of that goes on after the next holder
		if cause := context.Cause(ctx); !errors.Is(cause, lock.ErrLost) {
			t.Errorf("the context ended with %v", cause)
		}
		first := worker.TaskFrom(ctx)
		if _, err := lease.Hold(attempt(t.Context(), "run-2"), b.holder(t), "name", func(ctx context.Context) ([]byte, error) {
			second := worker.TaskFrom(ctx)
			if first.Token("of the engine") != 7 || second.Token("of the engine") != 7 {
				t.Error("the engine's tokens are gone")
			}
			if x, y := first.Token(lease.TokenName("name")), second.Token(lease.TokenName("name")); x == 0 || x >= y {
				t.Errorf("token %d after %d", y, x)
			}
			return do(ctx)
		}); err != nil {
			t.Error(err)
		}
		return do(context.WithoutCancel(ctx))
	})
	stated(t, err, inbox.CodeStaleToken, protocol.OutcomeFailed)
	if effects != 1 {
		t.Errorf("%d effects", effects)
	}
}

func TestWhatAHandlerSaysAfterItsLeaseWasLost(t *testing.T) {
	b := newBench(t)
	for what, test := range map[string]struct {
		says    error
		code    string
		outcome protocol.Outcome
	}{
		"nothing of its own": {context.Canceled, lease.CodeLost, protocol.OutcomeUnknown},
		"retryable":          {worker.Retryable("busy", nil), lease.CodeLost, protocol.OutcomeUnknown},
		"a decision":         {worker.Final("declined", nil), "declined", protocol.OutcomeFailed},
	} {
		t.Run(what, func(t *testing.T) {
			_, err := lease.Hold(attempt(t.Context(), "run"), b.holder(t), "said", func(ctx context.Context) (int, error) {
				b.loseSessions(t)
				<-ctx.Done()
				return 0, test.says
			})
			stated(t, err, test.code, test.outcome)
		})
	}
	// Without an error the effect stands.
	out, err := lease.Hold(attempt(t.Context(), "run"), b.holder(t), "said", func(ctx context.Context) (int, error) {
		b.loseSessions(t)
		<-ctx.Done()
		return 42, nil
	})
	if out != 42 || err != nil {
		t.Errorf("%d, %v", out, err)
	}
}

func TestAnAttemptWithoutItsLeaseHasNoEffect(t *testing.T) {
	b := newBench(t)
	never := func(context.Context) (int, error) { t.Error("it was called"); return 0, nil }
	other := b.holder(t)
	held := must(must(other.Session(t.Context())).TryLock(t.Context(), "name"))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := lease.Hold(attempt(ctx, "run"), b.holder(t), "name", never)
	stated(t, err, lease.CodeNotHeld, protocol.OutcomeFailed)
	_, err = lease.Hold(attempt(t.Context(), "run"), b.holder(t), "no such name", never)
	stated(t, err, lease.CodeNotHeld, protocol.OutcomeFailed)
	if err := held.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	closed := b.holder(t)
	if err := closed.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = lease.Hold(attempt(t.Context(), "run"), closed, "name", never)
	stated(t, err, lease.CodeNotHeld, protocol.OutcomeFailed)
}

// A holder opens another session when its own is lost; a panic gives the lease back.
func TestAHolderGoesOn(t *testing.T) {
	b := newBench(t)
	h := b.holder(t)
	var last uint64
	for range 3 {
		if err := h.Hold(t.Context(), "name", func(_ context.Context, token uint64) error {
			if token <= last {
				t.Errorf("token %d after %d", token, last)
			}
			last = token
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		func() {
			defer func() { _ = recover() }()
			_ = h.Hold(t.Context(), "name", func(context.Context, uint64) error { panic("out of paper") })
		}()
		s := must(h.Session(t.Context()))
		b.loseSessions(t)
		<-s.Lost()
	}
}

type order struct {
	Account string `json:"account"`
}

var (
	count     = definitions.NewTask[order, int]("accounts", "count")
	countOnce = definitions.NewTask[order, int]("accounts", "count-once")
)

// Over RabbitMQ, handlers of two workers with the same lease never overlap.
func TestHandlersOfTwoWorkersTakeTurns(t *testing.T) {
	b := newBench(t)
	if _, err := b.db.Exec(`CREATE TABLE counts (account text PRIMARY KEY, n int NOT NULL); INSERT INTO counts VALUES ('a', 0), ('b', 0)`); err != nil {
		t.Fatal(err)
	}
	br := must(rabbit.New(rabbit.Config{URLs: []string{testenv.RabbitMQ(t).URL}}))
	st := must(sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "runs.db")}))
	t.Cleanup(func() { _ = st.Close() })
	e := must(engine.New(engine.Config{Store: st, Broker: br}))
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Stop(context.Background()) })
	var inside [2]atomic.Int64
	name := func(o order) string { return "accounts/" + o.Account }
	for range 2 {
		w := must(worker.New(worker.Config{Broker: br, Service: "accounts"}))
		h := b.holder(t)
		alone := func(o order) func() {
			n := &inside[strings.Index("ab", o.Account)]
			if n.Add(1) != 1 {
				t.Errorf("two handlers at account %s", o.Account)
			}
			return func() { n.Add(-1) }
		}
		// Reads and writes apart: only the lease keeps the count right.
		lease.Handle(w, h, count, name, func(ctx context.Context, o order) (n int, err error) {
			defer alone(o)()
			if err = b.db.GetContext(ctx, &n, `SELECT n FROM counts WHERE account = $1`, o.Account); err == nil {
				_, err = b.db.ExecContext(ctx, `UPDATE counts SET n = $2 WHERE account = $1`, o.Account, n+1)
			}
			return n + 1, err
		})
		lease.HandleOnce(w, h, b.box, countOnce, name, func(ctx context.Context, tx *sqlx.Tx, o order) (n int, err error) {
			defer alone(o)()
			if worker.TaskFrom(ctx).Token(lease.TokenName(name(o))) == 0 {
				t.Error("the task has no token")
			}
			if err = tx.GetContext(ctx, &n, `SELECT n FROM counts WHERE account = $1`, o.Account); err == nil {
				_, err = tx.ExecContext(ctx, `UPDATE counts SET n = $2 WHERE account = $1`, o.Account, n+1)
			}
			return n + 1, err
		})
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		t.Cleanup(func() { stop(); <-ended })
	}
	wf := definitions.Saga("count")
	wf.Step("first").Do(count).NoCompensation("a count of attempts")
	wf.Step("second").Do(countOnce).Input("input").Pivot()
	if _, err := e.RegisterWorkflow(t.Context(), wf.MustBuild().JSON()); err != nil {
		t.Fatal(err)
	}
	const runs = 20
	for i := range runs {
		if _, err := e.StartRun(t.Context(), rest.Start{Workflow: "count", ID: fmt.Sprint("run-", i), Input: []byte(`{"account":"` + "ab"[i%2:i%2+1] + `"}`)}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range runs {
		for {
			run, err := e.Wait(t.Context(), fmt.Sprint("run-", i), 30*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if run.Status == "succeeded" {
				break
			}
			if run.Status != "running" {
				t.Fatalf("run %d is %s", i, run.Status)
			}
		}
	}
	var n []int
	if err := b.db.Select(&n, `SELECT n FROM counts`); err != nil || n[0] != runs || n[1] != runs {
		t.Errorf("counts %v, %v", n, err)
	}
}
