package xa_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/xa"
)

// patience bounds every wait of these tests.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	if os.Getenv(childDSN) != "" {
		child()
	}
	if os.Getenv(orchestratorAMQP) != "" {
		orchestrator()
	}
	os.Exit(m.Run())
}

func TestABranchIsCommittedOnceHoweverOftenItIsAsked(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		b := bankAt(t, k, k.dsn(t), k.least, xa.Options{Isolation: sql.LevelSerializable})
		answered(t, b.prepare("r", 1, add(-10)), succeeded, "", `{"attempt":1}`)
		answered(t, b.prepare("r", 2, add(-10)), succeeded, "", `{"attempt":1}`)
		b.expect(100, 1)
		for range 3 {
			answered(t, b.commit("r"), succeeded, "", "null")
			b.expect(90, 0)
		}
		answered(t, b.prepare("r", 3, add(-10)), succeeded, "", `{"attempt":1}`)
		b.expect(90, 0)
		// An abort that contradicts is told so.
		answered(t, b.abort("r"), failed, xa.CodeHeuristicCommit, "")
		b.expect(90, 0)
	})
}

func TestAnAbortRollsBackAndKeepsTheLatePrepareOut(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		b := newBank(t, k, xa.Options{})
		answered(t, b.prepare("r", 1, add(-10)), succeeded, "", "")
		for range 2 {
			answered(t, b.abort("r"), succeeded, "", "")
			b.expect(100, 0)
		}
		answered(t, b.prepare("r", 2, add(-10)), failed, xa.CodeSuspended, "")
		answered(t, b.abort("early"), succeeded, "", "")
		late := b.prepare("early", 1, add(-10))
		answered(t, late, failed, xa.CodeSuspended, "")
		if late.Retryable {
			t.Error("the late prepare may be tried again")
		}
		answered(t, b.commit("early"), failed, xa.CodeHeuristicRollback, "")
		b.expect(100, 0)
	})
}

func TestAFailedHandlerLeavesNothing(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		b := newBank(t, k, xa.Options{})
		then := func(err error) xa.Func {
			return func(ctx context.Context, tx *xa.Tx) ([]byte, error) {
				if _, err := add(-10)(ctx, tx); err != nil {
					return nil, err
				}
				if err == nil {
					panic("dropped a plate")
				}
				return nil, err
			}
		}
		answered(t, b.prepare("r", 1, then(errors.New("not now"))), failed, worker.CodeError, "")
		answered(t, b.prepare("r", 2, then(nil)), failed, worker.CodePanic, "")
		answered(t, b.prepare("r", 3, then(worker.Final("no_cover", errors.New("too little")))), failed, "no_cover", "")
		answered(t, b.prepare("r", 4, then(worker.Unknown("mail", errors.New("sent?")))), unknown, "mail", "")
		// An error that the handler has passed over ends the branch all the same in
		// PostgreSQL; in MariaDB it has undone its statement, and no more.
		r := b.prepare("r", 5, func(ctx context.Context, tx *xa.Tx) ([]byte, error) {
			_, _ = add(-1000)(ctx, tx)
			return nil, run(ctx, tx, `UPDATE accounts SET balance = 1 WHERE id = 2`)
		})
		if k.dialect == xa.Postgres {
			answered(t, r, failed, worker.CodeError, "")
		} else {
			answered(t, r, succeeded, "", "")
			answered(t, b.abort("r"), succeeded, "", "")
			b.expect(100, 0)
			return
		}
		b.expect(100, 0)
		answered(t, b.prepare("r", 6, add(-10)), succeeded, "", `{"attempt":6}`)
		b.expect(100, 1)
	})
}

// T11: it has no phase two, and asking anyway is harmless.
func TestT11AHandlerThatHasWrittenNothingVotesReadOnly(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		b := newBank(t, k, xa.Options{})
		calls := 0
		read := func(ctx context.Context, tx *xa.Tx) ([]byte, error) {
			calls++
			var n int
			return nil, tx.GetContext(ctx, &n, `SELECT balance FROM accounts WHERE id = 1`)
		}
		for attempt := range uint32(2) {
			answered(t, b.prepare("r", attempt+1, read), readOnly, "", "")
		}
		answered(t, b.commit("r"), succeeded, "", "null")
		answered(t, b.abort("r"), succeeded, "", "")
		if calls != 1 {
			t.Errorf("the handler ran %d times", calls)
		}
		b.expect(100, 0)
	})
}

