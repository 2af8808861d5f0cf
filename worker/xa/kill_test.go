package xa_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker/xa"
)

// The variables that make the test binary a worker which waits to be killed.
const (
	childDSN  = "XA_CHILD_DSN"
	childMode = "XA_CHILD_MODE"
)

// child prepares a branch, and says so. In mode "handler" it stops in the middle
// of the handler, in mode "voted" after the vote, before anybody was told.
func child() {
	ctx := context.Background()
	db := sqlx.MustOpen("pgx", os.Getenv(childDSN))
	p, err := xa.New(ctx, db, xa.Postgres, xa.Options{})
	if err != nil {
		panic(err)
	}
	_, err = p.Prepare(task(ctx, "r", protocol.PhasePrepare, 1), func(ctx context.Context, tx *xa.Tx) ([]byte, error) {
		out, err := add(-10)(ctx, tx)
		if os.Getenv(childMode) == "handler" {
			fmt.Println("inside", err)
			select {}
		}
		return out, err
	})
	fmt.Println("prepared", err)
	select {}
}

// killChild runs a child in a mode, up to where it stops, and kills it.
func killChild(t *testing.T, dsn, mode, says string) {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), childDSN+"="+dsn, childMode+"="+mode)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Scan()
	if lines.Text() != says {
		t.Errorf("the worker says %q", lines.Text())
	}
	_ = c.Process.Signal(syscall.SIGKILL)
	_ = c.Wait()
}

// T7: the vote survives its worker, which had not answered.
func TestT7AWorkerKilledBeforeItsAnswerHasVoted(t *testing.T) {
	dsn := testenv.Postgres(t)
	b := bankAt(t, postgres, dsn, 0, xa.Options{})
	killChild(t, dsn, "voted", "prepared <nil>")
	b.expect(100, 1)
	answered(t, b.prepare("r", 2, add(-10)), succeeded, "", `{"attempt":1}`)
	answered(t, b.commit("r"), succeeded, "", "")
	b.expect(90, 0)
}

func TestAWorkerKilledInItsHandlerLeavesNothing(t *testing.T) {
	dsn := testenv.Postgres(t)
	b := bankAt(t, postgres, dsn, 0, xa.Options{})
	killChild(t, dsn, "handler", "inside <nil>")
	answered(t, b.prepare("r", 2, add(-10)), succeeded, "", `{"attempt":2}`)
	answered(t, b.abort("r"), succeeded, "", "")
	b.expect(100, 0)
}

// A branch whose worker died between PREPARE TRANSACTION and its vote was never
// answered, and is done anew.
func TestAPreparedBranchWithoutAVoteIsDoneAnew(t *testing.T) {
	b := newBank(t, postgres, xa.Options{})
	// The vote's statement waits for this lock, until its context ends.
	block, err := b.db.Beginx()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = block.Rollback() }()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	answer := make(chan error, 1)
	go func() {
		_, err := b.p.Prepare(task(ctx, "r", protocol.PhasePrepare, 1), func(ctx context.Context, tx *xa.Tx) ([]byte, error) {
			if _, err := block.Exec(`LOCK TABLE ringmaster_xa_votes IN SHARE MODE`); err != nil {
				return nil, err
			}
			return add(-10)(ctx, tx)
		})
		answer <- err
	}()
	eventually(t, "the branch is prepared", func() bool { return len(b.prepared()) == 1 })
	cancel()
	if err := <-answer; err == nil {
		t.Fatal("it has voted")
	}
	if err := block.Rollback(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the branch is locked no more", func() bool {
		var n int
		if err := b.db.Get(&n, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`); err != nil {
			t.Fatal(err)
		}
		return n == 0
	})
	branches, err := b.p.InDoubt(t.Context())
	if err != nil || len(branches) != 1 || branches[0].Run != "r" || branches[0].Voted {
		t.Fatalf("in doubt are %+v, %v", branches, err)
	}
	answered(t, b.prepare("r", 2, add(-20)), succeeded, "", `{"attempt":2}`)
	answered(t, b.commit("r"), succeeded, "", "")
	b.expect(80, 0)
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// T1, T7: the server crashes after the votes; what was prepared is prepared when
// it is back, and ends as decided. (A backend that is killed takes all of the
// server with it: the postmaster starts it again, and it replays its log.)
func TestT7VotesSurviveACrashOfTheDatabase(t *testing.T) {
	b := bankAt(t, postgres, private(t, nil).URL, 0, xa.Options{})
	answered(t, b.prepare("yes", 1, add(-10)), succeeded, "", `{"attempt":1}`)
	answered(t, b.prepare("no", 1, func(ctx context.Context, tx *xa.Tx) ([]byte, error) {
		_, err := tx.ExecContext(ctx, `UPDATE accounts SET balance = 1 WHERE id = 2`)
		return nil, err
	}), succeeded, "", "")
	crash(t, b.db)
	answered(t, b.prepare("yes", 2, add(-10)), succeeded, "", `{"attempt":1}`)
	answered(t, b.commit("yes"), succeeded, "", "")
	answered(t, b.abort("no"), succeeded, "", "")
	b.expect(90, 0)
	crash(t, b.db)
	answered(t, b.commit("yes"), succeeded, "", "")
	answered(t, b.prepare("no", 2, add(-10)), failed, xa.CodeSuspended, "")
	b.expect(90, 0)
}

// crash kills a backend and waits until the server is back.
func crash(t *testing.T, db *sqlx.DB) {
	t.Helper()
	var pid int
	var before, now time.Time
	if err := db.QueryRow(`SELECT pg_backend_pid(), stats_reset FROM pg_stat_bgwriter`).Scan(&pid, &before); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server is back", func() bool { // a crash resets its statistics
		return db.Get(&now, `SELECT stats_reset FROM pg_stat_bgwriter`) == nil && now.After(before)
	})
}
