package archive

import (
	"bytes"
	"context"
	"io"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/ringmaster-dev/ringmaster/store"
)

// Remove removes from a store the runs that a file has, if they have ended and
// are there as the file has them; each leaves a tombstone that is kept until a
// time, or for ever if that is zero. A child whose parent has not ended stays.
// own is as in ImportConfig. It returns how many were removed.
func Remove(ctx context.Context, s store.Store, in io.Reader, until time.Time, own func(context.Context, uint32) error) (int, error) {
	rm := &remover{ctx: ctx, store: s, until: until, take: &importer{
		ImportConfig: ImportConfig{Store: s, Own: own}, owner: "export-" + uuid.NewString()[:8], shards: map[uint32]*place{},
	}}
	err := Each(ctx, in, 0, func(l *Line, _ int) error {
		if l.Run == nil {
			return nil
		}
		rm.runs = append(rm.runs, l.Run)
		for _, rec := range l.Run.History {
			rm.bytes += len(rec.Data)
		}
		if len(rm.runs) < batchRuns && rm.bytes < batchBytes {
			return nil
		}
		return rm.flush()
	})
	if err == nil {
		err = rm.flush()
	}
	return rm.removed, err
}

type remover struct {
	ctx     context.Context
	store   store.Store
	until   time.Time
	take    *importer
	runs    []*Run
	bytes   int
	removed int
}

// flush removes the runs that have gathered.
func (rm *remover) flush() error {
	if len(rm.runs) == 0 {
		return nil
	}
	kept := map[string]*Run{}
	ids := make([]string, len(rm.runs))
	for i, r := range rm.runs {
		ids[i], kept[r.ID] = r.ID, r
	}
	rm.runs, rm.bytes = rm.runs[:0], 0
	rows, err := rm.store.Lookup(rm.ctx, ids)
	if err != nil {
		return err
	}
	var parents []string
	for i := range rows {
		if rows[i].Parent != "" {
			parents = append(parents, rows[i].Parent)
		}
	}
	alive := map[string]bool{}
	if len(parents) > 0 {
		found, err := rm.store.Lookup(rm.ctx, parents)
		if err != nil {
			return err
		}
		for i := range found {
			alive[found[i].ID] = !found[i].Status.Final()
		}
	}
	parts, n := map[uint32]*store.Part{}, 0
	for i := range rows {
		same, err := rm.same(&rows[i], kept[rows[i].ID])
		if err != nil {
			return err
		}
		if !same || alive[rows[i].Parent] {
			continue
		}
		if err := rm.add(parts, &rows[i]); err != nil {
			return err
		}
		n++
	}
	if err := commit(rm.store, parts); err != nil {
		return err
	}
	rm.removed += n
	return nil
}

// same tells whether a run has ended and is what the file has.
func (rm *remover) same(row *store.Run, kept *Run) (bool, error) {
	want, err := kept.row()
	if err != nil || !row.Status.Final() || want.Status != row.Status || want.InputHash != row.InputHash {
		return false, err
	}
	history, err := rm.store.History(rm.ctx, row.Ref)
	return err == nil && slices.EqualFunc(history, kept.History, func(a store.Record, b Record) bool {
		return a.Seq == b.Seq && bytes.Equal(a.Data, b.Data)
	}), err
}

func (rm *remover) add(parts map[uint32]*store.Part, row *store.Run) error {
	at, err := rm.take.own(rm.ctx, row.Shard)
	if err != nil {
		return err
	}
	if parts[row.Shard] == nil {
		parts[row.Shard] = &store.Part{Shard: row.Shard, Epoch: at.epoch}
	}
	p := parts[row.Shard]
	p.Remove = append(p.Remove, row.Ref)
	p.Bury = append(p.Bury, store.Tombstone{
		ID: row.ID, Shard: row.Shard, Status: row.Status, Buried: time.Now().UTC().Truncate(time.Millisecond), Until: rm.until,
		Workflow: row.Workflow, Version: row.Version, InputHash: row.InputHash, Waived: row.Waived, Created: row.Created, Ended: row.Ended,
	})
	return nil
}
