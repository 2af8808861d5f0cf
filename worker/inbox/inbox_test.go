package inbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/jmoiron/sqlx"
	_ "github.com/mattn/go-sqlite3"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/inbox"
)

// bench is a database with an inbox and a table of effects.
type bench struct {
	db      *sqlx.DB
	dialect inbox.Dialect
	box     *inbox.Inbox
	dsn     string
}

func onEach(t *testing.T, o inbox.Options, f func(t *testing.T, b bench)) {
	t.Helper()
	run := func(name string, d inbox.Dialect, driver string, dsn func(t *testing.T) string) {
		t.Run(name, func(t *testing.T) {
			dsn := dsn(t)
			db := sqlx.MustOpen(driver, dsn)
			db.SetMaxOpenConns(20)
			t.Cleanup(func() { db.Close() })
			box, err := inbox.New(t.Context(), db, d, o)
			if err != nil {
				t.Fatal(err)
			}
			db.MustExec(`CREATE TABLE effects (run TEXT NOT NULL, phase TEXT NOT NULL)`)
			f(t, bench{db, d, box, dsn})
		})
	}
	run("SQLite", inbox.SQLite, "sqlite3", sqliteDSN)
	run("MariaDB", inbox.MySQL, "mysql", func(t *testing.T) string { return testenv.MySQL(t) })
	run("PostgreSQL", inbox.Postgres, "pgx", func(t *testing.T) string { return testenv.Postgres(t) })
}

func sqliteDSN(t *testing.T) string {
	return "file:" + filepath.Join(t.TempDir(), "worker.db") + "?_journal_mode=WAL&_synchronous=OFF&_busy_timeout=10000"
}

// task returns the context of a task.
func task(ctx context.Context, run string, p protocol.Phase, generation, attempt uint32) context.Context {
	return worker.WithTask(ctx, worker.TaskInfo{
		RunID: run, Step: "pay", Phase: p, Generation: generation, Attempt: attempt,
		NotAfter: time.Now().Add(time.Hour),
	})
}

// apply is a handler that leaves a row in effects and returns a result that
// differs from call to call.
func (b bench) apply(ctx context.Context, tx *sqlx.Tx) ([]byte, error) {
	info := worker.TaskFrom(ctx)
	query := tx.Rebind(`INSERT INTO effects VALUES (?, ?)`)
	if b.dialect == inbox.Postgres {
		query = `INSERT INTO effects VALUES ($1, $2)`
	}
	if _, err := tx.ExecContext(ctx, query, info.RunID, info.Phase.String()); err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, `{"attempt":%d}`, info.Attempt), nil
}

func (b bench) effects(t *testing.T, run string, p protocol.Phase) (n int) {
	t.Helper()
	query := fmt.Sprintf(`SELECT count(*) FROM effects WHERE run = '%s' AND phase = '%s'`, run, p)
	if err := b.db.Get(&n, query); err != nil {
		t.Fatal(err)
	}
	return n
}

func (b bench) rows(t *testing.T) (n int) {
	t.Helper()
	if err := b.db.Get(&n, `SELECT count(*) FROM ringmaster_inbox`); err != nil {
		t.Fatal(err)
	}
	return n
}

