package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/outbox"
)

var (
	checkOrder = definitions.NewTask[any, any]("shop", "check")
	shipOrder  = definitions.NewTask[any, any]("shop", "ship")
)

// shop is an orchestrator with a saga that checks back, and the shop's worker.
type shop struct {
	*engine.Engine
	mu      sync.Mutex
	shipped map[string]int
}

func newShop(t *testing.T, marks *outbox.Marks, br broker.Broker, wait time.Duration) *shop {
	t.Helper()
	st := must(sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "runs.db")}))
	t.Cleanup(func() { _ = st.Close() })
	s := &shop{Engine: must(engine.New(engine.Config{Store: st, Broker: br})), shipped: map[string]int{}}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Stop(context.Background()) })
	b := definitions.Saga("order").CheckBack(checkOrder, wait)
	b.Step("ship").Do(shipOrder).Pivot()
	must(s.RegisterWorkflow(t.Context(), b.MustBuild().JSON()))

	w := must(worker.New(worker.Config{Broker: br, Service: "shop"}))
	worker.Handle(w, checkOrder, func(ctx context.Context, _ any) (any, error) {
		committed, err := marks.Committed(ctx, worker.TaskFrom(ctx).RunID)
		if err == nil && !committed {
			err = worker.Final("not_committed", errors.New("the order was never placed"))
		}
		return nil, err
	})
	worker.Handle(w, shipOrder, func(ctx context.Context, _ any) (any, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.shipped[worker.TaskFrom(ctx).RunID]++
		return nil, nil
	})
	ctx, cancel := context.WithCancel(context.Background())
	left := make(chan error, 1)
	go func() { left <- w.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-left })
	return s
}

// ends checks how a run ends, and that it has shipped or not.
func (s *shop) ends(t *testing.T, id, status string) {
	t.Helper()
	r := must(s.Wait(t.Context(), id, patience))
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Status != status || (status == "succeeded") != (s.shipped[id] == 1) {
		t.Errorf("%s is %s (%s) and has shipped %d times; it should be %s", id, r.Status, r.Error, s.shipped[id], status)
	}
}

// The application stops at each point between prepare and submit, or is late.
func TestCheckBackFindsOutWhatTheApplicationDid(t *testing.T) {
	onEach(t, outbox.Options{}, func(t *testing.T, b bench) {
		marks := must(outbox.NewMarks(t.Context(), b.db, b.dialect, ""))
		s := newShop(t, marks, inProcess(t), 50*time.Millisecond)
		prepare := func(id string) { must(s.StartRun(t.Context(), rest.Start{Workflow: "order", ID: id})) }
		order := func(id string) (*sqlx.Tx, error) {
			tx := must(b.db.Beginx())
			return tx, marks.Set(t.Context(), tx, id)
		}
		check := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		prepare("never-began")
		s.ends(t, "never-began", "compensated")

		tx, err := order("rolled-back")
		check(err)
		prepare("rolled-back")
		check(tx.Rollback())
		s.ends(t, "rolled-back", "compensated")

		tx, err = order("committed")
		check(err)
		prepare("committed")
		check(tx.Commit())
		s.ends(t, "committed", "succeeded")

		tx, err = order("submitted")
		check(err)
		check(tx.Commit())
		prepare("submitted")
		must(s.Signal(t.Context(), "submitted", "submitted", rest.Signal{}))
		s.ends(t, "submitted", "succeeded")

		for _, late := range []string{"never-began", "rolled-back", "committed"} {
			tx, err = order(late)
			if !errors.Is(err, outbox.ErrMarked) {
				t.Errorf("a late transaction of %q may commit: %v", late, err)
			}
			check(tx.Rollback())
		}
		tx = must(b.db.Beginx())
		if err := marks.Set(t.Context(), tx, ""); !errors.Is(err, outbox.ErrInvalid) {
			t.Errorf("a mark without a run: %v", err)
		}
		check(tx.Rollback())
	})
}

// A check and a transaction at the same time: one of them wins, and both know.
func TestACheckAndACommitAtOnce(t *testing.T) {
	onEach(t, outbox.Options{}, func(t *testing.T, b bench) {
		marks := must(outbox.NewMarks(t.Context(), b.db, b.dialect, ""))
		for i := range 30 {
			run := fmt.Sprint("run-", i)
			var both sync.WaitGroup
			var set error
			var committed bool
			both.Go(func() {
				tx := must(b.db.Beginx())
				if set = marks.Set(t.Context(), tx, run); set != nil {
					_ = tx.Rollback()
				} else {
					set = tx.Commit()
				}
			})
			both.Go(func() { committed = must(marks.Committed(t.Context(), run)) })
			both.Wait()
			if (set == nil) != committed || committed != must(marks.Committed(t.Context(), run)) {
				t.Errorf("%s: the mark says %v, the check %v", run, set, committed)
			}
		}
	})
}

// childMarks makes the test binary an application that places the orders of
// runs until it is killed, and submits none.
const childMarks = "OUTBOX_CHILD_MARKS"

const markedRuns = 60

func markingApplication() {
	ctx := context.Background()
	db := sqlx.MustOpen(os.Getenv(childDriver), os.Getenv(childDSN))
	marks := must(outbox.NewMarks(ctx, db, outbox.Dialect(must(strconv.Atoi(os.Getenv(childDialect)))), ""))
	for i := range markedRuns {
		id := fmt.Sprint("run-", i)
		tx := db.MustBegin()
		tx.MustExec(fmt.Sprintf(`INSERT INTO orders VALUES ('%s')`, id))
		if marks.Set(ctx, tx, id) != nil {
			_ = tx.Rollback()
			continue
		}
		_ = tx.Commit()
	}
	select {}
}

// An application is killed while it places the orders of runs that have been
// started: each order is shipped, and nothing else is.
func TestAKilledApplicationIsCheckedBack(t *testing.T) {
	onEach(t, outbox.Options{}, func(t *testing.T, b bench) {
		marks := must(outbox.NewMarks(t.Context(), b.db, b.dialect, ""))
		s := newShop(t, marks, inProcess(t), 200*time.Millisecond)
		for i := range markedRuns {
			must(s.StartRun(t.Context(), rest.Start{Workflow: "order", ID: fmt.Sprint("run-", i)}))
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childDriver+"="+b.driver, childDSN+"="+b.dsn, childDialect+"="+strconv.Itoa(int(b.dialect)), childMarks+"=1")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		count := func() (n int) {
			_ = b.db.Get(&n, `SELECT count(*) FROM orders`)
			return n
		}
		ended := func() bool { // the checks may have overtaken it
			return must(s.Run(t.Context(), fmt.Sprint("run-", markedRuns-1))).Ended != nil
		}
		eventually(t, "some orders are placed", func() bool { return count() >= 5 || ended() })
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		for i := range markedRuns {
			id, want := fmt.Sprint("run-", i), "compensated"
			must(s.Wait(t.Context(), id, patience))
			var n int
			if err := b.db.Get(&n, fmt.Sprintf(`SELECT count(*) FROM orders WHERE id = '%s'`, id)); err != nil {
				t.Fatal(err)
			}
			if n == 1 {
				want = "succeeded"
			}
			s.ends(t, id, want)
		}
	})
}
