package spread

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ringmaster-dev/ringmaster/store"
)

// byStore sorts things by the stores of their shards.
func byStore[T any](ctx context.Context, s *Store, things []T, shard func(T) uint32) ([][]T, error) {
	at, err := s.places.at(ctx)
	if err != nil {
		return nil, err
	}
	out := make([][]T, len(s.stores))
	for _, t := range things {
		n := shard(t)
		if n >= s.shards {
			continue // there is no such shard, and nothing in it
		}
		out[at[n]] = append(out[at[n]], t)
	}
	return out, nil
}

// gather reads from every store that has something asked for, side by side, and keeps
// of what it answers that which is of shards that are there.
func gather[K, V any](ctx context.Context, s *Store, keys [][]K, read func(store.Store, []K) ([]V, error), shard func(V) uint32) ([]V, error) {
	at, err := s.places.at(ctx)
	if err != nil {
		return nil, err
	}
	var (
		mu  sync.Mutex
		out []V
	)
	err = s.each(func(i int, st store.Store) error {
		if len(keys[i]) == 0 {
			return nil
		}
		found, err := read(st, keys[i])
		mu.Lock()
		defer mu.Unlock()
		for _, v := range found {
			if at[shard(v)] == i {
				out = append(out, v)
			}
		}
		return err
	})
	return out, err
}

// idsByStore says where to look for ids.
func (s *Store) idsByStore(ctx context.Context, ids []string) ([][]string, error) {
	if s.strays.Load() {
		return slices.Repeat([][]string{ids}, len(s.stores)), nil
	}
	return byStore(ctx, s, ids, func(id string) uint32 { return store.ShardOf(id, s.shards) })
}

// Lookup implements [store.Store].
func (s *Store) Lookup(ctx context.Context, ids []string) ([]store.Run, error) {
	keys, err := s.idsByStore(ctx, ids)
	if err != nil {
		return nil, err
	}
	return gather(ctx, s, keys, func(st store.Store, ids []string) ([]store.Run, error) { return st.Lookup(ctx, ids) },
		func(r store.Run) uint32 { return r.Shard })
}

// Run implements [store.Store].
func (s *Store) Run(ctx context.Context, id string) (store.Run, error) {
	found, err := s.Lookup(ctx, []string{id})
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("spread: run %s: %w", id, store.ErrNotFound)
	}
	if err != nil {
		return store.Run{}, err
	}
	return found[0], nil
}

// Tombstones implements [store.Store].
func (s *Store) Tombstones(ctx context.Context, ids []string) ([]store.Tombstone, error) {
	keys, err := s.idsByStore(ctx, ids)
	if err != nil {
		return nil, err
	}
	return gather(ctx, s, keys, func(st store.Store, ids []string) ([]store.Tombstone, error) { return st.Tombstones(ctx, ids) },
		func(t store.Tombstone) uint32 { return t.Shard })
}

// Load implements [store.Store].
func (s *Store) Load(ctx context.Context, refs []int64) ([]store.Unfinished, error) {
	keys, err := byStore(ctx, s, refs, shardOf)
	if err != nil {
		return nil, err
	}
	out, err := gather(ctx, s, keys, func(st store.Store, refs []int64) ([]store.Unfinished, error) { return st.Load(ctx, refs) },
		func(u store.Unfinished) uint32 { return u.Run.Shard })
	slices.SortFunc(out, func(a, b store.Unfinished) int { return int(min(1, max(-1, a.Run.Ref-b.Run.Ref))) })
	return out, err
}

// shardOf is the shard of a run's number; what is negative is in none.
func shardOf(ref int64) uint32 { return uint32(ref >> 40) }

// on reads from the store of a shard.
func on[T any](ctx context.Context, s *Store, shard uint32, read func(store.Store) (T, error)) (T, error) {
	if shard >= s.shards {
		shard = 0 // nothing of it is anywhere
	}
	st, err := s.of(ctx, shard)
	if err != nil {
		var none T
		return none, err
	}
	return read(st)
}

// RunByRef implements [store.Store].
func (s *Store) RunByRef(ctx context.Context, ref int64) (store.Run, error) {
	return on(ctx, s, shardOf(ref), func(st store.Store) (store.Run, error) { return st.RunByRef(ctx, ref) })
}

// History implements [store.Store].
func (s *Store) History(ctx context.Context, ref int64) ([]store.Record, error) {
	return on(ctx, s, shardOf(ref), func(st store.Store) ([]store.Record, error) { return st.History(ctx, ref) })
}

