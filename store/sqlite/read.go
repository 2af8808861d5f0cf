package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/mattn/go-sqlite3"

	"github.com/ringmaster-dev/ringmaster/store"
)

// openReaders opens the pool of read-only connections. Each keeps the
// statements that it has prepared.
func openReaders(ctx context.Context, path string, conns int) (*sqlx.DB, error) {
	hook := pragmaHook([]string{"query_only = ON", "busy_timeout = " + busyTimeout, "cache_size = -8192", "temp_store = MEMORY"})
	db := sqlx.NewDb(sql.OpenDB(connector{
		dsn(path, "ro", "&_mutex=no&_stmt_cache_size=32"), &sqlite3.SQLiteDriver{ConnectHook: hook},
	}), "sqlite3")
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("opening for reading: %w", err), db.Close())
	}
	return db, nil
}

// runColumns are the columns of a run, in the order of runRow.
const runColumns = `r.ref, r.id, r.workflow, r.status, r.waived, coalesce(r.key, r.id) AS key, r.input_hash,
	coalesce(r.tags, '') AS tags, coalesce(r.retry_of, '') AS retry_of, r.created, r.updated,
	coalesce(r.ended, 0) AS ended, coalesce(r.wake, 0) AS wake, r.ended IS NOT NULL AS has_ended,
	r.wake IS NOT NULL AS has_wake, coalesce(r.failed_step, '') AS failed_step, coalesce(r.error, '') AS error,
	coalesce(r.parent, '') AS parent, coalesce(r.parent_step, '') AS parent_step`

func (s *Store) scanRun(rows *sqlx.Rows) (store.Run, error) {
	var (
		r                             store.Run
		workflow                      int64
		hash                          sql.RawBytes
		tags                          string
		created, updated, ended, wake int64
		hasEnded, hasWake             bool
	)
	err := rows.Scan(&r.Ref, &r.ID, &workflow, &r.Status, &r.Waived, &r.Key, &hash, &tags, &r.RetryOf,
		&created, &updated, &ended, &wake, &hasEnded, &hasWake, &r.FailedStep, &r.Error,
		&r.Parent, &r.ParentStep)
	if err != nil {
		return store.Run{}, err
	}
	r.Shard = uint32(r.Ref >> 40)
	v := s.names.version(workflow)
	r.Workflow, r.Version = v.name, v.version
	copy(r.InputHash[:], hash)
	if tags != "" {
		if err := json.Unmarshal([]byte(tags), &r.Tags); err != nil {
			return store.Run{}, fmt.Errorf("tags of run %s: %w", r.ID, err)
		}
	}
	r.Created, r.Updated = fromMilli(created), fromMilli(updated)
	if hasEnded {
		r.Ended = fromMilli(ended)
	}
	if hasWake {
		r.Wake = fromMilli(wake)
	}
	return r, nil
}

