package xa

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// Dialect names the kind of database. The zero value is none.
type Dialect int

// Postgres is PostgreSQL 10 or later, through any driver whose errors have a
// method SQLState, as those of pgx and of lib/pq do.
const Postgres Dialect = 1

func (d Dialect) String() string {
	if d == Postgres {
		return "PostgreSQL"
	}
	return fmt.Sprintf("dialect(%d)", int(d))
}

// Codes of the results that this package itself decides on.
const (
	CodeSuspended         = "suspended"          // a prepare whose abort came first
	CodeHeuristicRollback = "heuristic_rollback" // to be committed, but rolled back by somebody else
	CodeHeuristicCommit   = "heuristic_commit"   // to be aborted, but committed
	CodeSuperseded        = "superseded"         // a prepare of an older generation than the one that voted
	CodeConflict          = "effect_exists"      // a prepare of a new generation, though an older one has voted
	CodeBusy              = "busy"               // another attempt is at the branch for longer than the lock timeout
	CodeLockTimeout       = "lock_timeout"       // the handler waited for a lock for longer than that
	CodeDatabase          = "database"           // the database failed; rolled back
	CodePrepare           = "prepare_unknown"    // the answer to PREPARE TRANSACTION was lost
	CodeCommit            = "commit_unknown"     // the answer to a commit was lost
	CodeAbort             = "abort_unknown"      // the answer to a rollback was lost
	CodeTxLost            = "tx_lost"            // the handler ended the transaction itself
	CodeNoTask            = "no_task"            // the context belongs to no task
)

// Defaults of the options.
const (
	DefaultNamespace   = "ringmaster"
	DefaultTable       = "ringmaster_xa"
	DefaultLockTimeout = 10 * time.Second
)

// Options change how a participant works. The zero value is good.
type Options struct {
	// Namespace begins the name of every branch. Recover touches none of other
	// namespaces. 1 to 24 lower-case letters, digits and underscores; default
	// DefaultNamespace. It must stay as it is while branches are prepared.
	Namespace string
	// Table is the name of the table of the branches' rows; that of the votes
	// has "_votes" appended. With a schema where wanted; letters, digits and
	// underscores; default DefaultTable.
	Table string
	// Isolation of the handlers' transactions: read committed, repeatable read
	// or serializable; zero is the database's default. A serialization failure
	// is a failed attempt that may be retried.
	Isolation sql.IsolationLevel
	// LockTimeout bounds each wait for a lock, of the handler's SQL and of
	// duplicates for each other; default DefaultLockTimeout. It should be well
	// below the timeout of the participant's prepare.
	LockTimeout time.Duration
	// SettleTimeout bounds what still has to be done on a connection (a
	// rollback, giving back a lock) after the task's time is up; default 5 s.
	SettleTimeout time.Duration
	// Ended says when each of the given runs ended; runs that have not ended
	// are left out. With it, [Participant.Cleanup] keeps the rows of unended runs.
	Ended func(ctx context.Context, runs []string) (map[string]time.Time, error)
}

// Participant is a database that takes part in two-phase commits. It is safe
// for concurrent use.
type Participant struct {
	db       *sqlx.DB
	opts     Options
	sql      statements
	database string
}

// Func is a handler. It does its work through tx. What it returns is the
// participant's output, which is answered with the vote.
type Func func(ctx context.Context, tx *Tx) ([]byte, error)

// New returns the participant of a database. It makes its tables if they are
// not there. It fails, saying what to change, where the database is set up to
// prepare nothing. Every task takes one connection of db.
func New(ctx context.Context, db *sqlx.DB, d Dialect, o Options) (*Participant, error) {
	if d != Postgres {
		return nil, fmt.Errorf("xa: %v is not a database that can be a participant", d)
	}
	if err := o.complete(); err != nil {
		return nil, err
	}
	p := &Participant{db: db, opts: o, sql: statementsOf(o.Table)}
	var limit int
	if err := db.GetContext(ctx, &limit, `SELECT current_setting('max_prepared_transactions')::int`); err != nil {
		return nil, fmt.Errorf("xa: reading max_prepared_transactions: %w", err)
	}
	if limit == 0 {
		return nil, errors.New("xa: max_prepared_transactions is 0, so PostgreSQL refuses every PREPARE TRANSACTION: " +
			"set it in postgresql.conf to as many transactions as may be prepared at a time (max_connections is a good choice), and restart the server")
	}
	if err := db.GetContext(ctx, &p.database, `SELECT current_database()`); err != nil {
		return nil, fmt.Errorf("xa: reading the database's name: %w", err)
	}
	if err := p.createTables(ctx); err != nil {
		return nil, fmt.Errorf("xa: making the tables of %s: %w", o.Table, err)
	}
	return p, nil
}

