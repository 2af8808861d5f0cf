package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// DefaultTable is the name of the inbox's table.
const DefaultTable = "ringmaster_inbox"

// Codes of the results that the inbox itself decides on.
const (
	CodeSuspended  = "suspended"      // an action whose compensation came first
	CodeSuperseded = "superseded"     // a task of an older generation than the one that took effect
	CodeConflict   = "effect_exists"  // a new generation of a task whose older one has taken effect
	CodeDatabase   = "database"       // the database failed; rolled back
	CodeCommit     = "commit_unknown" // the commit's answer was lost, and so was the look-up's
	CodeNoTask     = "no_task"        // the context belongs to no task
	CodeTxLost     = "tx_lost"        // the transaction ended under the handler, which went on
)

// Options change how an inbox works. The zero value is good.
type Options struct {
	// Table is the name of the table, with a schema where wanted: letters,
	// digits and underscores; default DefaultTable.
	Table string
	// Isolation of the transactions; zero is the database's default.
	// Serialization failures start a transaction, with its handler, again.
	Isolation sql.IsolationLevel
	// RetryFor is for how long a transaction that the database refused because
	// of concurrent ones (busy, deadlock, serialization) is started again;
	// default 10 s. The task's own deadline ends it as well.
	RetryFor time.Duration
	// LookupTimeout bounds the look-up after a commit whose answer was lost;
	// default 10 s. The task's deadline does not shorten it.
	LookupTimeout time.Duration
	// Ended says when each of the given runs ended; runs that have not ended
	// are left out. With it, [Inbox.Cleanup] keeps the rows of unended runs.
	// EndedAt of a client of the HTTP API is such a function.
	Ended func(ctx context.Context, runs []string) (map[string]time.Time, error)
}

// Inbox is a table in a handler's database. It is safe for concurrent use.
type Inbox struct {
	db      *sqlx.DB
	dialect Dialect
	opts    Options
	sql     statements
}

// Func is a handler that runs in a transaction. It must do its work through tx,
// and neither commit nor roll it back. It must return the errors of tx: MySQL
// and SQLite may have rolled back for good (a deadlock), and what is done after
// that is in no transaction. Where that is noticed, the outcome is unknown.
type Func func(ctx context.Context, tx *sqlx.Tx) ([]byte, error)

// New returns the inbox of a database. It makes the table if it is not there.
func New(ctx context.Context, db *sqlx.DB, d Dialect, o Options) (*Inbox, error) {
	if d < SQLite || d > MySQL {
		return nil, fmt.Errorf("inbox: %v is not a dialect", d)
	}
	if o.Table == "" {
		o.Table = DefaultTable
	}
	if !tableName.MatchString(o.Table) {
		return nil, fmt.Errorf("inbox: Table: %q is not a name of letters, digits and underscores, at most 48", o.Table)
	}
	if o.RetryFor <= 0 {
		o.RetryFor = 10 * time.Second
	}
	if o.LookupTimeout <= 0 {
		o.LookupTimeout = 10 * time.Second
	}
	b := &Inbox{db: db, dialect: d, opts: o, sql: d.statements(o.Table)}
	for _, stmt := range b.sql.create {
		if err := b.create(ctx, stmt); err != nil {
			return nil, fmt.Errorf("inbox: making table %s: %w", o.Table, err)
		}
	}
	return b, nil
}

func (b *Inbox) create(ctx context.Context, stmt string) error {
	for try := 0; ; try++ {
		_, err := b.db.ExecContext(ctx, stmt)
		if err == nil || try == 20 || !b.dialect.raced(err) || !pause(ctx, try) {
			return err
		}
	}
}

// Handle registers a typed handler whose effects happen once: it runs in one
// transaction with the inbox's row.
func Handle[In, Out any](w *worker.Worker, b *Inbox, task definitions.Task[In, Out],
	fn func(ctx context.Context, tx *sqlx.Tx, in In) (Out, error)) {
	w.HandleTask(task, func(ctx context.Context, payload []byte) ([]byte, error) {
		in, err := worker.Decode[In](payload)
		if err != nil {
			return nil, err
		}
		return b.Do(ctx, func(ctx context.Context, tx *sqlx.Tx) ([]byte, error) {
			out, err := fn(ctx, tx, in)
			if err != nil {
				return nil, err
			}
			data, err := worker.Encode(out)
			if err != nil {
				return nil, worker.Final(worker.CodeBadOutput, err) // rolled back
			}
			return data, nil
		})
	})
}

// Do runs fn once for the task of ctx (see [worker.TaskFrom]) and returns its
// output, or the stored output of the time that it ran. Its errors are those
// that a worker reports: see the package's comment.
func (b *Inbox) Do(ctx context.Context, fn Func) ([]byte, error) {
	info := worker.TaskFrom(ctx)
	if info.RunID == "" {
		return nil, worker.Final(CodeNoTask, errors.New("inbox: the context belongs to no task"))
	}
	until := time.Now().Add(b.opts.RetryFor)
	for try := 0; ; try++ {
		a := attempt{Inbox: b, info: info}
		out, err := a.run(ctx, fn)
		if err == nil || !b.dialect.transient(err) || time.Now().After(until) || !pause(ctx, try) {
			return out, err
		}
	}
}

// pause waits a moment, longer and longer up to 50 ms; false if ctx ended.
func pause(ctx context.Context, try int) bool {
	limit := min(time.Millisecond<<min(try, 6), 50*time.Millisecond)
	t := time.NewTimer(limit/2 + rand.N(limit))
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// undoes names the phase that a phase undoes; 0 if it undoes none.
func undoes(info *worker.TaskInfo) protocol.Phase {
	switch info.Phase {
	case protocol.PhaseCompensate:
		if info.UndoesRun {
			return 0 // there was no action here
		}
		return protocol.PhaseAction
	case protocol.PhaseAbort:
		return protocol.PhasePrepare
	}
	return 0
}

func key(info *worker.TaskInfo, p protocol.Phase) string {
	return info.RunID + "/" + info.Step + "/" + p.String()
}
