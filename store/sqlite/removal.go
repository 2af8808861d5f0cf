package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/ringmaster-dev/ringmaster/store"
)

// removes tells whether a part removes or buries anything.
func removes(p *store.Part) bool { return len(p.Remove)+len(p.Bury)+len(p.Forget) > 0 }

// unremovable tells whether a part removes a run that has not ended, or has a
// tombstone of a workflow version that there is not.
func (w *writer) unremovable(p *store.Part) (refused, err error) {
	for i := range p.Bury {
		b := &p.Bury[i]
		if _, ok := w.names.number(b.Workflow, b.Version); !ok && b.Workflow != "" {
			return fmt.Errorf("workflow %s version %s of tombstone %s: %w", b.Workflow, b.Version, b.ID, store.ErrNotFound), nil
		}
	}
	for _, ref := range p.Remove {
		var row [5]driver.Value
		found, err := w.toRemove(p, ref, row[:])
		if err != nil {
			return nil, err
		}
		if found && !store.Status(row[2].(int64)).Final() {
			return fmt.Errorf("removing run number %d: %w", ref, store.ErrUnended), nil
		}
	}
	return nil, nil
}

// toRemove reads what has to be known of a run in order to remove it: run,
// workflow, status, created and tags.
func (w *writer) toRemove(p *store.Part, ref int64, row []driver.Value) (bool, error) {
	if ref>>40 != int64(p.Shard) {
		return false, nil
	}
	w.args = w.args[:0]
	w.args.add(ref)
	found, err := w.removal.row(w.args, row)
	if err != nil {
		return false, fmt.Errorf("reading a run to be removed: %w", err)
	}
	return found, nil
}

// taken tells whether an id is that of a tombstone, or of a run that the part
// does not remove.
func (w *writer) taken(p *store.Part, id string) (bool, error) {
	have, err := w.exists(w.hasTombstone, id)
	if have || err != nil {
		return have, err
	}
	w.args = w.args[:0]
	w.args.add(id)
	var ref [1]driver.Value
	found, err := w.refOf.row(w.args, ref[:])
	if err != nil || !found {
		return false, err
	}
	n := ref[0].(int64)
	return n>>40 != int64(p.Shard) || !slices.Contains(p.Remove, n), nil
}

// tombstone inserts a tombstone.
func (w *writer) tombstone(b *store.Tombstone) error {
	var workflow, hash driver.Value
	if b.Workflow != "" {
		n, _ := w.names.number(b.Workflow, b.Version)
		workflow, hash = n, b.InputHash[:]
	}
	w.args = w.args[:0]
	w.args.add(b.ID, int64(b.Shard), int64(b.Status), b.Buried.UnixMilli(), moment(b.Until), workflow, hash, b.Waived,
		moment(b.Created), moment(b.Ended))
	if err := w.bury.exec(w.args); err != nil {
		return err
	}
	w.buried.Store(true)
	return nil
}

// remove removes a part's runs and tombstones.
func (w *writer) remove(p *store.Part) error {
	last := int64(0)
	for _, ref := range p.Remove {
		removed, err := w.removeRun(p, ref)
		if err != nil {
			return fmt.Errorf("removing a run: %w", err)
		}
		if removed {
			last = max(last, ref)
		}
	}
	if last != 0 {
		w.args = w.args[:0]
		w.args.add(int64(p.Shard), last)
		if err := w.removed.exec(w.args); err != nil {
			return fmt.Errorf("remembering the number of a removed run: %w", err)
		}
	}
	for _, id := range p.Forget {
		w.args = w.args[:0]
		w.args.add(id, int64(p.Shard))
		if err := w.forget.exec(w.args); err != nil {
			return fmt.Errorf("removing a tombstone: %w", err)
		}
	}
	return nil
}

func (w *writer) removeRun(p *store.Part, ref int64) (bool, error) {
	var row [5]driver.Value
	found, err := w.toRemove(p, ref, row[:])
	if err != nil || !found {
		return false, err
	}
	run, workflow, status, created := row[0].(int64), row[1].(int64), row[2].(int64), row[3].(int64)
	var tags map[string]string
	if text, ok := row[4].(string); ok {
		if err := json.Unmarshal([]byte(text), &tags); err != nil {
			return false, fmt.Errorf("its tags: %w", err)
		}
	}
	for name, value := range tags {
		w.args = w.args[:0]
		w.args.add(name, value, created, ref)
		if err := w.dropTag.exec(w.args); err != nil {
			return false, err
		}
	}
	for _, drop := range []*stmt{w.dropHistory, w.dropRun} {
		w.args = w.args[:0]
		w.args.add(run)
		if err := drop.exec(w.args); err != nil {
			return false, err
		}
	}
	w.deltas[countKey{workflow, status}]--
	w.ended = append(w.ended, ref)
	return true, nil
}

