package storetest

import (
	"fmt"
	"slices"

	"github.com/ringmaster-dev/ringmaster/store"
)

var removalTests = []test{
	{"a removed run leaves nothing but its tombstone", func(b *rig) {
		tagged := func(r *store.Run) { r.Tags = map[string]string{"t": "1", "u": ""}; r.Parent, r.ParentStep = "p", "s" }
		gone, stays := b.ended(1, "gone", 1, 2, tagged), b.ended(1, "stays", 1, 3, tagged)
		b.append(record(gone.Ref, 2), record(gone.Ref, 5))
		tomb := buried(gone, 9)
		b.remove(gone, tomb)
		b.absent("gone")
		b.equal("history", b.history(gone.Ref), []store.Record(nil))
		_, err := b.s.RunByRef(b.ctx, gone.Ref)
		b.is(err, store.ErrNotFound)
		for _, f := range []store.Filter{{}, {Workflow: flow}, {TagName: "t"}, {IDPrefix: "g"}, {Parent: "p"}, {Key: "gone"}} {
			page, err := b.s.List(b.ctx, f)
			b.must("listing", err)
			b.equal("list", slices.DeleteFunc(page.Runs, func(r store.Run) bool { return r.ID == "stays" }), []store.Run{})
		}
		b.counts(store.Counts{flow: {store.StatusSucceeded: 1}})
		for range 2 {
			b.equal("tombstone", b.tombstones("gone"), []store.Tombstone{tomb})
			b.equal("beside it", b.get("stays"), stays)
			b.close()
			b.open()
		}
	}},
	{"T8: a removed run's id is not that of another run, as long as its tombstone is there", func(b *rig) {
		r := b.ended(1, "a", 1, 2)
		b.remove(r, buried(r, 9))
		again := b.part(1)
		again.Create = []store.Run{b.run(1, "a", 3)}
		b.refused(store.ErrDuplicate, again)
		p := b.part(2) // not its shard
		p.Forget = []string{"a", "none"}
		b.commit(p)
		b.refused(store.ErrDuplicate, again)
		p.Shard, p.Epoch = 1, b.epochs[1]
		b.commit(p)
		b.equal("tombstones", b.tombstones("a"), []store.Tombstone(nil))
		b.commit(again)
		b.get("a")
	}},
	{"S1: a run that has not ended is not removed, nor anything else of its part", func(b *rig) {
		r, ended := b.run(1, "a", 1), b.ended(1, "b", 1, 2)
		b.create(r)
		p := b.part(1)
		p.Remove = []int64{ended.Ref, r.Ref}
		p.Bury = []store.Tombstone{buried(ended, 9)}
		p.Create = []store.Run{b.run(1, "beside", 1)}
		b.refused(store.ErrUnended, p, b.part(2))
		b.absent("beside")
		b.get("a")
		b.get("b")
		b.equal("tombstones", b.tombstones("a", "b"), []store.Tombstone(nil))
		// In one commit with its end, it is.
		end, remove := b.part(1), b.part(1)
		end.Update = []store.Update{{Ref: r.Ref, Status: store.StatusSucceeded, Updated: at(5), Ended: at(5)}}
		remove.Remove = []int64{r.Ref}
		remove.Bury = []store.Tombstone{buried(r, 9)}
		b.commit(end, remove)
		b.absent("a")
		b.counts(store.Counts{flow: {store.StatusSucceeded: 1}})
	}},
	{"S13: a stale epoch removes and forgets nothing", func(b *rig) {
		r, gone := b.ended(1, "a", 1, 2), b.ended(1, "b", 1, 2)
		b.remove(gone, buried(gone, 9))
		p := b.part(1)
		p.Remove, p.Bury, p.Forget = []int64{r.Ref}, []store.Tombstone{buried(r, 9)}, []string{"b"}
		b.acquire(1)
		b.refused(store.ErrStaleEpoch, p)
		b.get("a")
		b.equal("tombstones", b.tombstones("a", "b"), []store.Tombstone{buried(gone, 9)})
	}},
	{"removing what is not there changes nothing", func(b *rig) {
		r := b.ended(1, "a", 1, 2)
		p := b.part(2)
		p.Remove = []int64{r.Ref, store.RefBase(2) + 99}
		p.Forget = []string{"none"}
		b.commit(p)
		b.get("a")
		b.remove(r, buried(r, 9))
		p.Shard, p.Epoch = 1, b.epochs[1]
		p.Remove = []int64{r.Ref}
		b.commit(p)
		gone := b.part(1)
		gone.Append = []store.Record{record(r.Ref, 9)}
		b.refused(store.ErrNotFound, gone)
		b.update(store.Update{Ref: r.Ref, Status: store.StatusSucceeded, Updated: at(5), Ended: at(5)})
		b.counts(store.Counts{})
	}},
	{"a tombstone of a workflow that is not registered is refused", func(b *rig) {
		r := b.ended(1, "a", 1, 2)
		p := b.part(1)
		p.Remove, p.Bury = []int64{r.Ref}, []store.Tombstone{buried(r, 9)}
		p.Bury[0].Version = "unheard of"
		b.refused(store.ErrNotFound, p)
		b.get("a")
	}},
	{"numbers of removed runs are not given again", func(b *rig) {
		r := b.ended(1, "a", 1, 2)
		b.remove(r, buried(r, 9))
		for range 2 {
			_, last, err := b.s.Acquire(b.ctx, 1, "owner")
			b.must("acquiring", err)
			b.equal("last number", last, r.Ref)
			b.close()
			b.open()
		}
	}},
	{"ended runs come in the order of their end, in pages", endedPages},
	{"runs of a shard come by number, in pages", func(b *rig) {
		a, c := b.run(1, "a", 5), b.run(1, "c", 1)
		b.create(a, b.run(2, "other", 1), c, b.run(0, "another", 1))
		get := func(after int64, limit int) []store.Run {
			runs, err := b.s.Runs(b.ctx, 1, after, limit)
			b.must("reading runs", err)
			return runs
		}
		b.equal("all", get(0, 10), []store.Run{a, c})
		b.equal("first", get(0, 1), []store.Run{a})
		b.equal("second", get(a.Ref, 10), []store.Run{c})
		b.equal("after the last", get(c.Ref, 10), []store.Run(nil))
		b.equal("none", get(0, 0), []store.Run(nil))
	}},
	{"tombstones expire in the order of their horizons", func(b *rig) {
		for i, until := range []int{7, 3, 0, 3} {
			t := b.tombstone(1, fmt.Sprint("t", 4-i))
			if until != 0 {
				t.Until = at(until)
			}
			b.bury(t)
		}
		other := b.tombstone(2, "other")
		other.Until = at(1)
		b.bury(other)
		for _, tt := range []struct {
			ms, limit int
			want      []string
		}{{2, 9, nil}, {3, 9, []string{"t1", "t3"}}, {7, 9, []string{"t1", "t3", "t4"}}, {7, 1, []string{"t1"}}, {7, 0, nil}} {
			ids, err := b.s.Expired(b.ctx, 1, at(tt.ms), tt.limit)
			b.must("reading expired tombstones", err)
			b.equal("expired", fmt.Sprint(ids), fmt.Sprint(tt.want))
		}
	}},
	{"tombstones of all shards come by id, in pages", func(b *rig) {
		r := b.ended(3, "b", 1, 2)
		b.remove(r, buried(r, 9))
		b.bury(b.tombstone(1, "c"), b.tombstone(2, "B"), b.tombstone(0, "é"))
		get := func(after string, limit int) (ids string) {
			tombs, err := b.s.Buried(b.ctx, after, limit)
			b.must("reading tombstones", err)
			for _, t := range tombs {
				ids += t.ID
			}
			return ids
		}
		b.equal("all", get("", 10), "Bbcé")
		b.equal("two", get("", 2), "Bb")
		b.equal("the rest", get("b", 10), "cé")
		b.equal("none", get("", 0), "")
	}},
}