func TestAWaitForALockHasAnEnd(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		b := newBank(t, k, xa.Options{LockTimeout: 50 * time.Millisecond})
		answered(t, b.prepare("first", 1, add(-10)), succeeded, "", "")
		r := b.prepare("second", 1, add(-10))
		answered(t, r, failed, xa.CodeLockTimeout, "")
		if !r.Retryable {
			t.Error("a wait that took too long is final")
		}
		answered(t, b.commit("first"), succeeded, "", "")
		answered(t, b.prepare("second", 2, add(-10)), succeeded, "", "")
		b.expect(90, 1)
	})
}

func TestConcurrentDuplicatesWaitForEachOther(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		b := newBank(t, k, xa.Options{})
		const duplicates = 8
		answers := make(chan protocol.Result, duplicates)
		for attempt := range uint32(duplicates) {
			go func() { answers <- b.prepare("r", attempt+1, add(-10)) }()
		}
		var first string
		for range duplicates {
			r := <-answers
			answered(t, r, succeeded, "", first)
			first = string(r.Payload)
		}
		b.expect(100, 1)
		for range duplicates {
			go func() { answers <- b.commit("r") }()
		}
		for range duplicates {
			// One that comes upon another at work is told to come again.
			if r := <-answers; r.Outcome != succeeded && r.Code != xa.CodeBusy {
				t.Errorf("answered %v %s %s", r.Outcome, r.Code, r.Message)
			}
		}
		b.expect(90, 0)
	})
}

func TestADuplicateThatHasWaitedTooLongIsBusy(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		b := newBank(t, k, xa.Options{LockTimeout: 50 * time.Millisecond})
		inside, leave := make(chan struct{}), make(chan struct{})
		first := make(chan protocol.Result)
		go func() {
			first <- b.prepare("r", 1, func(ctx context.Context, tx *xa.Tx) ([]byte, error) {
				close(inside)
				<-leave
				return add(-10)(ctx, tx)
			})
		}()
		<-inside
		answered(t, b.prepare("r", 2, add(-10)), failed, xa.CodeBusy, "")
		answered(t, b.abort("r"), failed, xa.CodeBusy, "")
		close(leave)
		answered(t, <-first, succeeded, "", `{"attempt":1}`)
		b.expect(100, 1)
	})
}

func TestABranchRolledBackByHandIsReported(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		b := newBank(t, k, xa.Options{})
		answered(t, b.prepare("r", 1, add(-10)), succeeded, "", "")
		b.rollBackByHand(b.p.GID("r", "debit"))
		answered(t, b.prepare("r", 2, add(-10)), failed, xa.CodeHeuristicRollback, "")
		r := b.commit("r")
		answered(t, r, failed, xa.CodeHeuristicRollback, "")
		if r.Retryable || !strings.Contains(r.Message, b.p.GID("r", "debit")) {
			t.Errorf("retryable %v: %s", r.Retryable, r.Message)
		}
		b.expect(100, 0)
	})
}

func TestAHandlerThatEndsItsTransactionIsFoundOut(t *testing.T) {
	again := map[xa.Dialect][2][]string{
		xa.Postgres: {{`COMMIT`}, {`COMMIT`, `BEGIN`, `UPDATE accounts SET balance = 5 WHERE id = 2`, `COMMIT`}},
		xa.MySQL:    {{`XA END 'GID'`, `XA COMMIT 'GID' ONE PHASE`}, {`XA END 'GID'`, `XA PREPARE 'GID'`}},
	}
	each(t, func(t *testing.T, k kind) {
		b := newBank(t, k, xa.Options{})
		for i, stmts := range again[k.dialect] {
			id := fmt.Sprint("r", i)
			answered(t, b.prepare(id, 1, func(ctx context.Context, tx *xa.Tx) ([]byte, error) {
				out, err := add(-10)(ctx, tx)
				for _, stmt := range stmts {
					err = errors.Join(err, run(ctx, tx, strings.ReplaceAll(stmt, "GID", b.p.GID(id, "debit"))))
				}
				return out, err
			}), unknown, xa.CodeTxLost, "")
			if gids := b.prepared(); len(gids) != 0 {
				t.Errorf("prepared are %v", gids)
			}
		}
	})
}