const (
	// The words of the conditions are those of the indexes: see unfinishedQuery.
	endedQuery = `SELECT run, ref, ended FROM runs INDEXED BY runs_ended
		WHERE ended IS NOT NULL AND ended < ? AND (ended, ref) > (?, ?) AND ref > ? AND ref < ? ORDER BY ended, ref LIMIT ?`
	expiredQuery = `SELECT id FROM tombstones INDEXED BY tombstones_until
		WHERE shard = ? AND until IS NOT NULL AND until <= ? ORDER BY until, id LIMIT ?`
	runsQuery = "SELECT ref, run FROM runs INDEXED BY runs_ref WHERE ref > ? AND ref < ? ORDER BY ref LIMIT ?"
)

// Runs implements [store.Store].
func (s *Store) Runs(ctx context.Context, shard uint32, after int64, limit int) ([]store.Run, error) {
	defer s.reading()()
	out, err := s.queryRuns(ctx, s.read, "SELECT "+runColumns+" FROM ("+runsQuery+") n CROSS JOIN runs r ON r.run = n.run ORDER BY n.ref",
		max(after, store.RefBase(shard)), store.RefBase(shard+1), max(limit, 0))
	if err != nil {
		return nil, fmt.Errorf("sqlite: reading runs of shard %d: %w", shard, err)
	}
	return out, nil
}

// Ended implements [store.Store].
func (s *Store) Ended(ctx context.Context, shard uint32, before time.Time, after store.EndedPlace, limit int) ([]store.Run, error) {
	defer s.reading()()
	place := int64(-1 << 62)
	if !after.Ended.IsZero() {
		place = after.Ended.UnixMilli()
	}
	out, err := s.queryRuns(ctx, s.read, "SELECT "+runColumns+" FROM ("+endedQuery+") n CROSS JOIN runs r ON r.run = n.run ORDER BY n.ended, n.ref",
		ceilMilli(before, 0), place, after.Ref, store.RefBase(shard), store.RefBase(shard+1), max(limit, 0))
	if err != nil {
		return nil, fmt.Errorf("sqlite: reading ended runs of shard %d: %w", shard, err)
	}
	return out, nil
}

// Expired implements [store.Store].
func (s *Store) Expired(ctx context.Context, shard uint32, t time.Time, limit int) ([]string, error) {
	defer s.reading()()
	var ids []string
	if err := s.read.SelectContext(ctx, &ids, expiredQuery, shard, t.UnixMilli(), max(limit, 0)); err != nil {
		return nil, fmt.Errorf("sqlite: reading expired tombstones of shard %d: %w", shard, err)
	}
	return ids, nil
}

const tombstoneColumns = "id, shard, status, buried, until, workflow, input_hash, waived, created, ended"

// Tombstones implements [store.Store].
func (s *Store) Tombstones(ctx context.Context, ids []string) ([]store.Tombstone, error) {
	if !s.w.buried.Load() {
		return nil, nil
	}
	defer s.reading()()
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	var out []store.Tombstone
	for chunk := range slices.Chunk(ids, lookupChunk) {
		args := make([]any, len(chunk))
		for i, id := range chunk {
			args[i] = id
		}
		found, err := s.queryTombstones(ctx, "SELECT "+tombstoneColumns+" FROM tombstones WHERE id IN ("+placeholders(len(chunk))+")", args...)
		if err != nil {
			return nil, fmt.Errorf("sqlite: looking tombstones up: %w", err)
		}
		out = append(out, found...)
	}
	return out, nil
}

// Buried implements [store.Store].
func (s *Store) Buried(ctx context.Context, after string, limit int) ([]store.Tombstone, error) {
	defer s.reading()()
	out, err := s.queryTombstones(ctx, "SELECT "+tombstoneColumns+" FROM tombstones WHERE id > ? ORDER BY id LIMIT ?", after, max(limit, 0))
	if err != nil {
		return nil, fmt.Errorf("sqlite: reading tombstones: %w", err)
	}
	return out, nil
}

func (s *Store) queryTombstones(ctx context.Context, query string, args ...any) ([]store.Tombstone, error) {
	rows, err := s.read.QueryxContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []store.Tombstone
	for rows.Next() {
		var (
			t                               store.Tombstone
			buried                          int64
			until, created, ended, workflow sql.NullInt64
			hash                            sql.RawBytes
		)
		if err := rows.Scan(&t.ID, &t.Shard, &t.Status, &buried, &until, &workflow, &hash, &t.Waived, &created, &ended); err != nil {
			return nil, err
		}
		t.Buried, t.Until, t.Created, t.Ended = fromMilli(buried), orZero(until), orZero(created), orZero(ended)
		if workflow.Valid {
			v := s.names.version(workflow.Int64)
			t.Workflow, t.Version = v.name, v.version
			copy(t.InputHash[:], hash)
		}
		out = append(out, t)
	}
	return out, rows.Err()
}

// orZero is the time of a column that may be NULL.
func orZero(ms sql.NullInt64) time.Time {
	if !ms.Valid {
		return time.Time{}
	}
	return fromMilli(ms.Int64)
}
