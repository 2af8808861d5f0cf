package xa

import (
	"context"
	"database/sql"
	"sync/atomic"

	"github.com/jmoiron/sqlx"
)

// Tx is a handler's transaction. It can be neither committed nor rolled back:
// that is the run's to decide. It implements [sqlx.ExtContext], is for one
// goroutine at a time, and ends when the handler returns.
type Tx struct {
	conn  *sqlx.Conn
	db    *sqlx.DB
	ended atomic.Bool
}

var _ sqlx.ExtContext = (*Tx)(nil)

// ExecContext executes a statement.
func (t *Tx) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if t.ended.Load() {
		return nil, sql.ErrTxDone
	}
	return t.conn.ExecContext(ctx, query, args...)
}

// GetContext reads one row into dest; [sql.ErrNoRows] if there is none.
func (t *Tx) GetContext(ctx context.Context, dest any, query string, args ...any) error {
	if t.ended.Load() {
		return sql.ErrTxDone
	}
	return t.conn.GetContext(ctx, dest, query, args...)
}

// SelectContext reads all rows into dest, a pointer to a slice.
func (t *Tx) SelectContext(ctx context.Context, dest any, query string, args ...any) error {
	if t.ended.Load() {
		return sql.ErrTxDone
	}
	return t.conn.SelectContext(ctx, dest, query, args...)
}

// QueryContext begins a query. Its rows must be closed before the handler
// returns.
func (t *Tx) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if t.ended.Load() {
		return nil, sql.ErrTxDone
	}
	return t.conn.QueryContext(ctx, query, args...)
}

// QueryxContext is QueryContext with the rows of sqlx.
func (t *Tx) QueryxContext(ctx context.Context, query string, args ...any) (*sqlx.Rows, error) {
	if t.ended.Load() {
		return nil, sql.ErrTxDone
	}
	return t.conn.QueryxContext(ctx, query, args...)
}

// QueryRowxContext reads at most one row. After the handler has returned it must
// not be called.
func (t *Tx) QueryRowxContext(ctx context.Context, query string, args ...any) *sqlx.Row {
	if t.ended.Load() {
		// A Row carries an error only if it comes from a query that failed.
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		cancel()
	}
	return t.conn.QueryRowxContext(ctx, query, args...)
}

// Rebind turns question marks into the database's placeholders.
func (t *Tx) Rebind(query string) string { return t.db.Rebind(query) }

// BindNamed turns named parameters into the database's placeholders.
func (t *Tx) BindNamed(query string, arg any) (string, []any, error) {
	return t.db.BindNamed(query, arg)
}

// DriverName returns the name of the database's driver.
func (t *Tx) DriverName() string { return t.db.DriverName() }