func run(ctx context.Context, tx *xa.Tx, query string) error {
	_, err := tx.ExecContext(ctx, query)
	return err
}

// A branch that is prepared already, though nothing is noted of it, has never been
// answered: it is rolled back and done anew.
func TestABranchThatIsPreparedAlreadyIsDoneAnew(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		b := newBank(t, k, xa.Options{})
		b.prepareByHand(b.p.GID("r", "debit"), `UPDATE accounts SET balance = 5 WHERE id = 1`)
		insist(t, "prepare", func(attempt uint32) protocol.Result { return b.prepare("r", attempt, add(-10)) })
		b.expect(100, 1)
		answered(t, b.commit("r"), succeeded, "", "")
		b.expect(90, 0)
	})
}

// Whoever votes again, though another would have voted otherwise, gets the vote
// that was given; a newer generation learns that the older one has taken effect.
func TestAVoteIsGivenOnce(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		b := newBank(t, k, xa.Options{})
		answered(t, b.prepare("r", 1, add(-10)), succeeded, "", `{"attempt":1}`)
		no := func(context.Context, *xa.Tx) ([]byte, error) { return nil, worker.Final("no", errors.New("no")) }
		answered(t, b.prepare("r", 2, no), succeeded, "", `{"attempt":1}`)
		again := worker.TaskInfo{RunID: "r", Step: "debit", Phase: protocol.PhasePrepare, Generation: 2, Attempt: 1}
		r := worker.Perform(worker.WithTask(t.Context(), again), func(ctx context.Context, _ []byte) ([]byte, error) {
			return b.p.Prepare(ctx, add(-20))
		}, nil)
		answered(t, r, unknown, xa.CodeConflict, "")
		answered(t, b.commit("r"), succeeded, "", "")
		b.expect(90, 0)
	})
}

// A commit that finds nothing is not taken for one in one phase.
func TestACommitOfABranchThatTheDatabaseDoesNotKnowIsReported(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		b := newBank(t, k, xa.Options{})
		for range 2 {
			r := b.commit("nobody")
			answered(t, r, failed, xa.CodeHeuristicRollback, "")
			if r.Retryable || !strings.Contains(r.Message, "restored") {
				t.Errorf("retryable %v: %s", r.Retryable, r.Message)
			}
		}
		b.expect(100, 0)
	})
}

func TestAParticipantThatIsAloneCommitsInOnePhase(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		b := newBank(t, k, xa.Options{})
		for range 2 {
			answered(t, b.commitAlone("r"), succeeded, "", `{"attempt":1}`)
			b.expect(93, 0)
		}
		answered(t, b.prepare("r", 1, add(-10)), unknown, xa.CodeConflict, "")
		b.expect(93, 0)
	})
}

