package xa_test

import (
	"context"
	"database/sql/driver"
	"fmt"
	"slices"
	"strings"
	"testing"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/xa"
)

// kind is a kind of database.
type kind struct {
	name    string
	driver  string
	dialect xa.Dialect
	dsn     func(testenv.TB) string
	least   int // connections that a task takes at most
}

var (
	postgres = kind{"PostgreSQL", "pgx", xa.Postgres, testenv.Postgres, 1}
	mariadb  = kind{"MariaDB", "mysql", xa.MySQL, testenv.MySQL, 2}
	kinds    = []kind{postgres, mariadb}
)

// each runs a test on each kind of database.
func each(t *testing.T, test func(t *testing.T, k kind)) {
	t.Helper()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) { test(t, k) })
	}
}

// bank is a database with one account and a participant.
type bank struct {
	t  *testing.T
	db *sqlx.DB
	p  *xa.Participant
	kind
}

// newBank opens a bank of some kind, with 100 in account 1 and 0 in account 2.
func newBank(t *testing.T, k kind, o xa.Options) *bank {
	t.Helper()
	return bankAt(t, k, k.dsn(t), 0, o)
}

// bankAt opens a bank at dsn, with a limit of connections.
func bankAt(t *testing.T, k kind, dsn string, limit int, o xa.Options) *bank {
	t.Helper()
	db := sqlx.MustOpen(k.driver, dsn)
	db.SetMaxOpenConns(limit)
	t.Cleanup(func() { db.Close() })
	p, err := xa.New(t.Context(), db, k.dialect, o)
	if err != nil {
		t.Fatal(err)
	}
	db.MustExec(`CREATE TABLE accounts (id INT PRIMARY KEY, balance BIGINT NOT NULL CHECK (balance >= 0))`)
	db.MustExec(`INSERT INTO accounts VALUES (1, 100), (2, 0)`)
	b := &bank{t, db, p, k}
	t.Cleanup(func() { // a database with prepared branches cannot be dropped
		for _, gid := range b.prepared() {
			b.rollBackByHand(gid)
		}
	})
	return b
}

// prepared are the names of the branches that the database holds.
func (b *bank) prepared() (gids []string) {
	b.t.Helper()
	if b.dialect == xa.Postgres {
		if err := b.db.Select(&gids, `SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY gid`); err != nil {
			b.t.Fatal(err)
		}
		return gids
	}
	rows, err := b.db.Queryx(`XA RECOVER`)
	if err != nil {
		b.t.Fatal(err)
	}
	defer rows.Close()
	ours := strings.Split(b.p.GID("", ""), "-")[1] // the server's other databases are others'
	for rows.Next() {
		var format, gtrid, bqual int
		var gid string
		if err := rows.Scan(&format, &gtrid, &bqual, &gid); err != nil {
			b.t.Fatal(err)
		}
		if strings.Contains(gid, "-"+ours+"-") {
			gids = append(gids, gid)
		}
	}
	return gids
}

// rollBackByHand rolls a branch back as an operator might.
func (b *bank) rollBackByHand(gid string) {
	b.t.Helper()
	command := `ROLLBACK PREPARED`
	if b.dialect == xa.MySQL {
		command = `XA ROLLBACK`
	}
	eventually(b.t, "it is rolled back", func() bool { // a session that has just ended may still have it
		_, err := b.db.Exec(command + ` '` + gid + `'`)
		return err == nil
	})
}

func (b *bank) balance(account int) (n int) {
	b.t.Helper()
	if err := b.db.Get(&n, b.db.Rebind(`SELECT balance FROM accounts WHERE id = ?`), account); err != nil {
		b.t.Fatal(err)
	}
	return n
}

// expect checks the balance of account 1 and how many branches are prepared.
func (b *bank) expect(balance, prepared int) {
	b.t.Helper()
	if n := b.balance(1); n != balance {
		b.t.Errorf("the balance is %d, not %d", n, balance)
	}
	if gids := b.prepared(); len(gids) != prepared {
		b.t.Errorf("prepared are %v, not %d", gids, prepared)
	}
}