// Unfinished implements [store.Store].
func (s *Store) Unfinished(ctx context.Context, shard uint32, after int64, wakeBefore time.Time, limit int) ([]store.Unfinished, error) {
	return on(ctx, s, shard, func(st store.Store) ([]store.Unfinished, error) {
		return st.Unfinished(ctx, shard, after, wakeBefore, limit)
	})
}

// Due implements [store.Store].
func (s *Store) Due(ctx context.Context, shard uint32, t time.Time, limit int) ([]int64, error) {
	return on(ctx, s, shard, func(st store.Store) ([]int64, error) { return st.Due(ctx, shard, t, limit) })
}

// Runs implements [store.Store].
func (s *Store) Runs(ctx context.Context, shard uint32, after int64, limit int) ([]store.Run, error) {
	return on(ctx, s, shard, func(st store.Store) ([]store.Run, error) { return st.Runs(ctx, shard, after, limit) })
}

// Ended implements [store.Store].
func (s *Store) Ended(ctx context.Context, shard uint32, before time.Time, after store.EndedPlace, limit int) ([]store.Run, error) {
	return on(ctx, s, shard, func(st store.Store) ([]store.Run, error) { return st.Ended(ctx, shard, before, after, limit) })
}

// Expired implements [store.Store].
func (s *Store) Expired(ctx context.Context, shard uint32, t time.Time, limit int) ([]string, error) {
	return on(ctx, s, shard, func(st store.Store) ([]string, error) { return st.Expired(ctx, shard, t, limit) })
}

// Locks implements [store.Store]. The mark of a move comes before all locks and is none.
func (s *Store) Locks(ctx context.Context, shard uint32, after string, limit int) ([]store.Lock, error) {
	return on(ctx, s, shard, func(st store.Store) ([]store.Lock, error) {
		return st.Locks(ctx, shard, max(after, movedMark), limit)
	})
}

// Lock implements [store.Store].
func (s *Store) Lock(ctx context.Context, shard uint32, name string) (store.Lock, error) {
	return on(ctx, s, shard, func(st store.Store) (store.Lock, error) { return st.Lock(ctx, shard, name) })
}

// Unended implements [store.Store].
func (s *Store) Unended(ctx context.Context, shard uint32) (store.Counts, error) {
	return on(ctx, s, shard, func(st store.Store) (store.Counts, error) { return st.Unended(ctx, shard) })
}

// Counts implements [store.Store].
func (s *Store) Counts(ctx context.Context) (store.Counts, error) {
	var mu sync.Mutex
	sum := store.Counts{}
	err := s.each(func(_ int, st store.Store) error {
		counts, err := st.Counts(ctx)
		mu.Lock()
		defer mu.Unlock()
		for name, byStatus := range counts {
			if sum[name] == nil {
				sum[name] = map[store.Status]int64{}
			}
			for status, n := range byStatus {
				sum[name][status] += n
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("spread: counting runs: %w", err)
	}
	return sum, nil
}

// PutWorkflow implements [store.Store]. The home comes last: what it has, all have.
func (s *Store) PutWorkflow(ctx context.Context, w store.WorkflowInfo, definition []byte) (store.WorkflowInfo, bool, error) {
	for i, st := range s.stores[1:] {
		if _, _, err := st.PutWorkflow(ctx, w, definition); err != nil {
			return store.WorkflowInfo{}, false, fmt.Errorf("spread: database %d: %w", i+2, err)
		}
	}
	return s.home.PutWorkflow(ctx, w, definition)
}

// ActivateWorkflow implements [store.Store]. Which version is active is told by the
// home alone.
func (s *Store) ActivateWorkflow(ctx context.Context, name, version string) error {
	return s.home.ActivateWorkflow(ctx, name, version)
}

// Workflow implements [store.Store].
func (s *Store) Workflow(ctx context.Context, name, version string) (store.WorkflowInfo, []byte, error) {
	return s.home.Workflow(ctx, name, version)
}

// Workflows implements [store.Store].
func (s *Store) Workflows(ctx context.Context) ([]store.WorkflowInfo, error) {
	return s.home.Workflows(ctx)
}

// SetNote implements [store.Store].
func (s *Store) SetNote(ctx context.Context, name string, value []byte) error {
	return s.home.SetNote(ctx, name, value)
}

// Note implements [store.Store].
func (s *Store) Note(ctx context.Context, name string) ([]byte, error) { return s.home.Note(ctx, name) }

// Notes implements [store.Store]. Those of the spread itself are not among them.
func (s *Store) Notes(ctx context.Context, prefix string) (map[string][]byte, error) {
	notes, err := s.home.Notes(ctx, prefix)
	for name := range notes {
		if len(name) >= len(ownNotes) && name[:len(ownNotes)] == ownNotes {
			delete(notes, name)
		}
	}
	return notes, err
}
