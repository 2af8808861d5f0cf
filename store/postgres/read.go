package postgres

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/store"
)

// runColumns are the columns of a run, in the order of scanRun.
const runColumns = `r.ref, r.id, r.workflow, r.status, r.waived, coalesce(r.key, r.id), uuid_send(r.input_hash),
	r.tags, coalesce(r.retry_of, ''), r.created, r.updated, r.ended, r.wake, coalesce(r.failed_step, ''), coalesce(r.error, ''),
	coalesce(r.parent, ''), coalesce(r.parent_step, '')`

// scanRun returns a run without its workflow, and the number of that.
func scanRun(rows *sqlx.Rows) (r store.Run, workflow int32, err error) {
	var (
		hash             sql.RawBytes
		tags             sql.NullString
		created, updated int64
		ended, wake      sql.NullInt64
	)
	err = rows.Scan(&r.Ref, &r.ID, &workflow, &r.Status, &r.Waived, &r.Key, &hash, &tags, &r.RetryOf,
		&created, &updated, &ended, &wake, &r.FailedStep, &r.Error, &r.Parent, &r.ParentStep)
	if err != nil {
		return store.Run{}, 0, err
	}
	r.Shard = uint32(r.Ref >> 40)
	copy(r.InputHash[:], hash)
	if tags.Valid {
		if err := json.Unmarshal([]byte(tags.String), &r.Tags); err != nil {
			return store.Run{}, 0, fmt.Errorf("tags of run %s: %w", r.ID, err)
		}
	}
	r.Created, r.Updated, r.Ended, r.Wake = fromMilli(created), fromMilli(updated), orZero(ended), orZero(wake)
	return r, workflow, nil
}

// orZero is the time of a column that may be NULL.
func orZero(ms sql.NullInt64) time.Time {
	if !ms.Valid {
		return time.Time{}
	}
	return fromMilli(ms.Int64)
}

func (s *Store) queryRuns(ctx context.Context, q sqlx.QueryerContext, query string, args ...any) ([]store.Run, error) {
	rows, err := q.QueryxContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var (
		out     []store.Run
		numbers []int32
	)
	for rows.Next() {
		r, number, err := scanRun(rows)
		if err != nil {
			return nil, err
		}
		out, numbers = append(out, r), append(numbers, number)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for i := range out {
		v, err := s.names.version(ctx, numbers[i])
		if err != nil {
			return nil, err
		}
		out[i].Workflow, out[i].Version = v.name, v.version
	}
	return out, nil
}

// runs reads runs, for a caller who says what for.
func (s *Store) runs(ctx context.Context, what, query string, args ...any) ([]store.Run, error) {
	out, err := read(ctx, s, func(ctx context.Context) ([]store.Run, error) { return s.queryRuns(ctx, s.db, query, args...) })
	if err != nil {
		return nil, fmt.Errorf("postgres: %s: %w", what, err)
	}
	return out, nil
}

// Run implements [store.Store].
func (s *Store) Run(ctx context.Context, id string) (store.Run, error) {
	return s.one(ctx, "reading run "+id, "SELECT "+runColumns+" FROM runs r WHERE r.id = $1", clean(id))
}

// RunByRef implements [store.Store].
func (s *Store) RunByRef(ctx context.Context, ref int64) (store.Run, error) {
	return s.one(ctx, fmt.Sprintf("reading run number %d", ref), "SELECT "+runColumns+" FROM runs r WHERE r.ref = $1", ref)
}

func (s *Store) one(ctx context.Context, what, query string, arg any) (store.Run, error) {
	runs, err := s.runs(ctx, what, query, arg)
	if err != nil {
		return store.Run{}, err
	}
	if len(runs) == 0 {
		return store.Run{}, fmt.Errorf("postgres: %s: %w", what, store.ErrNotFound)
	}
	return runs[0], nil
}

func cleaned(ids []string) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = clean(id)
	}
	return out
}

// Lookup implements [store.Store].
func (s *Store) Lookup(ctx context.Context, ids []string) ([]store.Run, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	return s.runs(ctx, "looking runs up", "SELECT "+runColumns+" FROM runs r WHERE r.id = ANY($1)", cleaned(ids))
}

