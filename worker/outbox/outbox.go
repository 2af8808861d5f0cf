package outbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// DefaultTable is the name of the outbox's table. The lease of its relays is
// in a second one, of the same name with "_lease" at the end.
const DefaultTable = "ringmaster_outbox"

// ErrInvalid is wrapped by the errors of requests that no orchestrator would
// take; they name the field. Nothing was written.
var ErrInvalid = errors.New("invalid request")

// ErrNotFound says that no row with this id is set aside.
var ErrNotFound = errors.New("no such row is set aside")

// Options change how an outbox and its relays work. The zero value is good.
type Options struct {
	// Table is the name of the table, with a schema where wanted: letters,
	// digits and underscores; default DefaultTable.
	Table string
	// Namespace is that of the orchestrators; default
	// [protocol.DefaultNamespace].
	Namespace string
	// Batch is how many rows a relay takes at a time, 1 to 10,000; default 500.
	Batch int
	// InFlight is how many requests, of different keys, a relay has
	// unconfirmed at the broker; default 64.
	InFlight int
	// Poll is how long a relay waits before it looks for rows, or for a lease
	// that is free, when nobody notifies it; default 1 s.
	Poll time.Duration
	// Lease is for how long a relay leads after it was last seen to be there,
	// at least 1 s; default 15 s. It bounds the pause after a leader's death.
	Lease time.Duration
	// MaxBackoff bounds the wait between attempts while the broker or the
	// database is away, which begins at 100 ms; default 10 s.
	MaxBackoff time.Duration
	// Logger takes what relays have to say; nil discards it.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	if o.Table == "" {
		o.Table = DefaultTable
	}
	if o.Batch == 0 {
		o.Batch = 500
	}
	if o.InFlight == 0 {
		o.InFlight = 64
	}
	def(&o.Poll, time.Second)
	def(&o.Lease, 15*time.Second)
	def(&o.MaxBackoff, 10*time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func (o Options) validate() error {
	switch {
	case !tableName.MatchString(o.Table):
		return fmt.Errorf("Table: %q is not a name of letters, digits and underscores, at most 48", o.Table)
	case o.Batch < 1 || o.Batch > 10_000:
		return fmt.Errorf("Batch: is %d; it must be between 1 and 10,000", o.Batch)
	case o.InFlight < 1:
		return fmt.Errorf("InFlight: must be positive, is %d", o.InFlight)
	case o.Poll < 0:
		return fmt.Errorf("Poll: must be positive, is %v", o.Poll)
	case o.Lease < time.Second:
		return fmt.Errorf("Lease: must be at least 1 s, is %v", o.Lease)
	case o.MaxBackoff < 0:
		return fmt.Errorf("MaxBackoff: must be positive, is %v", o.MaxBackoff)
	}
	return nil
}

// Outbox is a table in an application's database. It is safe for concurrent
// use.
type Outbox struct {
	db      *sqlx.DB
	dialect Dialect
	opts    Options
	sql     statements
	metrics *metrics

	mu     sync.Mutex
	relays map[*Relay]struct{} // those that run in this process
}

// Tx is what is needed of the caller's transaction: an [sqlx.Tx] or a [sql.Tx].
type Tx interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// New returns the outbox of a database. It makes the tables if they are not
// there.
func New(ctx context.Context, db *sqlx.DB, d Dialect, o Options) (*Outbox, error) {
	if d < SQLite || d > MySQL {
		return nil, fmt.Errorf("outbox: %v is not a dialect", d)
	}
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("outbox: %w", err)
	}
	b := &Outbox{db: db, dialect: d, opts: o, sql: d.statements(o.Table), metrics: newMetrics(o.Table), relays: map[*Relay]struct{}{}}
	for _, stmt := range b.sql.create {
		if err := makeTable(ctx, db, d, stmt); err != nil {
			return nil, fmt.Errorf("outbox: making table %s: %w", o.Table, err)
		}
	}
	return b, nil
}