func codeOf(err error) string {
	var e *worker.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

const (
	action     = protocol.PhaseAction
	compensate = protocol.PhaseCompensate
)

func TestADuplicateAnswersTheStoredResult(t *testing.T) {
	onEach(t, inbox.Options{}, func(t *testing.T, b bench) {
		first, err := b.box.Do(task(t.Context(), "r", action, 1, 1), b.apply)
		if err != nil {
			t.Fatal(err)
		}
		second, err := b.box.Do(task(t.Context(), "r", action, 1, 2), b.apply)
		if err != nil || string(second) != string(first) || string(first) != `{"attempt":1}` {
			t.Fatalf("first %s, second %s, %v", first, second, err)
		}
		if n := b.effects(t, "r", action); n != 1 {
			t.Fatalf("%d effects", n)
		}
	})
}

// S6: a compensation ahead of its action is a recorded no-op and the late
// action is refused.
func TestS6ACompensationAheadOfItsActionBlocksIt(t *testing.T) {
	for _, phases := range [][2]protocol.Phase{{action, compensate}, {protocol.PhasePrepare, protocol.PhaseAbort}} {
		t.Run(phases[1].String(), func(t *testing.T) {
			onEach(t, inbox.Options{}, func(t *testing.T, b bench) { compensateFirst(t, b, phases[0], phases[1]) })
		})
	}
}

func compensateFirst(t *testing.T, b bench, forward, undo protocol.Phase) {
	for attempt := uint32(1); attempt <= 2; attempt++ {
		out, err := b.box.Do(task(t.Context(), "r", undo, 1, attempt), b.apply)
		if err != nil || string(out) != "null" {
			t.Fatalf("null compensation: %s, %v", out, err)
		}
	}
	for generation := uint32(1); generation <= 2; generation++ {
		_, err := b.box.Do(task(t.Context(), "r", forward, generation, 1), b.apply)
		if codeOf(err) != inbox.CodeSuspended {
			t.Fatalf("late action: %v", err)
		}
	}
	if b.effects(t, "r", forward)+b.effects(t, "r", undo) != 0 {
		t.Fatal("something took effect")
	}
}

func TestACompensationUndoesWhatTookEffect(t *testing.T) {
	onEach(t, inbox.Options{}, func(t *testing.T, b bench) {
		for _, p := range []protocol.Phase{action, compensate, compensate, action} {
			if _, err := b.box.Do(task(t.Context(), "r", p, 1, 1), b.apply); err != nil {
				t.Fatal(p, err)
			}
		}
		if b.effects(t, "r", action) != 1 || b.effects(t, "r", compensate) != 1 {
			t.Fatal("not once each")
		}
	})
}

func TestTheCompensationOfAChildRunHadNoActionHere(t *testing.T) {
	onEach(t, inbox.Options{}, func(t *testing.T, b bench) {
		ctx := worker.WithTask(t.Context(), worker.TaskInfo{
			RunID: "r", Step: "pay", Phase: protocol.PhaseCompensate, Generation: 1, Attempt: 1, UndoesRun: true,
		})
		for range 2 {
			if _, err := b.box.Do(ctx, b.apply); err != nil {
				t.Fatal(err)
			}
		}
		if n := b.effects(t, "r", protocol.PhaseCompensate); n != 1 {
			t.Errorf("it took effect %d times, not once", n)
		}
	})
}

func TestAFailureLeavesNoRow(t *testing.T) {
	boom := errors.New("boom")
	cases := map[string]struct {
		fail  func(cancel func()) error
		code  string
		panic bool
	}{
		"plain error":   {fail: func(func()) error { return boom }},
		"final failure": {fail: func(func()) error { return worker.Final("declined", boom) }, code: "declined"},
		"panic":         {fail: func(func()) error { panic("boom") }, panic: true},
		"out of time":   {fail: func(cancel func()) error { cancel(); return context.Canceled }},
	}
	onEach(t, inbox.Options{}, func(t *testing.T, b bench) {
		for name, c := range cases {
			ctx, cancel := context.WithCancel(t.Context())
			_, err := b.box.Do(task(ctx, name, action, 1, 1), func(ctx context.Context, tx *sqlx.Tx) ([]byte, error) {
				if _, err := b.apply(ctx, tx); err != nil {
					return nil, err
				}
				return nil, c.fail(cancel)
			})
			cancel()
			var panicked *worker.PanicError
			if err == nil || codeOf(err) != c.code || errors.As(err, &panicked) != c.panic {
				t.Errorf("%s: %v", name, err)
			}
			if b.effects(t, name, action) != 0 || b.rows(t) != 0 {
				t.Errorf("%s: left something behind", name)
			}
			if _, err := b.box.Do(task(t.Context(), name, action, 1, 2), b.apply); err != nil {
				t.Errorf("%s: second attempt: %v", name, err)
			}
			b.db.MustExec(`DELETE FROM ringmaster_inbox`)
		}
	})
}

func TestGenerationsDoNotMix(t *testing.T) {
	onEach(t, inbox.Options{}, func(t *testing.T, b bench) {
		if _, err := b.box.Do(task(t.Context(), "r", action, 2, 1), b.apply); err != nil {
			t.Fatal(err)
		}
		if _, err := b.box.Do(task(t.Context(), "r", action, 1, 1), b.apply); codeOf(err) != inbox.CodeSuperseded {
			t.Fatalf("older generation: %v", err)
		}
		_, err := b.box.Do(task(t.Context(), "r", action, 3, 1), b.apply)
		var stated *worker.Error
		if !errors.As(err, &stated) || stated.Code != inbox.CodeConflict || stated.Outcome != protocol.OutcomeUnknown {
			t.Fatalf("newer generation: %v", err)
		}
		if n := b.effects(t, "r", action); n != 1 {
			t.Fatalf("%d effects", n)
		}
	})
}

// S5: at most one effect per (run, step, phase) under any redelivery. Every
// run gets several deliveries of its action and of its compensation at once;
// handlers fail, panic and succeed at random; each is retried until it has an
// answer, as the engine would.
func TestS5EffectsHappenOnceInEveryOrderOfDelivery(t *testing.T) {
	const runs, copies = 25, 3
	onEach(t, inbox.Options{}, func(t *testing.T, b bench) {
		var all []delivery
		for r := range runs {
			for range copies {
				all = append(all, delivery{fmt.Sprint("run-", r), action}, delivery{fmt.Sprint("run-", r), compensate})
			}
		}
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		var mu sync.Mutex
		answers := map[delivery]string{}
		var wg sync.WaitGroup
		work := make(chan delivery)
		for range 16 {
			wg.Go(func() {
				for d := range work {
					answer := b.deliver(t, d.run, d.phase)
					mu.Lock()
					if earlier, ok := answers[d]; ok && earlier != answer {
						t.Errorf("%v: answered %s, then %s", d, earlier, answer)
					}
					answers[d] = answer
					mu.Unlock()
				}
			})
		}
		for _, d := range all {
			work <- d
		}
		close(work)
		wg.Wait()
		nulls := 0
		for r := range runs {
			run := fmt.Sprint("run-", r)
			applied, undone := b.effects(t, run, action), b.effects(t, run, compensate)
			suspended := answers[delivery{run, action}] == inbox.CodeSuspended
			if applied != undone || applied > 1 || suspended != (applied == 0) {
				t.Errorf("%s: action %d times, compensation %d times, answers %q and %q", run, applied, undone,
					answers[delivery{run, action}], answers[delivery{run, compensate}])
			}
			if applied == 0 {
				nulls++
			}
		}
		t.Logf("%d of %d runs were compensated before their action", nulls, runs)
	})
}

// deliver repeats attempts until one is answered.
func (b bench) deliver(t *testing.T, run string, p protocol.Phase) string {
	for attempt := uint32(1); ; attempt++ {
		out, err := b.box.Do(task(t.Context(), run, p, 1, attempt), func(ctx context.Context, tx *sqlx.Tx) ([]byte, error) {
			out, err := b.apply(ctx, tx)
			switch rand.N(6) {
			case 0:
				return nil, errors.New("no luck")
			case 1:
				panic("no luck")
			}
			return out, err
		})
		if err == nil {
			return string(out)
		}
		if code := codeOf(err); code == inbox.CodeSuspended {
			return code
		}
		if !strings.Contains(err.Error(), "no luck") {
			t.Errorf("%s %v attempt %d: %v", run, p, attempt, err)
			return "error"
		}
	}
}

// A compensation waits for an action in flight, and sees how it ended.
func TestACompensationWaitsForItsActionInFlight(t *testing.T) {
	onEach(t, inbox.Options{}, func(t *testing.T, b bench) {
		for _, fails := range []bool{false, true} {
			run := fmt.Sprint("fails-", fails)
			entered, proceed, acted := make(chan struct{}), make(chan struct{}), make(chan error, 1)
			go func() {
				_, err := b.box.Do(task(t.Context(), run, action, 1, 1), func(ctx context.Context, tx *sqlx.Tx) ([]byte, error) {
					close(entered)
					<-proceed
					out, err := b.apply(ctx, tx)
					if fails {
						return nil, worker.Final("declined", nil)
					}
					return out, err
				})
				acted <- err
			}()
			<-entered
			undone := make(chan error, 1)
			go func() {
				_, err := b.box.Do(task(t.Context(), run, compensate, 1, 1), b.apply)
				undone <- err
			}()
			select {
			case err := <-undone:
				t.Fatalf("did not wait: %v", err)
			case <-time.After(50 * time.Millisecond):
			}
			close(proceed)
			if err := <-acted; (err != nil) != fails {
				t.Fatal(err)
			}
			if err := <-undone; err != nil {
				t.Fatal(err)
			}
			want := 1
			if fails {
				want = 0
			}
			if b.effects(t, run, action) != want || b.effects(t, run, compensate) != want {
				t.Fatalf("%s: %d actions, %d compensations", run, b.effects(t, run, action), b.effects(t, run, compensate))
			}
		}
	})
}

func TestSerializableTransactionsAreStartedAgain(t *testing.T) {
	onEach(t, inbox.Options{Isolation: sql.LevelSerializable}, func(t *testing.T, b bench) {
		if b.dialect == inbox.SQLite {
			b.box = must(inbox.New(t.Context(), b.db, b.dialect, inbox.Options{})) // it is serializable as it is
		}
		b.db.MustExec(`CREATE TABLE account (balance INTEGER NOT NULL)`)
		b.db.MustExec(`INSERT INTO account VALUES (0)`)
		var wg sync.WaitGroup
		for i := range 12 {
			wg.Go(func() {
				_, err := b.box.Do(task(t.Context(), fmt.Sprint("r", i), action, 1, 1), func(ctx context.Context, tx *sqlx.Tx) ([]byte, error) {
					var n int
					if err := tx.GetContext(ctx, &n, `SELECT balance FROM account`); err != nil {
						return nil, err
					}
					_, err := tx.ExecContext(ctx, fmt.Sprintf(`UPDATE account SET balance = %d`, n+1))
					return nil, err
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		var n int
		if err := b.db.Get(&n, `SELECT balance FROM account`); err != nil || n != 12 {
			t.Fatalf("balance %d, %v", n, err)
		}
	})
}

// A handler that goes on after its transaction has ended is not taken for one
// that succeeded.
func TestATransactionThatEndsUnderItsHandlerIsNoSuccess(t *testing.T) {
	onEach(t, inbox.Options{}, func(t *testing.T, b bench) {
		_, err := b.box.Do(task(t.Context(), "r", action, 1, 1), func(ctx context.Context, tx *sqlx.Tx) ([]byte, error) {
			_, err := tx.ExecContext(ctx, `ROLLBACK`) // as a deadlock does it on MySQL
			return nil, err
		})
		var stated *worker.Error
		if !errors.As(err, &stated) || stated.Code != inbox.CodeTxLost || stated.Outcome != protocol.OutcomeUnknown {
			t.Fatalf("%v", err)
		}
		if n := b.rows(t); n != 0 {
			t.Fatalf("%d rows", n)
		}
	})
}

// Keys that differ in case, accents or trailing blanks are different keys,
// whatever the database's collation says.
func TestKeysAreComparedByteByByte(t *testing.T) {
	onEach(t, inbox.Options{}, func(t *testing.T, b bench) {
		for _, run := range []string{"run", "RUN", "rún", "run "} {
			out, err := b.box.Do(task(t.Context(), run, action, 1, 1), func(context.Context, *sqlx.Tx) ([]byte, error) {
				return fmt.Appendf(nil, "%q", run), nil
			})
			if err != nil || string(out) != fmt.Sprintf("%q", run) {
				t.Errorf("%q: %s, %v", run, out, err)
			}
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestCleanupKeepsWhatMayStillBeNeeded(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Now()
	ended := map[string]time.Time{"ended long ago": now.Add(-3 * day), "ended just now": now}
	o := inbox.Options{Ended: func(_ context.Context, runs []string) (map[string]time.Time, error) { return ended, nil }}
	onEach(t, o, func(t *testing.T, b bench) {
		insert := func(run string, created, notAfter time.Time) {
			b.db.MustExec(fmt.Sprintf(`INSERT INTO ringmaster_inbox VALUES ('%s/%d', '%s', 's', 'action', 1, 'done', NULL, %d, %d)`, run, created.UnixNano(), run, created.UnixMilli(), notAfter.UnixMilli()))
		}
		for i := range 7 {
			insert("ended long ago", now.Add(-5*day-time.Duration(i)*time.Second), now.Add(-4*day))
		}
		insert("ended just now", now.Add(-6*day), now.Add(-4*day)) // horizon of its end not over
		insert("not ended", now.Add(-5*day), now.Add(-4*day))
		insert("ended long ago", now.Add(-time.Hour), now.Add(-time.Minute)) // too young
		insert("ended long ago", now.Add(-4*day), now.Add(time.Hour))        // may still be started
		n, err := b.box.Cleanup(t.Context(), 2*day, 2)
		if err != nil || n != 7 {
			t.Fatalf("deleted %d, %v", n, err)
		}
		if n := b.rows(t); n != 4 {
			t.Fatalf("%d rows left", n)
		}
		byAge := must(inbox.New(t.Context(), b.db, b.dialect, inbox.Options{}))
		if n, err := byAge.Cleanup(t.Context(), 2*day, 0); err != nil || n != 2 {
			t.Fatalf("by age: deleted %d, %v", n, err)
		}
	})
}

func TestTheTableMayBeMadeByManyAtOnce(t *testing.T) {
	onEach(t, inbox.Options{}, func(t *testing.T, b bench) {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if _, err := inbox.New(t.Context(), b.db, b.dialect, inbox.Options{Table: "another"}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

func TestBadOptionsAreRefused(t *testing.T) {
	db := sqlx.MustOpen("sqlite3", sqliteDSN(t))
	defer db.Close()
	for name, f := range map[string]func() error{
		"dialect": func() error { _, err := inbox.New(t.Context(), db, 0, inbox.Options{}); return err },
		"Table": func() error {
			_, err := inbox.New(t.Context(), db, inbox.SQLite, inbox.Options{Table: `a"b`})
			return err
		},
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	box := must(inbox.New(t.Context(), db, inbox.SQLite, inbox.Options{}))
	if _, err := box.Do(t.Context(), nil); codeOf(err) != inbox.CodeNoTask {
		t.Errorf("outside of a task: %v", err)
	}
	if _, err := box.Cleanup(t.Context(), 0, 0); err == nil {
		t.Error("a horizon of zero was taken")
	}
}
