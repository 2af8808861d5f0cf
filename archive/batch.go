package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ringmaster-dev/ringmaster/engine/lockqueue"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/store"
)

// pending is a run of the batch.
type pending struct {
	line    int
	row     store.Run
	history []store.Record
	locks   []machine.LockView // that it holds
	bytes   int
}

// fold checks that a run's row is what its history says.
func (im *importer) fold(ctx context.Context, r *Run) (pending, error) {
	row, err := r.row()
	if err != nil {
		return pending{}, prefixed("run", err)
	}
	wf, err := im.version(ctx, r.Workflow, r.Version)
	if err != nil {
		return pending{}, prefixed("run", err)
	}
	p := pending{row: row, history: make([]store.Record, len(r.History))}
	s := machine.NewState(wf)
	for i, rec := range r.History {
		events, err := machine.DecodeEvents(rec.Data)
		if err != nil {
			return p, fmt.Errorf("run.history: record %d: %w", rec.Seq, err)
		}
		if len(events) == 0 || events[0].Seq != rec.Seq {
			return p, fmt.Errorf("run.history: record %d does not begin with that event", rec.Seq)
		}
		if i == 0 && events[0].RunID != r.ID {
			return p, fmt.Errorf("run.history: is that of run %q", events[0].RunID)
		}
		for _, e := range events {
			if err := s.Apply(e); err != nil {
				return p, fmt.Errorf("run.history: record %d: %w", rec.Seq, err)
			}
		}
		p.history[i] = store.Record{Seq: rec.Seq, Data: rec.Data}
		p.bytes += len(rec.Data)
	}
	switch {
	case s.Status().String() != r.Status:
		return p, fmt.Errorf("run.status: is %s, and the history says %s", r.Status, s.Status())
	case s.Waived() != r.Waived:
		return p, fmt.Errorf("run.waived: is %t, and the history says %t", r.Waived, s.Waived())
	case s.RoutingKey() != r.Key:
		return p, fmt.Errorf("run.key: is %q, and the history says %q", r.Key, s.RoutingKey())
	case s.Parent().RunID != r.Parent:
		return p, fmt.Errorf("run.parent: is %q, and the history says %q", r.Parent, s.Parent().RunID)
	}
	if !row.Status.Final() {
		for _, l := range s.Locks() {
			if l.Token != 0 {
				p.locks = append(p.locks, l)
			}
		}
	}
	return p, nil
}

// flush writes the batch.
func (im *importer) flush(ctx context.Context) error {
	ids := slices.Collect(maps.Keys(im.ids))
	if len(ids) == 0 {
		return nil
	}
	runs, err := im.Store.Lookup(ctx, ids)
	if err != nil {
		return err
	}
	tombs, err := im.Store.Tombstones(ctx, ids)
	if err != nil {
		return err
	}
	b := &batch{importer: im, ctx: ctx, runs: map[string]*store.Run{}, tombs: map[string]*store.Tombstone{},
		parts: map[uint32]*store.Part{}, forget: map[uint32]*store.Part{}, queues: map[string]*lockqueue.Queue{}}
	for i := range runs {
		b.runs[runs[i].ID] = &runs[i]
	}
	for i := range tombs {
		b.tombs[tombs[i].ID] = &tombs[i]
	}
	for i := range im.runs {
		if err := b.run(&im.runs[i]); err != nil {
			return err
		}
	}
	for i := range im.tombs {
		if err := b.tombstone(&im.tombs[i]); err != nil {
			return err
		}
	}
	if err := b.commit(); err != nil {
		return err
	}
	im.runs, im.tombs, im.bytes = im.runs[:0], im.tombs[:0], 0
	clear(im.ids)
	if im.Progress != nil {
		im.Progress(im.report)
	}
	return nil
}

// batch is what is written in one transaction, and before it the removal of
// tombstones of runs that come back.
type batch struct {
	*importer
	ctx    context.Context
	runs   map[string]*store.Run // that are there
	tombs  map[string]*store.Tombstone
	forget map[uint32]*store.Part
	parts  map[uint32]*store.Part
	queues map[string]*lockqueue.Queue // of locks that runs of the batch hold
}

// part returns the part of a shard.
func (b *batch) part(of map[uint32]*store.Part, shard uint32) (*store.Part, *place, error) {
	at, err := b.own(b.ctx, shard)
	if err != nil {
		return nil, nil, fmt.Errorf("shard %d: %w", shard, err)
	}
	if of[shard] == nil {
		of[shard] = &store.Part{Shard: shard, Epoch: at.epoch}
	}
	return of[shard], at, nil
}

// run adds a run, unless it or something else is there.
func (b *batch) run(p *pending) error {
	id := p.row.ID
	if there := b.runs[id]; there != nil {
		return b.compare(p, there)
	}
	shard := store.ShardOf(id, b.Store.Shards())
	tomb := b.tombs[id]
	if tomb != nil && (tomb.Workflow != p.row.Workflow || tomb.InputHash != p.row.InputHash || tomb.Status != p.row.Status) {
		b.conflict(p.line, id, "another run with this id was removed, or was presumed aborted")
		return nil
	}
	part, at, err := b.part(b.parts, shard)
	if err != nil {
		return err
	}
	p.row.Shard, p.row.Ref = shard, at.last+1
	if why, err := b.hold(p); why != "" || err != nil {
		if why != "" {
			b.conflict(p.line, id, why)
		}
		return err
	}
	if tomb != nil {
		before, _, err := b.part(b.forget, shard)
		if err != nil {
			return err
		}
		before.Forget = append(before.Forget, id)
		b.report.Restored++
	}
	at.last++
	part.Create = append(part.Create, p.row)
	for _, rec := range p.history {
		rec.Ref = p.row.Ref
		part.Append = append(part.Append, rec)
	}
	b.report.Runs++
	if !p.row.Status.Final() {
		b.report.Unended++
	}
	return nil
}