// T5, T8: what is in doubt is ended by the decision.
func TestT5RecoverEndsWhatIsInDoubt(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		b := newBank(t, k, xa.Options{Namespace: "bank_a"})
		other, err := xa.New(t.Context(), b.db, k.dialect, xa.Options{Namespace: "bank_b"})
		if err != nil {
			t.Fatal(err)
		}
		decisions := map[string]xa.Decision{"yes": xa.Committed, "no": xa.Aborted, "open": xa.Undecided}
		for run := range decisions {
			answered(t, b.prepare(run, 1, func(ctx context.Context, tx *xa.Tx) ([]byte, error) {
				_, err := tx.ExecContext(ctx, tx.Rebind(`INSERT INTO accounts VALUES (?, 1)`), 10+len(run))
				return nil, err
			}), succeeded, "", "")
		}
		// Neither a branch of another namespace is touched nor one of no known run.
		if _, err := other.Prepare(task(t.Context(), "yes", protocol.PhasePrepare, 1), add(1)); err != nil {
			t.Fatal(err)
		}
		orphan := b.p.GID("nobody", "knows")
		b.prepareByHand(orphan, `INSERT INTO accounts VALUES (99, 1)`)
		decide := func(_ context.Context, run string) (xa.Decision, error) { return decisions[run], nil }
		done, err := b.p.Recover(t.Context(), decide)
		if err == nil || !strings.Contains(err.Error(), orphan) {
			t.Errorf("of the branch without a run it says: %v", err)
		}
		if (done != xa.Recovered{Committed: 1, Aborted: 1, Left: 2}) {
			t.Errorf("recovered %+v", done)
		}
		if n := len(b.prepared()); n != 3 {
			t.Errorf("%d branches are prepared, not 3", n)
		}
		left, err := b.p.InDoubt(t.Context())
		if err != nil || len(left) != 2 || left[0].Run != "open" || left[1].Run != "" || left[0].Step != "debit" || !left[0].Voted || left[0].Prepared.IsZero() {
			t.Errorf("in doubt are %+v, %v", left, err)
		}
		answered(t, b.commit("yes"), succeeded, "", "")
		answered(t, b.abort("no"), succeeded, "", "")
		answered(t, b.prepare("no", 2, add(1)), failed, xa.CodeSuspended, "")
	})
}

func TestCleanupKeepsWhatIsInDoubtAndWhatHasNotEnded(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		b := newBank(t, k, xa.Options{
			Ended: func(_ context.Context, runs []string) (map[string]time.Time, error) {
				return map[string]time.Time{"ended": time.Now().Add(-time.Hour), "prepared": time.Now().Add(-time.Hour)}, nil
			},
		})
		for _, run := range []string{"ended", "going"} {
			answered(t, b.prepare(run, 1, add(-10)), succeeded, "", "")
			answered(t, b.commit(run), succeeded, "", "")
		}
		answered(t, b.prepare("prepared", 1, add(-10)), succeeded, "", "")
		n, err := b.p.Cleanup(t.Context(), -time.Minute)
		if err != nil || n != 1 {
			t.Fatalf("removed %d, %v", n, err)
		}
		var runs []string
		if err := b.db.Select(&runs, `SELECT run_id FROM ringmaster_xa_votes ORDER BY 1`); err != nil || fmt.Sprint(runs) != "[going prepared]" {
			t.Errorf("there remain %v, %v", runs, err)
		}
	})
}

func TestAServerThatPreparesNothingIsRefused(t *testing.T) {
	s := private(t, map[string]string{"max_prepared_transactions": "0"})
	db := sqlx.MustOpen("pgx", s.URL)
	defer db.Close()
	_, err := xa.New(t.Context(), db, xa.Postgres, xa.Options{})
	if err == nil || !strings.Contains(err.Error(), "max_prepared_transactions") || !strings.Contains(err.Error(), "restart") {
		t.Errorf("the error says: %v", err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	db := sqlx.MustOpen("pgx", testenv.Postgres(t))
	defer db.Close()
	for _, c := range []struct {
		dialect xa.Dialect
		o       xa.Options
	}{
		{0, xa.Options{}},
		{xa.Postgres, xa.Options{Namespace: "It's"}},
		{xa.Postgres, xa.Options{Namespace: strings.Repeat("n", 25)}},
		{xa.Postgres, xa.Options{Isolation: sql.LevelSnapshot}},
		{xa.Postgres, xa.Options{Table: `a"b`}},
	} {
		if _, err := xa.New(t.Context(), db, c.dialect, c.o); err == nil {
			t.Errorf("%v, %+v passed", c.dialect, c.o)
		}
	}
	p, err := xa.New(t.Context(), db, xa.Postgres, xa.Options{Namespace: strings.Repeat("n", 24)})
	if err != nil {
		t.Fatal(err)
	}
	if gid := p.GID(strings.Repeat("run", 100), "step"); len(gid) > 64 || gid == p.GID("run", "step") {
		t.Errorf("a branch is called %s", gid)
	}
	if _, err := p.Prepare(t.Context(), add(1)); err == nil {
		t.Error("a context without a task passed")
	}
}

func private(t *testing.T, settings map[string]string) *testenv.PostgresServer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := testenv.StartPostgres(ctx, testenv.PostgresConfig{Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