func (s *Store) queryRuns(ctx context.Context, q sqlx.QueryerContext, query string, args ...any) ([]store.Run, error) {
	rows, err := q.QueryxContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []store.Run
	for rows.Next() {
		r, err := s.scanRun(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

func queryRecords(ctx context.Context, q sqlx.QueryerContext, query string, args ...any) ([]store.Record, error) {
	rows, err := q.QueryxContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []store.Record
	for rows.Next() {
		var r store.Record
		if err := rows.Scan(&r.Ref, &r.Seq, &r.Data); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

// Run implements [store.Store].
func (s *Store) Run(ctx context.Context, id string) (store.Run, error) {
	r, err := s.one(ctx, "SELECT "+runColumns+" FROM runs r WHERE r.id = ?", id)
	if err != nil {
		return r, fmt.Errorf("sqlite: reading run %s: %w", id, err)
	}
	return r, nil
}

// RunByRef implements [store.Store].
func (s *Store) RunByRef(ctx context.Context, ref int64) (store.Run, error) {
	r, err := s.one(ctx, "SELECT "+runColumns+" FROM runs r WHERE r.ref = ?", ref)
	if err != nil {
		return r, fmt.Errorf("sqlite: reading run number %d: %w", ref, err)
	}
	return r, nil
}

func (s *Store) one(ctx context.Context, query string, arg any) (store.Run, error) {
	defer s.reading()()
	runs, err := s.queryRuns(ctx, s.read, query, arg)
	if err != nil {
		return store.Run{}, err
	}
	if len(runs) == 0 {
		return store.Run{}, store.ErrNotFound
	}
	return runs[0], nil
}

// lookupChunk is the number of ids in one query.
const lookupChunk = 256

// Lookup implements [store.Store].
func (s *Store) Lookup(ctx context.Context, ids []string) ([]store.Run, error) {
	defer s.reading()()
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	var out []store.Run
	for chunk := range slices.Chunk(ids, lookupChunk) {
		query, args, err := sqlx.In("SELECT "+runColumns+" FROM runs r WHERE r.id IN (?)", chunk)
		if err != nil {
			return nil, fmt.Errorf("sqlite: looking runs up: %w", err)
		}
		runs, err := s.queryRuns(ctx, s.read, query, args...)
		if err != nil {
			return nil, fmt.Errorf("sqlite: looking runs up: %w", err)
		}
		out = append(out, runs...)
	}
	return out, nil
}

// History implements [store.Store].
func (s *Store) History(ctx context.Context, ref int64) ([]store.Record, error) {
	defer s.reading()()
	records, err := queryRecords(ctx, s.read, `SELECT ?1, seq, data FROM history
		WHERE run = (SELECT run FROM runs WHERE ref = ?1) ORDER BY seq`, ref)
	if err != nil {
		return nil, fmt.Errorf("sqlite: reading the history of run number %d: %w", ref, err)
	}
	return records, nil
}

// Load implements [store.Store].
func (s *Store) Load(ctx context.Context, refs []int64) ([]store.Unfinished, error) {
	if len(refs) == 0 {
		return nil, nil
	}
	// The list goes in one argument, whatever its length, and each number
	// once.
	list, err := json.Marshal(slices.Compact(slices.Sorted(slices.Values(refs))))
	if err != nil {
		return nil, err
	}
	out, err := s.whole(ctx, "SELECT r.ref, r.run FROM json_each(?) j CROSS JOIN runs r ON r.ref = j.value ORDER BY j.key", string(list))
	if err != nil {
		return nil, fmt.Errorf("sqlite: loading runs: %w", err)
	}
	return out, nil
}

const (
	// The conditions on status and wake are those of the indexes, in the same
	// words, without which SQLite does not take them.
	unfinishedQuery = `SELECT ref, run FROM runs INDEXED BY runs_unfinished
		WHERE status < 4 AND ref > ? AND ref < ? AND (wake IS NULL OR wake <= ?) ORDER BY ref LIMIT ?`
	dueQuery = `SELECT ref FROM runs INDEXED BY runs_due
		WHERE ref >> 40 = ? AND wake IS NOT NULL AND status < 4 AND wake <= ? ORDER BY wake, ref LIMIT ?`
)

// Unfinished implements [store.Store].
func (s *Store) Unfinished(ctx context.Context, shard uint32, after int64, wakeBefore time.Time, limit int) ([]store.Unfinished, error) {
	if limit <= 0 {
		return nil, nil
	}
	out, err := s.whole(ctx, unfinishedQuery, max(after, store.RefBase(shard)), store.RefBase(shard+1), wakeBefore.UnixMilli(), limit)
	if err != nil {
		return nil, fmt.Errorf("sqlite: reading unfinished runs of shard %d: %w", shard, err)
	}
	return out, nil
}

// whole returns the rows and histories of the runs that a query selects (ref
// and run, ordered by ref), as of one moment.
func (s *Store) whole(ctx context.Context, selected string, args ...any) (out []store.Unfinished, err error) {
	defer s.reading()()
	tx, err := s.read.BeginTxx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, tx.Rollback()) }()

	runs, err := s.queryRuns(ctx, tx, "SELECT "+runColumns+" FROM ("+selected+
		") n CROSS JOIN runs r ON r.run = n.run ORDER BY n.ref", args...)
	if err != nil {
		return nil, err
	}
	records, err := queryRecords(ctx, tx, "SELECT n.ref, h.seq, h.data FROM ("+selected+
		") n CROSS JOIN history h ON h.run = n.run ORDER BY n.ref", args...)
	if err != nil {
		return nil, err
	}
	out = make([]store.Unfinished, len(runs))
	for i, r := range runs {
		n := 0
		for n < len(records) && records[n].Ref == r.Ref {
			n++
		}
		// They come in this order, but only the query could promise it, at the
		// price of sorting all of them.
		slices.SortFunc(records[:n], func(a, b store.Record) int { return cmp.Compare(a.Seq, b.Seq) })
		out[i] = store.Unfinished{Run: r, History: records[:n:n]}
		records = records[n:]
	}
	return out, nil
}

// Due implements [store.Store].
func (s *Store) Due(ctx context.Context, shard uint32, t time.Time, limit int) ([]int64, error) {
	if limit <= 0 {
		return nil, nil
	}
	defer s.reading()()
	var refs []int64
	err := s.read.SelectContext(ctx, &refs, dueQuery, shard, t.UnixMilli(), limit)
	if err != nil {
		return nil, fmt.Errorf("sqlite: reading due runs of shard %d: %w", shard, err)
	}
	return refs, nil
}

// Counts implements [store.Store].
func (s *Store) Counts(ctx context.Context) (store.Counts, error) {
	defer s.reading()()
	rows, err := s.counts(ctx, s.read)
	if err != nil {
		return nil, fmt.Errorf("sqlite: counting runs: %w", err)
	}
	return s.countsOf(rows), nil
}

// Unended implements [store.Store].
func (s *Store) Unended(ctx context.Context, shard uint32) (store.Counts, error) {
	defer s.reading()()
	var rows []countRow
	err := s.read.SelectContext(ctx, &rows, `SELECT workflow, status, count(*) AS n FROM runs
		WHERE ref > ? AND ref < ? AND status < 4 GROUP BY workflow, status`, store.RefBase(shard), store.RefBase(shard+1))
	if err != nil {
		return nil, fmt.Errorf("sqlite: counting unended runs of shard %d: %w", shard, err)
	}
	return s.countsOf(rows), nil
}

func (s *Store) countsOf(rows []countRow) store.Counts {
	out := store.Counts{}
	for _, c := range rows {
		name := s.names.version(c.Workflow).name
		if out[name] == nil {
			out[name] = map[store.Status]int64{}
		}
		out[name][c.Status] += c.N
	}
	return out
}

type countRow struct {
	Workflow int64
	Status   store.Status
	N        int64
}

// counts returns the rows of counts that are not zero.
func (s *Store) counts(ctx context.Context, q sqlx.QueryerContext) ([]countRow, error) {
	var rows []countRow
	err := sqlx.SelectContext(ctx, q, &rows, "SELECT workflow, status, n FROM counts WHERE n > 0")
	return rows, err
}

// placeholders is a list of n parameters.
func placeholders(n int) string { return strings.Repeat("?,", n-1) + "?" }