// compare tells whether a run that is there is the same.
func (b *batch) compare(p *pending, there *store.Run) error {
	history, err := b.Store.History(b.ctx, there.Ref)
	if err != nil {
		return err
	}
	same := slices.EqualFunc(history, p.history, func(x, y store.Record) bool { return x.Seq == y.Seq && bytes.Equal(x.Data, y.Data) })
	switch {
	case same && there.InputHash == p.row.InputHash && there.Status == p.row.Status && there.Version == p.row.Version:
		b.report.Left++
	case there.InputHash == p.row.InputHash && there.Workflow == p.row.Workflow:
		b.conflict(p.line, p.row.ID, "the run is there, and has come to another point")
	default:
		b.conflict(p.line, p.row.ID, "another run with this id is there")
	}
	return nil
}

// hold puts a run into the queues of the locks that it holds, or says why not.
func (b *batch) hold(p *pending) (why string, err error) {
	now := time.Now().UnixMilli()
	type held struct {
		queue *lockqueue.Queue
		name  string
	}
	var got []held
	for _, l := range p.locks {
		q, err := b.queue(l.Name)
		if err != nil {
			return "", err
		}
		free := len(q.Holders()) == 0 || l.Shared && q.Holders()[0].Shared && q.Holders()[0].Token == l.Token
		if !free || len(q.Waiters()) > 0 {
			for _, h := range got {
				h.queue.Release(p.row.Ref, now, func() uint64 { return 0 })
			}
			return fmt.Sprintf("it holds lock %q, which is held by run %q here", l.Name, q.Holders()[0].RunID), nil
		}
		q.Ask(lockqueue.Entry{Ref: p.row.Ref, RunID: p.row.ID, Shared: l.Shared, Asked: now}, 1, func() uint64 { return l.Token })
		got = append(got, held{q, l.Name})
	}
	return "", nil
}

// queue returns the queue of a lock.
func (b *batch) queue(name string) (*lockqueue.Queue, error) {
	if q := b.queues[name]; q != nil {
		return q, nil
	}
	q := &lockqueue.Queue{}
	shard := store.ShardOf(name, b.Store.Shards())
	if _, err := b.own(b.ctx, shard); err != nil {
		return nil, fmt.Errorf("shard %d: %w", shard, err)
	}
	row, err := b.Store.Lock(b.ctx, shard, name)
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return nil, err
	default:
		if q, err = lockqueue.Decode(row.Data); err != nil {
			return nil, fmt.Errorf("lock %q: %w", name, err)
		}
	}
	b.queues[name] = q
	return q, nil
}

// tombstone adds a tombstone, unless the run is there.
func (b *batch) tombstone(p *pendingTombstone) error {
	t := p.row
	if there := b.runs[t.ID]; there != nil {
		if t.Workflow == there.Workflow && t.InputHash == there.InputHash && t.Status == there.Status {
			b.report.Left++
		} else {
			b.conflict(p.line, t.ID, "another run with this id is there")
		}
		return nil
	}
	if there := b.tombs[t.ID]; there != nil {
		if t.Workflow == there.Workflow && t.InputHash == there.InputHash && t.Status == there.Status {
			b.report.Left++
		} else {
			b.conflict(p.line, t.ID, "another tombstone of this id is there")
		}
		return nil
	}
	t.Shard = store.ShardOf(t.ID, b.Store.Shards())
	part, _, err := b.part(b.parts, t.Shard)
	if err != nil {
		return err
	}
	part.Bury = append(part.Bury, t)
	b.report.Tombstones++
	return nil
}

// commit writes the parts.
func (b *batch) commit() error {
	for name, q := range b.queues {
		if q.Empty() {
			continue
		}
		part, _, err := b.part(b.parts, store.ShardOf(name, b.Store.Shards()))
		if err != nil {
			return err
		}
		part.Locks = append(part.Locks, store.Lock{Name: name, Data: q.Append(nil)})
	}
	for _, of := range []map[uint32]*store.Part{b.forget, b.parts} {
		if err := commit(b.Store, of); err != nil {
			return err
		}
	}
	return nil
}

// commit writes parts all of which must be written.
func commit(s store.Store, of map[uint32]*store.Part) error {
	var parts []store.Part
	for _, shard := range slices.Sorted(maps.Keys(of)) {
		if of[shard].Rows() > 0 {
			parts = append(parts, *of[shard])
		}
	}
	if len(parts) == 0 {
		return nil
	}
	errs, err := s.Commit(parts)
	if err != nil {
		return err
	}
	for i, err := range errs {
		if errors.Is(err, store.ErrStaleEpoch) {
			return fmt.Errorf("shard %d: an orchestrator has taken it: stop it first: %w", parts[i].Shard, err)
		}
		if err != nil {
			return fmt.Errorf("shard %d: %w", parts[i].Shard, err)
		}
	}
	return nil
}
