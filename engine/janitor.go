package engine

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ringmaster-dev/ringmaster/store"
)

// DefaultRetainIDs is how long the ids of removed runs stay known.
const DefaultRetainIDs = 30 * 24 * time.Hour

const (
	// removeBatch is the most runs, or tombstones, that are removed in one go.
	removeBatch = 100
	// janitorShare divides time: after a batch the janitor rests that many times
	// as long as the batch took, from its first read until it was durable. Under
	// load, when commits take longer, it rests longer. When it has fallen behind
	// it rests as long as it works.
	janitorShare = 4
	// janitorPeriod is the longest time between two looks for what is to go.
	janitorPeriod = time.Minute
)

// removal asks a shard to remove what the janitor found, once it is durable that
// the runs have ended.
type removal struct {
	runs []store.Run
	ids  []string // of tombstones
}

// remove has the part at hand remove what the janitor found.
func (s *shard) remove(m *message) {
	now := s.eng.clock.now()
	for i := range m.remove.runs {
		row := &m.remove.runs[i]
		if r := s.runs.byRef[row.Ref]; r != nil {
			s.runs.remove(r) // a late result had it read
		}
		s.part.Remove = append(s.part.Remove, row.Ref)
		s.part.Bury = append(s.part.Bury, store.Tombstone{
			ID: row.ID, Shard: s.id, Status: row.Status, Buried: now, Until: s.eng.knownUntil(now), Workflow: row.Workflow,
			Version: row.Version, InputHash: row.InputHash, Waived: row.Waived, Created: row.Created, Ended: row.Ended,
		})
	}
	s.part.Forget = append(s.part.Forget, m.remove.ids...)
	reply := m.reply
	s.reply(func(lost error) { reply(store.Run{}, lost) })
}

// knownUntil is how long the id of a run that is buried now stays known; zero is
// for ever.
func (e *Engine) knownUntil(now time.Time) time.Time {
	if e.cfg.RetainIDs < 0 {
		return time.Time{}
	}
	return now.Add(e.cfg.RetainIDs)
}

// janitor removes ended runs and tombstones that are old, of the shards that are
// owned here. It belongs to one goroutine, which is not a shard's, so that its
// reads hold nobody up; a shard only adds what is to go to its next part.
type janitor struct {
	eng    *Engine
	sweeps map[*shard]*sweep
}

// sweep is how far the janitor has come with a shard.
type sweep struct {
	after   store.EndedPlace // runs up to here have been looked at
	next    time.Duration    // when to look again, by the engine's clock
	oldest  time.Time        // end of the run that ended first; zero: none has
	pending chan error       // an answer is outstanding
}

// janitorLoop runs until ctx ends.
func (e *Engine) janitorLoop(ctx context.Context) {
	j := &janitor{eng: e, sweeps: map[*shard]*sweep{}}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		began := e.clock.since()
		more, err := j.round(ctx)
		took := e.clock.since() - began
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			e.log.Error("removing old runs failed", "again_in", j.period(), "error", err)
			timer.Reset(j.period())
		case more:
			rest := janitorShare * took
			if j.behind() {
				rest = took
			}
			timer.Reset(max(rest, time.Millisecond))
		default:
			timer.Reset(j.period())
		}
	}
}

// period is how often the janitor looks for what is to go.
func (j *janitor) period() time.Duration {
	p := janitorPeriod
	if r := j.eng.cfg.Retain; r > 0 {
		p = min(p, r/4)
	}
	return max(p, 10*time.Millisecond)
}

// behind tells whether runs are there that should have gone a while ago.
func (j *janitor) behind() bool {
	oldest, retain := j.eng.oldestEnded.Load(), j.eng.cfg.Retain
	return retain > 0 && oldest != 0 && j.eng.clock.now().Sub(time.UnixMilli(oldest)) > retain+max(retain/4, janitorPeriod)
}

// round removes one batch of one shard. It tells whether there is more to do
// now.
func (j *janitor) round(ctx context.Context) (more bool, err error) {
	owned := slices.Collect(j.eng.shards.all())
	for s := range j.sweeps {
		if !slices.Contains(owned, s) {
			delete(j.sweeps, s)
		}
	}
	now := j.eng.clock.since()
	var turn *shard // whose it is: the one that has waited longest
	for _, s := range owned {
		if j.sweeps[s] == nil {
			j.sweeps[s] = &sweep{}
		}
		if j.sweeps[s].next <= now && (turn == nil || j.sweeps[s].next < j.sweeps[turn].next) {
			turn = s
		}
	}
	if turn != nil {
		err = j.sweep(ctx, turn, j.sweeps[turn])
	}
	j.tellOldest()
	return err == nil && turn != nil, err
}

