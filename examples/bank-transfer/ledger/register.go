package ledger

import (
	"context"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/examples/bank-transfer/transfer"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/inbox"
	"github.com/ringmaster-dev/ringmaster/worker/xa"
)

// lockTimeout bounds the wait for a row that somebody has locked who does not ask
// for the locks of transfer.TwoPhase. MariaDB counts in whole seconds.
const lockTimeout = time.Second

// handler is what a task does to an account.
type handler func(ctx context.Context, tx Tx, c transfer.Change) (transfer.Done, error)

// Bank is a ledger that is ready to take part in transfers.
type Bank struct {
	participant *xa.Participant // of two-phase commits
	inbox       *inbox.Inbox    // of the other kinds
}

// Join makes what the ledger needs to take part in transfers. Of branches that the
// database has in doubt, after a crash, w asks for the decision; most of the time
// that arrives as a task.
func (l *Ledger) Join(ctx context.Context, w *worker.Worker) (*Bank, error) {
	participant, err := xa.New(ctx, l.db, l.xaDialect(), xa.Options{LockTimeout: lockTimeout, Decide: w.Decision})
	if err != nil {
		return nil, err
	}
	box, err := inbox.New(ctx, l.db, l.inboxDialect(), inbox.Options{})
	if err != nil {
		return nil, err
	}
	return &Bank{participant: participant, inbox: box}, nil
}

// Register makes w handle the tasks of the bank of that name.
func (b *Bank) Register(w *worker.Worker, name string) {
	tasks := transfer.TasksOf(name)
	branch := func(t xa.Tasks[transfer.Change, transfer.Done], h handler) {
		xa.Handle(w, b.participant, t, func(ctx context.Context, tx *xa.Tx, c transfer.Change) (transfer.Done, error) {
			return h(ctx, tx, c)
		})
	}
	branch(tasks.Debit, Take)
	branch(tasks.Credit, Add)

	once := func(t definitions.Task[transfer.Change, transfer.Done], h handler) {
		inbox.Handle(w, b.inbox, t, func(ctx context.Context, tx *sqlx.Tx, c transfer.Change) (transfer.Done, error) {
			return h(ctx, tx, c)
		})
	}
	once(tasks.Pay.Try, Hold)
	once(tasks.Pay.Confirm, Pay)
	once(tasks.Pay.Cancel, Release)
	once(tasks.Receive.Try, Announce)
	once(tasks.Receive.Confirm, Receive)
	once(tasks.Receive.Cancel, Withdraw)

	once(tasks.Take, Take)
	once(tasks.GiveBack, GiveBack)
	once(tasks.Add, Add)
}
