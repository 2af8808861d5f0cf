package main

import (
	"bytes"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mattn/go-sqlite3"
)

const (
	rowBytes    = 200
	rowsInOne   = 100   // of a multi-row insert
	rowsInBatch = 1_000 // of the transactions that rows per second are measured with
)

// rowTable is a database as store/sqlite keeps one, with nothing but a history.
type rowTable struct {
	conn               *sqlite3.SQLiteConn
	begin, commit      *sqlite3.SQLiteStmt
	insertOne, insertN *sqlite3.SQLiteStmt
	next               int64
	one, many          []driver.NamedValue
}

func openTable(path string) (_ *rowTable, err error) {
	// The settings of store/sqlite. Its checkpoints come from a goroutine of
	// its own, at the same length of the log as here.
	pragmas := []string{
		"page_size = 4096", "busy_timeout = 30000", "journal_mode = WAL", "synchronous = FULL", "fullfsync = ON",
		"wal_autocheckpoint = 4096", "temp_store = MEMORY", "cache_size = -16384", "journal_size_limit = 67108864",
	}
	c, err := (&sqlite3.SQLiteDriver{}).Open("file:" + path + "?mode=rwc&_mutex=no")
	if err != nil {
		return nil, err
	}
	t := &rowTable{conn: c.(*sqlite3.SQLiteConn)}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.conn.Close())
		}
	}()
	for _, p := range pragmas {
		if _, err := t.conn.Exec("PRAGMA "+p, nil); err != nil {
			return nil, fmt.Errorf("PRAGMA %s: %w", p, err)
		}
	}
	_, err = t.conn.Exec("CREATE TABLE history (run INTEGER NOT NULL, seq INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (run, seq)) STRICT, WITHOUT ROWID", nil)
	if err != nil {
		return nil, err
	}
	const row = "(?, 1, ?)"
	for to, query := range map[**sqlite3.SQLiteStmt]string{
		&t.begin: "BEGIN IMMEDIATE", &t.commit: "COMMIT",
		&t.insertOne: "INSERT INTO history VALUES " + row,
		&t.insertN:   "INSERT INTO history VALUES " + row + strings.Repeat(", "+row, rowsInOne-1),
	} {
		stmt, err := t.conn.Prepare(query)
		if err != nil {
			return nil, err
		}
		*to = stmt.(*sqlite3.SQLiteStmt)
	}
	data := bytes.Repeat([]byte("event "), rowBytes/6+1)[:rowBytes]
	for i := range rowsInOne {
		t.many = append(t.many, driver.NamedValue{Ordinal: 2*i + 1}, driver.NamedValue{Ordinal: 2*i + 2, Value: data})
	}
	t.one = slices.Clone(t.many[:2])
	return t, nil
}

func (t *rowTable) close() error {
	var errs []error
	for _, s := range []*sqlite3.SQLiteStmt{t.begin, t.commit, t.insertOne, t.insertN} {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, t.conn.Close())...)
}

// transaction commits a number of rows: 1 or a multiple of rowsInOne.
func (t *rowTable) transaction(rows int) error {
	ctx := context.Background() // one that can end costs a goroutine a statement
	if _, err := t.begin.ExecContext(ctx, nil); err != nil {
		return err
	}
	insert, values, n := t.insertN, t.many, rowsInOne
	if rows == 1 {
		insert, values, n = t.insertOne, t.one, 1
	}
	for done := 0; done < rows; done += n {
		for i := range n {
			t.next++
			values[2*i].Value = t.next
		}
		if _, err := insert.ExecContext(ctx, values); err != nil {
			return err
		}
	}
	_, err := t.commit.ExecContext(ctx, nil)
	return err
}

// commits commits for a while and returns how long each took.
func (t *rowTable) commits(ctx context.Context, rows int, limit time.Duration) (latencies, time.Duration, error) {
	var each latencies
	began := time.Now()
	for last := began; ; {
		if err := t.transaction(rows); err != nil {
			return nil, 0, fmt.Errorf("commit %d rows: %w", rows, err)
		}
		now := time.Now()
		each = append(each, now.Sub(last))
		last = now
		if now.Sub(began) >= limit {
			return each, now.Sub(began), nil
		}
		if ctx.Err() != nil {
			return nil, 0, context.Cause(ctx)
		}
	}
}

// newTable makes a database in a directory of its own, which remove removes.
func newTable(b *bench, name string) (t *rowTable, remove func() error, err error) {
	dir := filepath.Join(b.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, nil, err
	}
	if t, err = openTable(filepath.Join(dir, "rows.db")); err != nil {
		return nil, nil, err
	}
	return t, func() error { return errors.Join(t.close(), os.RemoveAll(dir)) }, nil
}

func measureSQLite(ctx context.Context, b *bench) (err error) {
	t, remove, err := newTable(b, "sqlite")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	if _, _, err := t.commits(ctx, 1, b.d.sqlite/5); err != nil { // warm-up
		return err
	}
	single, took, err := t.commits(ctx, 1, b.d.sqlite)
	if err != nil {
		return err
	}
	commits := perSecond(int64(len(single)), took)
	b.report.set("sqlite.commits_per_s", commits, "1/s")
	b.report.set("sqlite.commit.p50_ms", single.quantile(0.5), "ms")
	batches, took, err := t.commits(ctx, rowsInBatch, b.d.sqlite)
	if err != nil {
		return err
	}
	rows := perSecond(int64(len(batches))*rowsInBatch, took)
	b.report.set("sqlite.rows_per_s", rows, "1/s")
	b.say("  one row a commit: %.0f/s, p50 %.3f ms; %d rows a commit: %.0f rows/s",
		commits, single.quantile(0.5), rowsInBatch, rows)
	return nil
}