// endedPages reads runs in the order of their end.
func endedPages(b *rig) {
	late, early := b.ended(1, "late", 1, 9), b.ended(1, "early", 2, 4)
	same, other := b.ended(1, "same", 3, 4), b.ended(2, "other", 1, 1)
	b.create(b.run(1, "running", 1))
	get := func(shard uint32, before int, after store.EndedPlace, limit int) []store.Run {
		runs, err := b.s.Ended(b.ctx, shard, at(before), after, limit)
		b.must("reading ended runs", err)
		return runs
	}
	none := store.EndedPlace{}
	b.equal("all", get(1, 99, none, 9), []store.Run{early, same, late})
	b.equal("another shard's", get(2, 99, none, 9), []store.Run{other})
	b.equal("before the last", get(1, 9, none, 9), []store.Run{early, same})
	b.equal("before the first", get(1, 4, none, 9), []store.Run(nil))
	b.equal("a page", get(1, 99, none, 1), []store.Run{early})
	b.equal("the next", get(1, 99, store.EndedPlace{Ended: early.Ended, Ref: early.Ref}, 1), []store.Run{same})
	b.equal("the last", get(1, 99, store.EndedPlace{Ended: same.Ended, Ref: same.Ref}, 9), []store.Run{late})
	b.equal("no more", get(1, 99, store.EndedPlace{Ended: late.Ended, Ref: late.Ref}, 9), []store.Run(nil))
	b.equal("nothing asked for", get(1, 99, none, 0), []store.Run(nil))
}

// ended commits a run that has ended.
func (b *rig) ended(shard uint32, id string, created, ended int, change ...func(*store.Run)) store.Run {
	b.Helper()
	r := b.run(shard, id, created, change...)
	b.create(r)
	r.Status, r.Updated, r.Ended = store.StatusSucceeded, at(ended), at(ended)
	b.update(store.Update{Ref: r.Ref, Status: r.Status, Updated: r.Updated, Ended: r.Ended})
	return r
}

// buried is the tombstone of a run that is removed.
func buried(r store.Run, ms int) store.Tombstone {
	return store.Tombstone{
		ID: r.ID, Shard: r.Shard, Status: store.StatusSucceeded, Buried: at(ms), Until: at(ms + 10),
		Workflow: r.Workflow, Version: r.Version, InputHash: r.InputHash, Waived: true, Created: r.Created, Ended: at(ms - 1),
	}
}

// remove commits the removal of a run.
func (b *rig) remove(r store.Run, t store.Tombstone) {
	b.Helper()
	p := b.part(r.Shard)
	p.Remove, p.Bury = []int64{r.Ref}, []store.Tombstone{t}
	b.commit(p)
}