// sweep removes a batch of a shard.
func (j *janitor) sweep(ctx context.Context, s *shard, w *sweep) error {
	now := j.eng.clock.since()
	w.next = now + j.period()
	if w.pending != nil {
		select {
		case <-w.pending: //nolint:errcheck // too late to be counted
			w.pending = nil
		default:
			return nil // the shard is behind, or has gone
		}
	}
	r, full, err := j.find(ctx, s, w)
	if err != nil {
		return err
	}
	if full {
		w.next = now + 1 // after those of the other shards that are due
	}
	if len(r.runs)+len(r.ids) == 0 {
		return nil
	}
	if err := j.archive(ctx, r.runs); err != nil {
		return err
	}
	w.pending = make(chan error, 1)
	pending := w.pending
	if !s.inbox.put(message{remove: r, reply: func(_ store.Run, err error) { pending <- err }}) {
		return nil // it has gone
	}
	select {
	case err := <-pending:
		w.pending = nil
		if err == nil {
			j.eng.metrics.removed.Add(float64(len(r.runs)))
			j.eng.metrics.forgotten.Add(float64(len(r.ids)))
		}
	case <-time.After(10 * time.Second):
		w.next = j.eng.clock.since() + j.period()
	case <-ctx.Done():
	}
	return nil
}

// find reads what is to go of a shard. It tells whether there may be more.
func (j *janitor) find(ctx context.Context, s *shard, w *sweep) (r *removal, full bool, err error) {
	st, now := j.eng.cfg.Store, j.eng.clock.now()
	r = &removal{}
	if r.ids, err = st.Expired(ctx, s.id, now, removeBatch); err != nil {
		return nil, false, err
	}
	full = len(r.ids) == removeBatch
	if w.after.Ended.IsZero() {
		first, err := st.Ended(ctx, s.id, now.Add(time.Hour), w.after, 1)
		if err != nil {
			return nil, false, err
		}
		w.oldest = time.Time{}
		if len(first) > 0 {
			w.oldest = first[0].Ended
		}
	}
	before := now.Add(-j.eng.cfg.Retain)
	if j.eng.cfg.Retain <= 0 || w.oldest.IsZero() || !w.oldest.Before(before) {
		return r, full, nil
	}
	rows, err := st.Ended(ctx, s.id, before, w.after, removeBatch)
	if err != nil {
		return nil, false, err
	}
	if len(rows) < removeBatch {
		w.after = store.EndedPlace{} // and from the beginning next time
	} else {
		last := rows[len(rows)-1]
		w.after, full = store.EndedPlace{Ended: last.Ended, Ref: last.Ref}, true
	}
	r.runs, err = j.free(ctx, rows, before)
	return r, full, err
}

// free leaves out the children whose parents are there and have not ended
// before that time: a child that is gone would be started again.
func (j *janitor) free(ctx context.Context, rows []store.Run, before time.Time) ([]store.Run, error) {
	var parents []string
	for i := range rows {
		if rows[i].Parent != "" {
			parents = append(parents, rows[i].Parent)
		}
	}
	if len(parents) == 0 {
		return rows, nil
	}
	found, err := j.eng.cfg.Store.Lookup(ctx, parents)
	if err != nil {
		return nil, err
	}
	keep := map[string]bool{}
	for i := range found {
		keep[found[i].ID] = !found[i].Status.Final() || !found[i].Ended.Before(before)
	}
	return slices.DeleteFunc(rows, func(r store.Run) bool { return keep[r.Parent] }), nil
}

// archive hands the runs over to whoever keeps them.
func (j *janitor) archive(ctx context.Context, rows []store.Run) error {
	if j.eng.cfg.Archive == nil || len(rows) == 0 {
		return nil
	}
	refs := make([]int64, len(rows))
	for i := range rows {
		refs[i] = rows[i].Ref
	}
	whole, err := j.eng.cfg.Store.Load(ctx, refs)
	if err != nil {
		return err
	}
	if len(whole) != len(rows) {
		return errors.New("runs that are to be archived are not there")
	}
	return j.eng.cfg.Archive(ctx, whole)
}

// tellOldest sets what the metric of the oldest ended run shows.
func (j *janitor) tellOldest() {
	oldest := int64(0)
	for _, w := range j.sweeps {
		if !w.oldest.IsZero() && (oldest == 0 || w.oldest.UnixMilli() < oldest) {
			oldest = w.oldest.UnixMilli()
		}
	}
	j.eng.oldestEnded.Store(oldest)
}
