package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// The states of a row.
const (
	open     = "open"      // only ever seen by the transaction that wrote it
	done     = "done"      // took effect; the result is stored
	void     = "null"      // a compensation that had nothing to undo
	blocked  = "blocked"   // an action that must not run any more
	readOnly = "read-only" // a prepare that changed nothing
)

// attempt is one transaction for a task.
type attempt struct {
	*Inbox
	info worker.TaskInfo
	tx   *sqlx.Tx
}

// row is what is stored of a task.
type row struct {
	Generation int64
	State      string
	Result     []byte
}

// run claims the task's key, runs fn and commits, or answers what is stored.
func (a *attempt) run(ctx context.Context, fn Func) ([]byte, error) {
	// SQLite's driver interrupts a statement whose context ends by a goroutine
	// that may hit the next one; its waits are bounded by the busy timeout.
	dbctx := ctx
	if a.dialect == SQLite {
		dbctx = context.WithoutCancel(ctx)
	}
	var err error
	a.tx, err = a.db.BeginTxx(dbctx, &sql.TxOptions{Isolation: a.opts.Isolation})
	if err != nil {
		return nil, failure("beginning a transaction", err)
	}
	committed := false
	defer func() {
		// An error of Rollback changes nothing: without a commit the database
		// rolls back.
		if !committed {
			_ = a.tx.Rollback()
		}
	}()

	// The first statement writes: on SQLite it takes the write lock before
	// anything was read, as BEGIN IMMEDIATE does; on PostgreSQL and
	// MySQL it waits for another transaction that has the key until that one
	// has ended, and only then takes the snapshot that later reads see.
	fresh, err := a.claim(dbctx, a.info.Phase, open)
	if err != nil {
		return nil, failure("writing the key", err)
	}
	if !fresh {
		return a.stored(dbctx)
	}
	if err := a.fence(dbctx); err != nil {
		return nil, err
	}
	out, state := []byte("null"), void
	null, err := a.nothingToUndo(dbctx)
	if err != nil {
		return nil, err
	}
	if !null {
		state = done
		out, err = a.call(ctx, fn)
		if a.info.Phase == protocol.PhasePrepare && errors.Is(err, worker.ErrReadOnly) {
			return a.voteReadOnly(dbctx)
		}
		if err != nil {
			return nil, vouch(err)
		}
	}
	if err := a.complete(dbctx, state, out); err != nil {
		return nil, err
	}
	if err := a.tx.Commit(); err != nil {
		return a.lookup(ctx, err)
	}
	committed = true
	return out, nil
}

// call runs fn with a panic as an error: the transaction is rolled back as for
// any other.
func (a *attempt) call(ctx context.Context, fn Func) (out []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			out, err = nil, worker.Recovered(v)
		}
	}()
	if out, err = fn(ctx, a.tx); err == nil && len(out) == 0 {
		out = []byte("null")
	}
	return out, err
}