// makeTable runs a statement that makes a table unless it is there.
func makeTable(ctx context.Context, db *sqlx.DB, d Dialect, stmt string) error {
	for try := 0; ; try++ {
		_, err := db.ExecContext(ctx, stmt)
		if err == nil || try == 20 || !d.raced(err) {
			return err
		}
		select {
		case <-time.After(time.Duration(try+1) * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// Start writes a start request into the caller's transaction and returns the
// run's id, which is made (UUIDv7) where s has none. The run begins after the
// transaction has committed and a relay has taken the row; if the transaction
// is rolled back it never does. Errors of a request that would be refused wrap
// [ErrInvalid]. Call [Outbox.Notify] after the commit.
func (b *Outbox) Start(ctx context.Context, tx Tx, s rest.Start) (string, error) {
	if s.ID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return "", fmt.Errorf("outbox: making an id: %w", err)
		}
		s.ID = id.String()
	}
	if err := checkStart(&s); err != nil {
		return "", fmt.Errorf("outbox: start run %.200q: %w: %w", s.ID, ErrInvalid, err)
	}
	return s.ID, b.write(ctx, tx, protocol.RequestStart, s.ID, s)
}

// Cancel writes a cancel request for a run into the caller's transaction, as
// Start does. A run that was started through the same outbox is started before
// it is cancelled.
func (b *Outbox) Cancel(ctx context.Context, tx Tx, run string, c rest.Cancel) error {
	if run == "" {
		return fmt.Errorf("outbox: cancel: %w: id: is required", ErrInvalid)
	}
	return b.write(ctx, tx, protocol.RequestCancel, run, c)
}

// maxSignalName bounds the name of a signal: no workflow knows a longer one.
const maxSignalName = 64

// Signal writes a signal for a run into the caller's transaction, as Start does.
// It gets an id (UUIDv7) where s has none, so that the run receives it once,
// however often it is delivered. A run that was started through the same outbox is
// started before; of one that does not exist, an orchestrator keeps the signal among
// its dead letters.
func (b *Outbox) Signal(ctx context.Context, tx Tx, run, name string, s rest.Signal) error {
	if s.ID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return fmt.Errorf("outbox: making an id: %w", err)
		}
		s.ID = id.String()
	}
	if err := checkSignal(run, name, &s); err != nil {
		return fmt.Errorf("outbox: signal %.64q of run %.200q: %w: %w", name, run, ErrInvalid, err)
	}
	return b.write(ctx, tx, protocol.RequestSignal, run, rest.SignalRequest{Name: name, Signal: s})
}

// checkSignal is checkStart for a signal.
func checkSignal(run, name string, s *rest.Signal) error {
	switch {
	case run == "":
		return errors.New("run: is required")
	case name == "":
		return errors.New("name: is required")
	case len(name) > maxSignalName:
		return fmt.Errorf("name: is %d bytes long; at most %d", len(name), maxSignalName)
	case len(s.ID) > protocol.MaxNameBytes:
		return fmt.Errorf("id: is %d bytes long; at most %d", len(s.ID), protocol.MaxNameBytes)
	case len(s.Payload) > 0 && !json.Valid(s.Payload):
		return errors.New("payload: is not JSON")
	}
	return nil
}

// checkStart refuses early what an orchestrator would refuse later, when the
// caller has committed. What only an orchestrator knows is left to it.
func checkStart(s *rest.Start) error {
	switch {
	case s.Workflow == "":
		return errors.New("workflow: is required")
	case strings.Contains(s.ID, " "):
		return errors.New("id: must not contain spaces")
	case len(s.Key) > protocol.MaxRoutingKeyBytes:
		return fmt.Errorf("key: is %d bytes long; at most %d", len(s.Key), protocol.MaxRoutingKeyBytes)
	case s.Priority < 0 || s.Priority > 9:
		return fmt.Errorf("priority: is %d; it must be between 0 and 9", s.Priority)
	case len(s.Input) > 0 && !json.Valid(s.Input):
		return errors.New("input: is not JSON")
	}
	return nil
}

func (b *Outbox) write(ctx context.Context, tx Tx, kind protocol.RequestType, key string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("outbox: %s %.200q: %w: %w", kind, key, ErrInvalid, err)
	}
	if _, err := b.message(&Row{Key: key, Kind: string(kind), Body: body}); err != nil {
		return fmt.Errorf("outbox: %s %.200q: %w: %w", kind, key, ErrInvalid, err)
	}
	if _, err := tx.ExecContext(ctx, b.sql.insert, key, string(kind), body); err != nil {
		return fmt.Errorf("outbox: writing %s %s: %w", kind, key, err)
	}
	return nil
}

// Do runs fn in a transaction of its own, commits it, and wakes this process's
// relays. It rolls back where fn fails or panics. Callers that have their
// own way with transactions call [Outbox.Notify] after the commit instead.
func (b *Outbox) Do(ctx context.Context, fn func(ctx context.Context, tx *sqlx.Tx) error) error {
	tx, err := b.db.BeginTxx(ctx, nil)
	if err != nil {
		return fmt.Errorf("outbox: beginning a transaction: %w", err)
	}
	committed := false
	defer func() {
		// An error of Rollback changes nothing: without a commit the database
		// rolls back.
		if !committed {
			_ = tx.Rollback()
		}
	}()
	if err := fn(ctx, tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("outbox: committing: %w", err)
	}
	committed = true
	b.Notify()
	return nil
}

// Notify says that rows have been committed: the relays of this outbox value
// look for them at once. It does not block.
func (b *Outbox) Notify() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for r := range b.relays {
		signal(r.wake)
	}
}