var (
	namespaceRule = regexp.MustCompile(`^[a-z0-9_]{1,24}$`)
	tableRule     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,47}(\.[A-Za-z_][A-Za-z0-9_]{0,47})?$`)
)

// complete fills in the defaults and checks the rest.
func (o *Options) complete() error {
	if o.Namespace == "" {
		o.Namespace = DefaultNamespace
	}
	if !namespaceRule.MatchString(o.Namespace) {
		return fmt.Errorf("xa: Namespace: %q is not 1 to 24 lower-case letters, digits and underscores", o.Namespace)
	}
	if o.Table == "" {
		o.Table = DefaultTable
	}
	if !tableRule.MatchString(o.Table) {
		return fmt.Errorf("xa: Table: %q is not a name of letters, digits and underscores, at most 48", o.Table)
	}
	switch o.Isolation {
	case sql.LevelDefault, sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable:
	default:
		return fmt.Errorf("xa: Isolation: PostgreSQL has no level %v", o.Isolation)
	}
	if o.LockTimeout <= 0 {
		o.LockTimeout = DefaultLockTimeout
	}
	if o.SettleTimeout <= 0 {
		o.SettleTimeout = 5 * time.Second
	}
	return nil
}

// GID is the name of the branch of a run's step in this database.
func (p *Participant) GID(run, step string) string {
	h := sha256.New()
	for _, part := range []string{p.database, run, step} {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		h.Write([]byte(part))
	}
	name := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(h.Sum(nil)[:20])
	return p.opts.Namespace + "-" + strings.ToLower(name)
}

// lockKey is the number under which the session's lock of a branch is held.
func lockKey(gid string) int64 {
	sum := sha256.Sum256([]byte(gid))
	return int64(binary.BigEndian.Uint64(sum[:]))
}

// Tasks are the three tasks of a participant.
type Tasks[In, Out any] struct {
	Prepare definitions.Task[In, Out]
	Commit  definitions.Task[In, Out]
	Abort   definitions.Task[In, Out]
}

// NewTasks names the tasks of a participant in the usual way: name with
// ".prepare", ".commit" and ".abort" appended.
func NewTasks[In, Out any](service, name string) Tasks[In, Out] {
	return Tasks[In, Out]{
		Prepare: definitions.NewTask[In, Out](service, name+".prepare"),
		Commit:  definitions.NewTask[In, Out](service, name+".commit"),
		Abort:   definitions.NewTask[In, Out](service, name+".abort"),
	}
}

// Handle registers the handlers of a participant's three tasks. fn runs in
// prepare, or in the commit of a participant that is alone; it must do its work
// through tx and return the errors of tx. An error of fn is a vote of no, or is
// retried where it is not final (see [worker.Final]).
func Handle[In, Out any](w *worker.Worker, p *Participant, tasks Tasks[In, Out],
	fn func(ctx context.Context, tx *Tx, in In) (Out, error)) {
	perform := func(payload []byte) Func {
		return func(ctx context.Context, tx *Tx) ([]byte, error) {
			in, err := worker.Decode[In](payload)
			if err != nil {
				return nil, err
			}
			out, err := fn(ctx, tx, in)
			if err != nil {
				return nil, err
			}
			data, err := worker.Encode(out)
			if err != nil {
				return nil, worker.Final(worker.CodeBadOutput, err) // rolled back
			}
			return data, nil
		}
	}
	w.HandleTask(tasks.Prepare, func(ctx context.Context, payload []byte) ([]byte, error) {
		return p.Prepare(ctx, perform(payload))
	})
	w.HandleTask(tasks.Commit, func(ctx context.Context, payload []byte) ([]byte, error) {
		return p.Commit(ctx, perform(payload))
	})
	w.HandleTask(tasks.Abort, func(ctx context.Context, _ []byte) ([]byte, error) {
		return nil, p.Abort(ctx)
	})
}