// History implements [store.Store].
func (s *Store) History(ctx context.Context, ref int64) ([]store.Record, error) {
	records, err := read(ctx, s, func(ctx context.Context) ([]store.Record, error) {
		return queryRecords(ctx, s.db, "SELECT ref, seq, data FROM history WHERE ref = $1 ORDER BY seq", ref)
	})
	if err != nil {
		return nil, fmt.Errorf("postgres: reading the history of run number %d: %w", ref, err)
	}
	return records, nil
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

// Load implements [store.Store].
func (s *Store) Load(ctx context.Context, refs []int64) ([]store.Unfinished, error) {
	if len(refs) == 0 {
		return nil, nil
	}
	out, err := s.whole(ctx, "SELECT ref FROM runs WHERE ref = ANY($1)", refs)
	if err != nil {
		return nil, fmt.Errorf("postgres: loading runs: %w", err)
	}
	return out, nil
}

const (
	unfinishedQuery = `SELECT ref FROM runs
		WHERE status < 4 AND ref > $1 AND ref < $2 AND (wake IS NULL OR wake <= $3) ORDER BY ref LIMIT $4`
	dueQuery = `SELECT ref FROM runs
		WHERE ref >> 40 = $1 AND wake IS NOT NULL AND status < 4 AND wake <= $2 ORDER BY wake, ref LIMIT $3`
)

// Unfinished implements [store.Store].
func (s *Store) Unfinished(ctx context.Context, shard uint32, after int64, wakeBefore time.Time, limit int) ([]store.Unfinished, error) {
	if limit <= 0 {
		return nil, nil
	}
	out, err := s.whole(ctx, unfinishedQuery, max(after, store.RefBase(shard)), store.RefBase(shard+1), wakeBefore.UnixMilli(), limit)
	if err != nil {
		return nil, fmt.Errorf("postgres: reading unfinished runs of shard %d: %w", shard, err)
	}
	return out, nil
}

// whole returns the rows and histories of the runs whose refs a query selects,
// as of one moment, in order of ref.
func (s *Store) whole(ctx context.Context, selected string, args ...any) ([]store.Unfinished, error) {
	return read(ctx, s, func(ctx context.Context) (out []store.Unfinished, err error) {
		tx, err := s.db.BeginTxx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead})
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, tx.Rollback()) }()
		runs, err := s.queryRuns(ctx, tx, "SELECT "+runColumns+" FROM runs r JOIN ("+selected+") n ON n.ref = r.ref ORDER BY r.ref", args...)
		if err != nil {
			return nil, err
		}
		records, err := queryRecords(ctx, tx, "SELECT h.ref, h.seq, h.data FROM history h JOIN ("+selected+
			") n ON n.ref = h.ref ORDER BY h.ref, h.seq", args...)
		if err != nil {
			return nil, err
		}
		out = make([]store.Unfinished, len(runs))
		for i, r := range runs {
			n := 0
			for n < len(records) && records[n].Ref == r.Ref {
				n++
			}
			out[i] = store.Unfinished{Run: r, History: records[:n:n]}
			records = records[n:]
		}
		return out, nil
	})
}

// Due implements [store.Store].
func (s *Store) Due(ctx context.Context, shard uint32, t time.Time, limit int) ([]int64, error) {
	refs, err := read(ctx, s, func(ctx context.Context) (refs []int64, err error) {
		return refs, s.db.SelectContext(ctx, &refs, dueQuery, shard, t.UnixMilli(), max(limit, 0))
	})
	if err != nil {
		return nil, fmt.Errorf("postgres: reading due runs of shard %d: %w", shard, err)
	}
	return refs, nil
}

// Counts implements [store.Store].
func (s *Store) Counts(ctx context.Context) (store.Counts, error) {
	out, err := s.counts(ctx, "SELECT workflow, status, sum(n)::bigint AS n FROM counts GROUP BY workflow, status HAVING sum(n) > 0")
	if err != nil {
		return nil, fmt.Errorf("postgres: counting runs: %w", err)
	}
	return out, nil
}

// Unended implements [store.Store].
func (s *Store) Unended(ctx context.Context, shard uint32) (store.Counts, error) {
	out, err := s.counts(ctx, `SELECT workflow, status, count(*) AS n FROM runs WHERE ref > $1 AND ref < $2 AND status < 4
		GROUP BY workflow, status`, store.RefBase(shard), store.RefBase(shard+1))
	if err != nil {
		return nil, fmt.Errorf("postgres: counting unended runs of shard %d: %w", shard, err)
	}
	return out, nil
}

func (s *Store) counts(ctx context.Context, query string, args ...any) (store.Counts, error) {
	return read(ctx, s, func(ctx context.Context) (store.Counts, error) {
		var rows []struct {
			Workflow int32
			Status   store.Status
			N        int64
		}
		if err := s.db.SelectContext(ctx, &rows, query, args...); err != nil {
			return nil, err
		}
		out := store.Counts{}
		for _, c := range rows {
			v, err := s.names.version(ctx, c.Workflow)
			if err != nil {
				return nil, err
			}
			if out[v.name] == nil {
				out[v.name] = map[store.Status]int64{}
			}
			out[v.name][c.Status] += c.N
		}
		return out, nil
	})
}
