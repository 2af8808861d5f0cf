package xa_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker/xa"
)

// T5: many branches that end right after their vote are ended for the database
// too. (MariaDB loses sight of a branch that another session ends while its own
// is closing down; then its rows stay locked, and its changes are not there.)
func TestT5ABranchEndedRightAfterItsVoteLetsGoOfItsRows(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		b := newBank(t, k, xa.Options{})
		const lanes, branches = 8, 40
		var all sync.WaitGroup
		for lane := range lanes {
			all.Go(func() {
				for i := range branches {
					run := fmt.Sprintf("%d-%d", lane, i)
					r := b.prepare(run, 1, insert(100+lane*branches+i))
					if r.Outcome == protocol.OutcomeSucceeded {
						if r = b.commit(run); i%4 == 3 {
							r = b.abort(run + "-never")
						}
					}
					if r.Outcome != protocol.OutcomeSucceeded {
						t.Errorf("run %s: %v %s: %s", run, r.Outcome, r.Code, r.Message)
						return
					}
				}
			})
		}
		all.Wait()
		b.free(lanes * branches)
	})
}

// Another worker ends what this one has prepared, a little later.
func TestAnotherWorkerEndsTheBranchOnceItsSessionIsOver(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		dsn := k.dsn(t)
		b := bankAt(t, k, dsn, 0, xa.Options{})
		p, err := xa.New(t.Context(), b.db, k.dialect, xa.Options{})
		if err != nil {
			t.Fatal(err)
		}
		other := &bank{t: t, kind: k, db: b.db, p: p}
		answered(t, b.prepare("r", 1, insert(100)), succeeded, "", "")
		answered(t, other.commit("r"), succeeded, "", "")
		answered(t, b.prepare("a", 1, insert(101)), succeeded, "", "")
		answered(t, other.abort("a"), succeeded, "", "")
		answered(t, b.prepare("d", 1, insert(102)), succeeded, "", "")
		answered(t, b.prepare("d", 2, insert(102)), succeeded, "", "") // a duplicate
		answered(t, b.commit("d"), succeeded, "", "")
		b.free(2)
	})
}

// insert writes an account.
func insert(account int) xa.Func {
	return func(ctx context.Context, tx *xa.Tx) ([]byte, error) {
		_, err := tx.ExecContext(ctx, tx.Rebind(`INSERT INTO accounts (id, balance) VALUES (?, 0)`), account)
		return nil, err
	}
}

// free checks that so many accounts were inserted, and that nobody has any row
// locked.
func (b *bank) free(want int) {
	b.t.Helper()
	lock := `FOR SHARE NOWAIT`
	if b.dialect == xa.MySQL {
		lock = `LOCK IN SHARE MODE NOWAIT`
	}
	tx, err := b.db.BeginTxx(b.t.Context(), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	var ids []int
	if err := tx.Select(&ids, `SELECT id FROM accounts WHERE id >= 100 `+lock); err != nil || len(ids) != want {
		b.t.Errorf("there are %d accounts, want %d: %v", len(ids), want, err)
	}
	if gids := b.prepared(); len(gids) > 0 {
		b.t.Errorf("in doubt are %v", gids)
	}
}
