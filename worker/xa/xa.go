package xa

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/worker"
)

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
	CodePrepare           = "prepare_unknown"    // the answer to a prepare was lost
	CodeCommit            = "commit_unknown"     // the answer to a commit was lost
	CodeAbort             = "abort_unknown"      // the answer to a rollback was lost
	CodeTxLost            = "tx_lost"            // the handler ended the transaction itself
	CodeNoTask            = "no_task"            // the context belongs to no task
)

// Defaults of the options.
const (
	DefaultNamespace    = "ringmaster"
	DefaultTable        = "ringmaster_xa"
	DefaultLockTimeout  = 10 * time.Second
	DefaultRecoverEvery = 30 * time.Second
)

// Options change how a participant works. The zero value is good.
type Options struct {
	// Namespace begins the name of every branch. Nobody asks for the decision of
	// branches of other namespaces: two deployments, with orchestrators of their
	// own, that share a database need two, or each has the other's branches rolled
	// back, since its orchestrator does not know their runs. 1 to 24 lower-case letters, digits and underscores; default
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
	// Decide says what was decided of a run: a worker of Handle asks it of the
	// branches in doubt, at its start and then now and then. Nil is the worker's
	// own [worker.Worker.Decision], which asks the orchestrator.
	Decide func(ctx context.Context, run string) (Decision, error)
	// RecoverEvery is how often, more or less; a branch that is found prepared
	// twice in a row is asked for, at start all are. A round may take as long, and 10 s at least.
	// Default DefaultRecoverEvery; negative is never, not even at start.
	RecoverEvery time.Duration
	// Logger gets what was settled in this way, and what could not be; default
	// slog.Default().
	Logger *slog.Logger
	// Ended says when each of the given runs ended; runs that have not ended
	// are left out. With it, [Participant.Cleanup] keeps the rows of unended runs.
	// EndedAt of a client of the HTTP API is such a function.
	Ended func(ctx context.Context, runs []string) (map[string]time.Time, error)
}

// Participant is a database that takes part in two-phase commits. It is safe
// for concurrent use.
type Participant struct {
	db       *sqlx.DB
	opts     Options
	server   server
	sql      statements
	database string
	prefix   string // of the names of branches
	// slots are as many as sessions may be open, where the vote takes another
	// connection: so there is always one for it. Nil is any number.
	slots chan struct{}
	kept  kept

	mu      sync.Mutex
	workers []*worker.Worker // that settle branches in doubt
}

// Func is a handler. It does its work through tx. What it returns is the
// participant's output, which is answered with the vote.
type Func func(ctx context.Context, tx *Tx) ([]byte, error)

// New returns the participant of a database. It makes its tables if they are
// not there. It fails, saying what to change, where the database is set up to
// prepare nothing or would not keep what it has prepared. Every task takes one connection of db; on MySQL a prepare takes another one for a
// moment, so a limit (SetMaxOpenConns, to be set before) must be 2 at least.
func New(ctx context.Context, db *sqlx.DB, d Dialect, o Options) (*Participant, error) {
	srv := d.server()
	if srv == nil {
		return nil, fmt.Errorf("xa: %v is not a database that can be a participant", d)
	}
	if err := o.complete(); err != nil {
		return nil, err
	}
	database, err := srv.check(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("xa: %v: %w", d, err)
	}
	p := &Participant{db: db, opts: o, server: srv, sql: srv.statements(o.Table), database: database,
		prefix: o.Namespace + "-" + hash(6, database) + "-"}
	p.kept = kept{limit: keepMost, conns: map[string]*sqlx.Conn{}}
	if n := db.Stats().MaxOpenConnections; srv.bound() && n > 0 {
		p.kept.limit = min(keepMost, (n-1)/2)
		p.slots = make(chan struct{}, n-1-p.kept.limit)
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
		return fmt.Errorf("xa: Isolation: level %v is not supported", o.Isolation)
	}
	if o.LockTimeout <= 0 {
		o.LockTimeout = DefaultLockTimeout
	}
	if o.RecoverEvery == 0 {
		o.RecoverEvery = DefaultRecoverEvery
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.SettleTimeout <= 0 {
		o.SettleTimeout = 5 * time.Second
	}
	return nil
}

// GID is the name of the branch of a run's step in this database.
func (p *Participant) GID(run, step string) string {
	return p.prefix + hash(26, p.database, run, step)
}

// hash is n characters (of 5 bits) made from parts.
func hash(n int, parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		h.Write([]byte(part))
	}
	return strings.ToLower(base32.StdEncoding.EncodeToString(h.Sum(nil))[:n])
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

// Handle registers the handlers of a participant's three tasks, and has the
// worker settle branches in doubt, see [Options.Decide]. fn runs in
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
	p.attend(w)
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
