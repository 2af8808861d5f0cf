package xa_test

import (
	"context"
	"errors"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/xa"
)

type Withdrawal struct {
	Account int `json:"account"`
	Amount  int `json:"amount"`
}

type Receipt struct {
	Balance int `json:"balance"`
}

var (
	Withdraw = xa.NewTasks[Withdrawal, Receipt]("bank", "bank.withdraw")
	Reserve  = xa.NewTasks[Withdrawal, Receipt]("shop", "shop.reserve")
)

// A participant that withdraws money: the update is prepared, and committed or
// rolled back together with the reservation of the other one.
func ExampleHandle() {
	b := definitions.TwoPhase("purchase")
	b.Participant("withdraw").PrepareTask(Withdraw.Prepare).CommitTask(Withdraw.Commit).AbortTask(Withdraw.Abort)
	b.Participant("reserve").PrepareTask(Reserve.Prepare).CommitTask(Reserve.Commit).AbortTask(Reserve.Abort)
	purchase := b.MustBuild()

	register := func(ctx context.Context, w *worker.Worker, db *sqlx.DB) error {
		p, err := xa.New(ctx, db, xa.Postgres, xa.Options{Namespace: "bank", LockTimeout: 2 * time.Second})
		if err != nil {
			return err
		}
		xa.Handle(w, p, Withdraw, func(ctx context.Context, tx *xa.Tx, in Withdrawal) (r Receipt, err error) {
			err = tx.GetContext(ctx, &r.Balance, `UPDATE accounts SET balance = balance - $1 WHERE id = $2 RETURNING balance`,
				in.Amount, in.Account)
			if err == nil && r.Balance < 0 {
				err = worker.Final("no_cover", errors.New("the account does not cover that"))
			}
			return r, err
		})
		return nil
	}
	_, _ = purchase, register
}

// The same participant on MariaDB: what differs is the dialect, and the SQL. A
// prepare takes two connections for a moment.
func ExampleNew() {
	register := func(ctx context.Context, w *worker.Worker, db *sqlx.DB) error {
		db.SetMaxOpenConns(40) // before New
		p, err := xa.New(ctx, db, xa.MySQL, xa.Options{Namespace: "bank", LockTimeout: 2 * time.Second})
		if err != nil {
			return err // says what to change at the server
		}
		xa.Handle(w, p, Withdraw, func(ctx context.Context, tx *xa.Tx, in Withdrawal) (r Receipt, err error) {
			res, err := tx.ExecContext(ctx, `UPDATE accounts SET balance = balance - ? WHERE id = ? AND balance >= ?`,
				in.Amount, in.Account, in.Amount)
			if err != nil {
				return r, err
			}
			if n, err := res.RowsAffected(); err != nil || n == 0 {
				return r, worker.Final("no_cover", errors.Join(errors.New("the account does not cover that"), err))
			}
			return r, tx.GetContext(ctx, &r.Balance, `SELECT balance FROM accounts WHERE id = ?`, in.Account)
		})
		return nil
	}
	_ = register
}

// At start, and now and then, a worker asks for the decision of the branches
// that are in doubt.
func ExampleParticipant_Recover() {
	recoverAll := func(ctx context.Context, p *xa.Participant, w *worker.Worker) error {
		_, err := p.Recover(ctx, w.Decision)
		return err
	}
	_ = recoverAll
}