// claim writes the key of the task's step in phase p; false if it is there.
func (a *attempt) claim(ctx context.Context, p protocol.Phase, state string) (bool, error) {
	var notAfter int64
	if !a.info.NotAfter.IsZero() {
		notAfter = a.info.NotAfter.UnixMilli()
	}
	res, err := a.tx.ExecContext(ctx, a.sql.claim, key(&a.info, p), a.info.RunID, a.info.Step, p.String(),
		int64(a.info.Generation), state, time.Now().UnixMilli(), notAfter)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

func (a *attempt) read(ctx context.Context, p protocol.Phase) (r row, err error) {
	err = a.tx.GetContext(ctx, &r, a.sql.read, key(&a.info, p))
	return r, err
}

// errTxLost says that the row which this transaction wrote is gone, and so the
// transaction.
var errTxLost = errors.New("inbox: the transaction ended under the handler, which went on without it")

func (a *attempt) complete(ctx context.Context, state string, result []byte) error {
	res, err := a.tx.ExecContext(ctx, a.sql.complete, state, result, key(&a.info, a.info.Phase))
	if err != nil {
		return failure("writing the result", err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return worker.Unknown(CodeTxLost, errors.Join(errTxLost, err))
	}
	return nil
}

// nothingToUndo tells of a compensation or an abort whether what it undoes has
// had no effect; then it is blocked from now on.
func (a *attempt) nothingToUndo(ctx context.Context) (bool, error) {
	p := undoes(&a.info)
	if p == 0 {
		return false, nil
	}
	fresh, err := a.claim(ctx, p, blocked)
	if err != nil {
		return false, failure("blocking the "+p.String(), err)
	}
	if fresh {
		return true, nil
	}
	r, err := a.read(ctx, p)
	if err != nil {
		return false, failure("reading the "+p.String(), err)
	}
	return r.State == blocked || r.State == readOnly, nil
}

// stored answers for a key that is there.
func (a *attempt) stored(ctx context.Context) ([]byte, error) {
	r, err := a.read(ctx, a.info.Phase)
	if err != nil {
		return nil, failure("reading the stored result", err)
	}
	return r.answer(&a.info)
}

// answer is what a task is told whose key is there.
func (r row) answer(info *worker.TaskInfo) ([]byte, error) {
	switch {
	case r.State == blocked:
		return nil, worker.NoEffect(worker.Final(CodeSuspended,
			fmt.Errorf("the step was compensated before its %v arrived", info.Phase)))
	case r.State == void:
		return []byte("null"), nil
	case r.Generation > int64(info.Generation):
		return nil, worker.NoEffect(worker.Final(CodeSuperseded,
			fmt.Errorf("generation %d has taken effect, this is %d", r.Generation, info.Generation)))
	case r.Generation < int64(info.Generation):
		// It was retried with other input in the belief that it had no effect.
		// It had: so that nobody takes it for done with the new input, and the
		// step is compensated.
		return nil, &worker.Error{Outcome: protocol.OutcomeUnknown, Code: CodeConflict,
			Err: fmt.Errorf("generation %d has taken effect already, this is %d", r.Generation, info.Generation)}
	}
	if r.State == readOnly {
		return nil, worker.ErrReadOnly
	}
	return r.Result, nil
}

// lookup finds out what became of a commit that returned an error. Writing the
// key again waits for the first transaction's end, where it still goes on.
func (a *attempt) lookup(ctx context.Context, commit error) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.opts.LookupTimeout)
	defer cancel()
	for try := 0; ; try++ {
		out, gone, err := a.probe(ctx)
		switch {
		case err == nil && gone:
			return nil, failure("committing", commit)
		case err == nil:
			return out, nil
		case errors.Is(err, worker.ErrReadOnly):
			return nil, err
		}
		// An answer of the row's that is not a failure to read it.
		var stated *worker.Error
		if errors.As(err, &stated) && stated.Code != CodeDatabase {
			return nil, err
		}
		if !pause(ctx, try) {
			return nil, worker.Unknown(CodeCommit,
				fmt.Errorf("committing: %w; looking the key up again: %w", commit, err))
		}
	}
}

// probe reads the row in a transaction that leaves nothing; gone if there is
// none.
func (a *attempt) probe(ctx context.Context) (out []byte, gone bool, err error) {
	tx, err := a.db.BeginTxx(ctx, nil)
	if err != nil {
		return nil, false, err
	}
	a.tx = tx
	defer func() { _ = tx.Rollback() }()
	if gone, err = a.claim(ctx, a.info.Phase, open); err != nil || gone {
		return nil, gone, err
	}
	out, err = a.stored(ctx)
	return out, false, err
}

// failure is an error of the database before a commit: rolled back.
func failure(doing string, err error) error {
	return worker.NoEffect(worker.Retryable(CodeDatabase, fmt.Errorf("inbox: %s: %w", doing, err)))
}

// vouch says of a handler's error that it had no effect, unless the handler
// says that it may have had one elsewhere.
func vouch(err error) error {
	var stated *worker.Error
	if errors.As(err, &stated) && stated.Outcome == protocol.OutcomeUnknown {
		return err
	}
	return worker.NoEffect(err)
}
