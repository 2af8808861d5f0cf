package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/ringmaster-dev/ringmaster/store"
)

const (
	runsQuery  = "SELECT " + runColumns + " FROM runs r WHERE r.ref > $1 AND r.ref < $2 ORDER BY r.ref LIMIT $3"
	endedQuery = "SELECT " + runColumns + ` FROM runs r
		WHERE r.ref >> 40 = $1 AND r.ended IS NOT NULL AND r.ended < $2 AND (r.ended, r.ref) > ($3, $4) ORDER BY r.ended, r.ref LIMIT $5`
	expiredQuery = `SELECT id FROM tombstones
		WHERE shard = $1 AND until IS NOT NULL AND until <= $2 ORDER BY until, id LIMIT $3`
	buriedQuery = "SELECT " + tombstoneColumns + " FROM tombstones WHERE id > $1 ORDER BY id LIMIT $2"
)

// Runs implements [store.Store].
func (s *Store) Runs(ctx context.Context, shard uint32, after int64, limit int) ([]store.Run, error) {
	return s.runs(ctx, fmt.Sprintf("reading runs of shard %d", shard), runsQuery,
		max(after, store.RefBase(shard)), store.RefBase(shard+1), max(limit, 0))
}

// Ended implements [store.Store].
func (s *Store) Ended(ctx context.Context, shard uint32, before time.Time, after store.EndedPlace, limit int) ([]store.Run, error) {
	place := int64(never)
	if !after.Ended.IsZero() {
		place = after.Ended.UnixMilli()
	}
	return s.runs(ctx, fmt.Sprintf("reading ended runs of shard %d", shard), endedQuery,
		shard, ceilMilli(before, 0), place, after.Ref, max(limit, 0))
}

// Expired implements [store.Store].
func (s *Store) Expired(ctx context.Context, shard uint32, t time.Time, limit int) ([]string, error) {
	ids, err := read(ctx, s, func(ctx context.Context) (ids []string, err error) {
		return ids, s.db.SelectContext(ctx, &ids, expiredQuery, shard, t.UnixMilli(), max(limit, 0))
	})
	if err != nil {
		return nil, fmt.Errorf("postgres: reading expired tombstones of shard %d: %w", shard, err)
	}
	return ids, nil
}

const tombstoneColumns = "id, shard, status, buried, until, workflow, uuid_send(input_hash), waived, created, ended"

// Tombstones implements [store.Store].
func (s *Store) Tombstones(ctx context.Context, ids []string) ([]store.Tombstone, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	return s.tombstones(ctx, "SELECT "+tombstoneColumns+" FROM tombstones WHERE id = ANY($1)", cleaned(ids))
}

// Buried implements [store.Store].
func (s *Store) Buried(ctx context.Context, after string, limit int) ([]store.Tombstone, error) {
	return s.tombstones(ctx, buriedQuery, clean(after), max(limit, 0))
}

func (s *Store) tombstones(ctx context.Context, query string, args ...any) ([]store.Tombstone, error) {
	out, err := read(ctx, s, func(ctx context.Context) ([]store.Tombstone, error) { return s.queryTombstones(ctx, query, args...) })
	if err != nil {
		return nil, fmt.Errorf("postgres: reading tombstones: %w", err)
	}
	return out, nil
}

func (s *Store) queryTombstones(ctx context.Context, query string, args ...any) ([]store.Tombstone, error) {
	rows, err := s.db.QueryxContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var (
		out     []store.Tombstone
		numbers []sql.NullInt32
	)
	for rows.Next() {
		var (
			t                     store.Tombstone
			buried                int64
			until, created, ended sql.NullInt64
			workflow              sql.NullInt32
			hash                  sql.RawBytes
		)
		if err := rows.Scan(&t.ID, &t.Shard, &t.Status, &buried, &until, &workflow, &hash, &t.Waived, &created, &ended); err != nil {
			return nil, err
		}
		t.Buried, t.Until, t.Created, t.Ended = fromMilli(buried), orZero(until), orZero(created), orZero(ended)
		copy(t.InputHash[:], hash)
		out, numbers = append(out, t), append(numbers, workflow)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for i, n := range numbers {
		if !n.Valid {
			continue
		}
		v, err := s.names.version(ctx, n.Int32)
		if err != nil {
			return nil, err
		}
		out[i].Workflow, out[i].Version = v.name, v.version
	}
	return out, nil
}
