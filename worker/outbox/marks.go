package outbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"
)

// DefaultMarksTable is the name of the table of [Marks].
const DefaultMarksTable = "ringmaster_marks"

// ErrMarked says that a run cannot be marked: it has been marked before, or it
// was checked before it was and nothing comes of it any more. The caller's
// transaction must be rolled back.
var ErrMarked = errors.New("the run has been marked, or given up, already")

// Marks let an orchestrator ask an application whether a local transaction has
// committed: the two-phase message with check-back, for applications without a
// relay. In this order:
//
//  1. Prepare: start a run, over HTTP or the broker, of a saga that begins with
//     [definitions.SagaBuilder.CheckBack]. It waits.
//  2. Commit: write the business rows and [Marks.Set] in one transaction.
//  3. Submit: give the run the signal "submitted". It goes on.
//
// Where the signal does not come, because the application died somewhere in
// between, the saga has a worker of the application's ask [Marks.Committed]. If
// the transaction has committed, the run goes on as if it had been submitted. If
// not, the question itself sees to it that it never will, and the check fails for
// good, so that the run ends with nothing done. So the business rows and the
// run's effects exist both or neither.
//
// The table is in the application's database. Rows are small and may be removed
// once their runs have ended.
type Marks struct {
	db           *sqlx.DB
	dialect      Dialect
	insert, read string
}

// NewMarks returns the marks of a database. It makes the table if it is not
// there; an empty name is [DefaultMarksTable].
func NewMarks(ctx context.Context, db *sqlx.DB, d Dialect, table string) (*Marks, error) {
	if table == "" {
		table = DefaultMarksTable
	}
	if d < SQLite || d > MySQL {
		return nil, fmt.Errorf("outbox: %v is not a dialect", d)
	}
	if !tableName.MatchString(table) {
		return nil, fmt.Errorf("outbox: table: %q is not a name of letters, digits and underscores, at most 48", table)
	}
	t, name := d.types(), d.quote(table)
	insert, tail := "INSERT INTO ", " ON CONFLICT (run) DO NOTHING"
	if d == MySQL {
		insert, tail = "INSERT IGNORE INTO ", ""
	}
	m := &Marks{
		db: db, dialect: d,
		insert: d.rebind(insert + name + ` (run, committed, created) VALUES (?, ?, ` + t.now + `)` + tail),
		read:   d.rebind(`SELECT committed FROM ` + name + ` WHERE run = ?`),
	}
	create := `CREATE TABLE IF NOT EXISTS ` + name + ` (
		run       ` + t.name + ` PRIMARY KEY,
		committed INTEGER NOT NULL,
		created   BIGINT NOT NULL
	)` + t.options
	if err := makeTable(ctx, db, d, create); err != nil {
		return nil, fmt.Errorf("outbox: making table %s: %w", table, err)
	}
	return m, nil
}

// Set marks a run as committed, in the caller's transaction. [ErrMarked] says
// that the transaction must be rolled back.
func (m *Marks) Set(ctx context.Context, tx Tx, run string) error {
	if run == "" || len(run) > 200 {
		return fmt.Errorf("outbox: mark run %.200q: %w: id: has 1 to 200 bytes", run, ErrInvalid)
	}
	res, err := tx.ExecContext(ctx, m.insert, run, 1)
	if err != nil {
		return fmt.Errorf("outbox: marking run %s: %w", run, err)
	}
	n, err := res.RowsAffected()
	if err != nil {
		return fmt.Errorf("outbox: marking run %s: %w", run, err)
	}
	if n == 0 {
		return fmt.Errorf("outbox: run %s: %w", run, ErrMarked)
	}
	return nil
}

// Committed tells whether the transaction that marks a run has committed. It
// waits for one that is under way. If there is none, there will never be one: a
// later Set of the run fails. It may be asked again, and answers the same.
func (m *Marks) Committed(ctx context.Context, run string) (bool, error) {
	if m.dialect == SQLite {
		ctx = context.WithoutCancel(ctx) // see Outbox.dbContext
	}
	if _, err := m.db.ExecContext(ctx, m.insert, run, 0); err != nil {
		return false, fmt.Errorf("outbox: checking run %s: %w", run, err)
	}
	var committed int
	if err := m.db.GetContext(ctx, &committed, m.read, run); err != nil {
		return false, fmt.Errorf("outbox: checking run %s: %w", run, err)
	}
	return committed == 1, nil
}
