package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/mattn/go-sqlite3"
)

// conn is a connection of the driver, used without database/sql: the write
// path makes a few hundred thousand rows a second, where the latter's
// bookkeeping would be a good part of the cost. It is not safe for concurrent
// use.
type conn struct {
	raw   *sqlite3.SQLiteConn
	stmts []*stmt
}

// dsn makes the driver's name for a database file. mode is rw, rwc or ro.
func dsn(path, mode string, options ...string) string {
	u := url.URL{Path: path}
	return "file:" + u.EscapedPath() + "?mode=" + mode + strings.Join(options, "")
}

func openConn(dsn string, pragmas ...string) (*conn, error) {
	d := &sqlite3.SQLiteDriver{ConnectHook: pragmaHook(pragmas)}
	c, err := d.Open(dsn)
	if err != nil {
		return nil, err
	}
	return &conn{raw: c.(*sqlite3.SQLiteConn)}, nil
}

func pragmaHook(pragmas []string) func(*sqlite3.SQLiteConn) error {
	return func(c *sqlite3.SQLiteConn) error {
		for _, p := range pragmas {
			if _, err := c.Exec("PRAGMA "+p, nil); err != nil {
				return fmt.Errorf("PRAGMA %s: %w", p, err)
			}
		}
		return nil
	}
}

// exec runs a statement that is not worth preparing.
func (c *conn) exec(query string) error {
	_, err := c.raw.Exec(query, nil)
	return err
}

// row runs a query that is not worth preparing and returns its first row, or
// nil if there is none.
func (c *conn) row(query string, values ...driver.Value) ([]driver.Value, error) {
	rows, err := c.raw.Query(query, values)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := make([]driver.Value, len(rows.Columns()))
	switch err := rows.Next(out); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return out, nil
}

// value returns the single value of a query's first row.
func value[T any](c *conn, query string, values ...driver.Value) (T, error) {
	var zero T
	row, err := c.row(query, values...)
	if err != nil {
		return zero, err
	}
	if len(row) == 0 {
		return zero, fmt.Errorf("%s: no answer", query)
	}
	v, ok := row[0].(T)
	if !ok {
		return zero, fmt.Errorf("%s: answered %T(%v)", query, row[0], row[0])
	}
	return v, nil
}

func (c *conn) close() error {
	var errs []error
	for _, s := range c.stmts {
		errs = append(errs, s.raw.Close())
	}
	return errors.Join(append(errs, c.raw.Close())...)
}

// stmt is a prepared statement.
type stmt struct{ raw *sqlite3.SQLiteStmt }

func (c *conn) prepare(query string) (*stmt, error) {
	s, err := c.raw.Prepare(query)
	if err != nil {
		return nil, fmt.Errorf("preparing %q: %w", query, err)
	}
	st := &stmt{s.(*sqlite3.SQLiteStmt)}
	c.stmts = append(c.stmts, st)
	return st, nil
}

// exec runs a statement to its end. It goes through the driver's query path,
// which binds all arguments and takes the first (here the only) step in one
// call into C, where its exec path makes a call per argument.
func (s *stmt) exec(a args) error {
	rows, err := s.raw.QueryContext(context.Background(), a)
	if err != nil {
		return err
	}
	return rows.Close()
}

// row fills out with the first row of a query and tells whether there was one.
func (s *stmt) row(a args, out []driver.Value) (bool, error) {
	rows, err := s.raw.QueryContext(context.Background(), a)
	if err != nil {
		return false, err
	}
	err = rows.Next(out)
	if errors.Is(err, io.EOF) {
		return false, rows.Close()
	}
	if err != nil {
		_ = rows.Close()
		return false, err
	}
	return true, rows.Close()
}

// args are positional arguments of a statement.
type args []driver.NamedValue

func (a *args) add(values ...driver.Value) {
	for _, v := range values {
		*a = append(*a, driver.NamedValue{Ordinal: len(*a) + 1, Value: v})
	}
}

// isConflict tells whether a statement failed because a row exists.
func isConflict(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && (e.ExtendedCode == sqlite3.ErrConstraintUnique ||
		e.ExtendedCode == sqlite3.ErrConstraintPrimaryKey || e.ExtendedCode == sqlite3.ErrConstraintRowID)
}