// prepareByHand prepares a branch of which nothing is noted.
func (b *bank) prepareByHand(gid, stmt string) {
	b.t.Helper()
	begin, prepare := []string{`BEGIN`}, []string{`PREPARE TRANSACTION '` + gid + `'`}
	if b.dialect == xa.MySQL {
		begin, prepare = []string{`XA START '` + gid + `'`}, []string{`XA END '` + gid + `'`, `XA PREPARE '` + gid + `'`}
	}
	conn, err := b.db.Connx(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	for _, stmt := range slices.Concat(begin, []string{stmt}, prepare) {
		if _, err := conn.ExecContext(b.t.Context(), stmt); err != nil {
			b.t.Fatal(err)
		}
	}
	closeConn(conn) // MariaDB gives it up with its session
}

// closeConn ends a session.
func closeConn(conn *sqlx.Conn) {
	_ = conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = conn.Close()
}

// task returns the context of a task of step "debit".
func task(ctx context.Context, run string, p protocol.Phase, attempt uint32) context.Context {
	return worker.WithTask(ctx, worker.TaskInfo{RunID: run, Step: "debit", Phase: p, Generation: 1, Attempt: attempt})
}

// add changes account 1 by some amount and answers with the attempt.
func add(amount int) xa.Func {
	return func(ctx context.Context, tx *xa.Tx) ([]byte, error) {
		if _, err := tx.ExecContext(ctx, tx.Rebind(`UPDATE accounts SET balance = balance + ? WHERE id = 1`), amount); err != nil {
			return nil, err
		}
		return fmt.Appendf(nil, `{"attempt":%d}`, worker.TaskFrom(ctx).Attempt), nil
	}
}

// The phases of a run, as the worker would answer.
func (b *bank) prepare(run string, attempt uint32, fn xa.Func) protocol.Result {
	return b.perform(run, protocol.PhasePrepare, attempt, fn)
}
func (b *bank) commit(run string) protocol.Result {
	return b.perform(run, protocol.PhaseCommit, 1, nil)
}

// commitAlone is the commit of a participant that is alone.
func (b *bank) commitAlone(run string) protocol.Result {
	info := worker.TaskInfo{RunID: run, Step: "debit", Phase: protocol.PhaseCommit, OnePhase: true, Generation: 1, Attempt: 1}
	return worker.Perform(worker.WithTask(b.t.Context(), info), func(ctx context.Context, _ []byte) ([]byte, error) {
		return b.p.Commit(ctx, add(-7))
	}, nil)
}
func (b *bank) abort(run string) protocol.Result { return b.perform(run, protocol.PhaseAbort, 1, nil) }

func (b *bank) perform(run string, phase protocol.Phase, attempt uint32, fn xa.Func) protocol.Result {
	return worker.Perform(task(b.t.Context(), run, phase, attempt), func(ctx context.Context, _ []byte) ([]byte, error) {
		switch phase {
		case protocol.PhasePrepare:
			return b.p.Prepare(ctx, fn)
		case protocol.PhaseCommit:
			return b.p.Commit(ctx, fn)
		}
		return nil, b.p.Abort(ctx)
	}, nil)
}

// answered checks an answer; an empty payload is any.
func answered(t *testing.T, r protocol.Result, outcome protocol.Outcome, code string, payload string) {
	t.Helper()
	if r.Outcome != outcome || r.Code != code || payload != "" && string(r.Payload) != payload {
		t.Fatalf("answered %v %q %s (%s), not %v %q %s", r.Outcome, r.Code, r.Payload, r.Message, outcome, code, payload)
	}
}

const (
	succeeded = protocol.OutcomeSucceeded
	failed    = protocol.OutcomeFailed
	unknown   = protocol.OutcomeUnknown
	readOnly  = protocol.OutcomeReadOnly
)
