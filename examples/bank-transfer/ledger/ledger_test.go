package ledger

import (
	"context"
	"errors"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/examples/bank-transfer/transfer"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// The moves of an account, in order, on both databases.
func TestMoves(t *testing.T) {
	for name, db := range map[string]*sqlx.DB{
		"PostgreSQL": sqlx.MustOpen("pgx", testenv.Postgres(t)),
		"MariaDB":    sqlx.MustOpen("mysql", testenv.MySQL(t)),
	} {
		t.Run(name, func(t *testing.T) {
			defer func() { _ = db.Close() }()
			l := New(db)
			accounts := []Account{{ID: "a", Opening: 100}, {ID: "closed", Opening: 100, Closed: true}}
			if err := l.Create(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := l.Fund(t.Context(), accounts); err != nil {
				t.Fatal(err)
			}
			for _, step := range []struct {
				what     string
				move     handler
				account  string
				amount   int64
				code     string // of a refusal
				balance  int64
				held     int64
				incoming int64
			}{
				{"take", Take, "a", 30, "", 70, 0, 0},
				{"take too much", Take, "a", 71, transfer.CodeNoCover, 70, 0, 0},
				{"take from nobody", Take, "z", 1, transfer.CodeUnknown, 70, 0, 0},
				{"give back", GiveBack, "a", 30, "", 100, 0, 0},
				{"add", Add, "a", 5, "", 105, 0, 0},
				{"add where it is closed", Add, "closed", 5, transfer.CodeClosed, 105, 0, 0},
				{"hold", Hold, "a", 100, "", 105, 100, 0},
				{"hold what is held", Hold, "a", 6, transfer.CodeNoCover, 105, 100, 0},
				{"take what is held", Take, "a", 6, transfer.CodeNoCover, 105, 100, 0},
				{"pay", Pay, "a", 60, "", 45, 40, 0},
				{"release", Release, "a", 40, "", 45, 0, 0},
				{"announce", Announce, "a", 9, "", 45, 0, 9},
				{"announce where it is closed", Announce, "closed", 9, transfer.CodeClosed, 45, 0, 9},
				{"receive", Receive, "a", 4, "", 49, 0, 5},
				{"withdraw", Withdraw, "a", 5, "", 49, 0, 0},
			} {
				code := perform(t, db, step.move, transfer.Change{Account: step.account, Amount: step.amount})
				var balance, held, announced int64
				if err := db.QueryRowx(`SELECT balance, held, announced FROM accounts WHERE id = 'a'`).Scan(&balance, &held, &announced); err != nil {
					t.Fatal(err)
				}
				if code != step.code || balance != step.balance || held != step.held || announced != step.incoming {
					t.Errorf("%s: code %q, then %d with %d held and %d announced, want %+v", step.what, code, balance, held, announced, step)
				}
			}
			var entries int64
			if err := db.Get(&entries, `SELECT sum(amount) FROM entries`); err != nil || entries != 49-100 {
				t.Errorf("the entries come to %d, %v", entries, err)
			}
		})
	}
}

// perform makes a move in a transaction of its own, and returns the code of its
// refusal.
func perform(t *testing.T, db *sqlx.DB, move handler, c transfer.Change) string {
	t.Helper()
	tx, err := db.BeginTxx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := move(context.Background(), tx, c); err != nil {
		var refused *worker.Error
		if !errors.As(err, &refused) {
			t.Fatal(err)
		}
		return refused.Code
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	return ""
}
