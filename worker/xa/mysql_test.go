package xa_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/xa"
)

func TestAMariaDBThatWouldNotKeepABranchIsRefused(t *testing.T) {
	s := privateMariaDB(t, "--innodb-flush-log-at-trx-commit=2")
	for _, c := range []struct {
		dsn   string
		limit int
		says  string
	}{
		{s.DSN("mysql"), 0, "innodb_flush_log_at_trx_commit = 1"},
		{testenv.MySQL(t), 1, "SetMaxOpenConns"},
		{s.DSN(""), 0, "no database"},
		{testenv.MySQL(t) + "?autocommit=0", 0, "autocommit"},
	} {
		db := sqlx.MustOpen("mysql", c.dsn)
		db.SetMaxOpenConns(c.limit)
		if _, err := xa.New(t.Context(), db, xa.MySQL, xa.Options{}); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("the error says %v, and not %q", err, c.says)
		}
		db.Close()
	}
}

// A handler cannot end its branch by accident: the server refuses.
func TestMariaDBRefusesACommitInsideOfABranch(t *testing.T) {
	b := newBank(t, mariadb, xa.Options{})
	for _, stmt := range []string{`COMMIT`, `ROLLBACK`, `BEGIN`, `CREATE TABLE more (id INT)`, `TRUNCATE TABLE accounts`} {
		r := b.prepare("r", 1, func(ctx context.Context, tx *xa.Tx) ([]byte, error) {
			if _, err := add(-10)(ctx, tx); err != nil {
				return nil, err
			}
			return nil, run(ctx, tx, stmt)
		})
		answered(t, r, failed, worker.CodeError, "")
		if !strings.Contains(r.Message, "XAER_RMFAIL") {
			t.Errorf("%s: %s", stmt, r.Message)
		}
	}
	b.expect(100, 0)
}

// A deadlock inside of the database dooms one of the two branches, also where
// its handler passes over the error.
func TestADeadlockInsideOfMariaDBEndsTheBranch(t *testing.T) {
	b := newBank(t, mariadb, xa.Options{})
	swap := func(first, then int, mine, other chan struct{}) xa.Func {
		return func(ctx context.Context, tx *xa.Tx) ([]byte, error) {
			update := func(id int) error {
				_, err := tx.ExecContext(ctx, `UPDATE accounts SET balance = balance + 1 WHERE id = ?`, id)
				return err
			}
			if err := update(first); err != nil {
				return nil, err
			}
			close(mine)
			<-other
			_ = update(then)
			return nil, nil
		}
	}
	one, two := make(chan struct{}), make(chan struct{})
	second := make(chan string)
	go func() { r := b.prepare("b", 1, swap(2, 1, two, one)); second <- r.Outcome.String() + r.Code }()
	r := b.prepare("a", 1, swap(1, 2, one, two))
	first := r.Outcome.String() + r.Code
	if other := <-second; first == other || len(b.prepared()) != 1 {
		t.Errorf("answered %q and %q, and prepared are %v", first, other, b.prepared())
	}
}

// A branch is its session's own until that ends. Until the lock timeout whoever
// is to end it waits for that, and then it comes again.
func TestACommitWaitsUntilMariaDBHasGivenTheBranchUp(t *testing.T) {
	b := newBank(t, mariadb, xa.Options{LockTimeout: 50 * time.Millisecond})
	answered(t, b.prepare("r", 1, add(-10)), succeeded, "", "")
	// The note is there, and the branch is prepared anew by a session that lives.
	gid := b.p.GID("r", "debit")
	b.rollBackByHand(gid)
	conn, err := b.db.Connx(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, stmt := range []string{`XA START '` + gid + `'`, `INSERT INTO ringmaster_xa VALUES ('` + gid + `', 'r', 'debit', 1)`,
		`XA END '` + gid + `'`, `XA PREPARE '` + gid + `'`} {
		if _, err := conn.ExecContext(t.Context(), stmt); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range []func(string) string{
		func(run string) string { r := b.commit(run); return r.Outcome.String() + " " + r.Code },
		func(run string) string { r := b.abort(run); return r.Outcome.String() + " " + r.Code },
	} {
		if says := r("r"); says != "failed busy" {
			t.Errorf("answered %s", says)
		}
	}
	closeConn(conn)
	answered(t, b.commit("r"), succeeded, "", "")
	b.expect(100, 0)
}

// Whoever finds a branch no longer prepared finds its row: a commit that another
// worker has just carried out is never taken for a rollback.
func TestMariaDBShowsTheRowBeforeItForgetsTheBranch(t *testing.T) {
	b := newBank(t, mariadb, xa.Options{})
	for range 40 {
		id := "r" + time.Now().Format("150405.000000000")
		answered(t, b.prepare(id, 1, add(1)), succeeded, "", "")
		const askers = 4
		codes := make(chan string, askers)
		for range askers {
			go func() { codes <- b.commit(id).Code }()
		}
		for range askers {
			if code := <-codes; code != "" && code != xa.CodeBusy {
				t.Fatalf("a commit answered %s", code)
			}
		}
	}
	b.expect(140, 0)
}

func privateMariaDB(t *testing.T, options ...string) *testenv.MySQLServer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := testenv.StartMySQL(ctx, testenv.MySQLConfig{Options: options})
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
