package storetest

import (
	"cmp"
	"slices"

	"github.com/ringmaster-dev/ringmaster/store"
)

var recoveryTests = []test{
	{"S13: epochs grow, also across starts, and shards have their own", func(b *rig) {
		first := b.epochs[2]
		second := b.acquire(2)
		if second <= first {
			b.Fatalf("epoch %d after %d", second, first)
		}
		b.close()
		b.open()
		if third := b.acquire(2); third <= second {
			b.Fatalf("epoch %d after %d and a new start", third, second)
		}
		if _, _, err := b.s.Acquire(b.ctx, rigShards, "owner"); err == nil {
			b.Error("a shard out of range was acquired")
		}
	}},
	{"the owner of a shard is who acquired it last", func(b *rig) {
		b.close()
		b.db = b.h.New(b.T)
		b.open()
		owner, epoch, err := b.s.Owner(b.ctx, 1)
		b.must("reading the owner", err)
		b.equal("owner of a shard never acquired", owner, "")
		b.equal("its epoch", epoch, uint64(0))
		for _, who := range []string{"first", "second"} {
			want, _, err := b.s.Acquire(b.ctx, 1, who)
			b.must("acquiring", err)
			owner, epoch, err := b.s.Owner(b.ctx, 1)
			b.must("reading the owner", err)
			b.equal("owner", owner, who)
			b.equal("epoch", epoch, want)
		}
	}},
	{"acquiring tells the highest number of the shard", func(b *rig) {
		for shard := range uint32(rigShards) {
			_, last, err := b.s.Acquire(b.ctx, shard, "owner")
			b.must("acquiring", err)
			b.equal("last", last, store.RefBase(shard))
			b.acquire(shard)
		}
		b.create(b.run(1, "a", 1), b.run(1, "b", 1), b.run(3, "c", 1))
		for shard, want := range []int64{store.RefBase(0), store.RefBase(1) + 2, store.RefBase(2), store.RefBase(3) + 1} {
			_, last, err := b.s.Acquire(b.ctx, uint32(shard), "owner")
			b.must("acquiring", err)
			b.equal("last", last, want)
		}
	}},
	{"unfinished runs come by number, with histories, in pages", unfinishedPages},
	{"sleeping runs are left until they are due", sleepers},
	{"due runs come earliest first", dueOrder},
	{"loading leaves absent runs out", func(b *rig) {
		r1, r2, r3 := b.run(0, "a", 1), b.run(3, "b", 2), b.run(1, "c", 3)
		b.create(r1, r2, r3)
		b.append(record(r2.Ref, 2), record(r2.Ref, 7))
		got, err := b.s.Load(b.ctx, []int64{r2.Ref, 99, r1.Ref, r2.Ref})
		b.must("loading", err)
		b.equal("loaded", got, []store.Unfinished{
			{Run: r1, History: []store.Record{record(r1.Ref, 1)}},
			{Run: r2, History: []store.Record{record(r2.Ref, 1), record(r2.Ref, 2), record(r2.Ref, 7)}},
		})
		got, err = b.s.Load(b.ctx, nil)
		b.must("loading nothing", err)
		b.equal("nothing", got, []store.Unfinished(nil))
	}},
	{"lookup returns the runs that exist", func(b *rig) {
		r1, r2 := b.run(0, "a", 1), b.run(3, "b'\"\\é", 2)
		b.create(r1, r2)
		ids := []string{r2.ID, "none", r1.ID, r1.ID, ""}
		for i := range 1500 {
			ids = append(ids, "absent "+string(rune('a'+i%26)))
		}
		got, err := b.s.Lookup(b.ctx, ids)
		b.must("looking up", err)
		slices.SortFunc(got, func(a, b store.Run) int { return cmp.Compare(a.Ref, b.Ref) })
		b.equal("found", got, []store.Run{r1, r2})
	}},
}

func unfinishedPages(b *rig) {
	var want []store.Unfinished
	for i := range 7 {
		r := b.run(2, "run"+string(rune('0'+i)), i)
		b.create(r, b.run(1, "other"+string(rune('0'+i)), i))
		b.append(record(r.Ref, 3))
		want = append(want, store.Unfinished{Run: r, History: []store.Record{record(r.Ref, 1), record(r.Ref, 3)}})
	}
	for i, st := range []store.Status{store.StatusSucceeded, store.StatusStalled, store.StatusAborted, store.StatusCompensating} {
		r := &want[i].Run
		r.Status, r.Updated = st, at(50)
		b.update(store.Update{Ref: r.Ref, Status: st, Updated: at(50)})
	}
	want = append(want[1:2:2], want[3:]...)
	var got []store.Unfinished
	for after, pages := int64(0), 1; ; pages++ {
		page, err := b.s.Unfinished(b.ctx, 2, after, at(0), 2)
		b.must("reading unfinished runs", err)
		got = append(got, page...)
		if len(page) < 2 {
			b.equal("pages", pages, 3)
			break
		}
		after = page[len(page)-1].Run.Ref
	}
	b.equal("unfinished", got, want)
}

func sleepers(b *rig) {
	wake := func(ms int) func(*store.Run) { return func(r *store.Run) { r.Wake = at(ms) } }
	early, late, awake := b.run(0, "early", 1, wake(100)), b.run(0, "late", 2, wake(200)), b.run(0, "awake", 3)
	b.create(early, late, awake)
	ids := func(wakeBefore int) (out []string) {
		list, err := b.s.Unfinished(b.ctx, 0, 0, at(wakeBefore), 10)
		b.must("reading unfinished runs", err)
		for _, u := range list {
			out = append(out, u.Run.ID)
		}
		return out
	}
	b.equal("before all", ids(99), []string{"awake"})
	b.equal("at the first", ids(100), []string{"early", "awake"})
	b.equal("after all", ids(1000), []string{"early", "late", "awake"})
	// One falls asleep, one wakes for good, one ends in its sleep.
	b.update(store.Update{Ref: awake.Ref, Status: store.StatusRunning, Updated: at(5), Wake: at(300)})
	b.update(store.Update{Ref: late.Ref, Status: store.StatusRunning, Updated: at(5)})
	b.update(store.Update{Ref: early.Ref, Status: store.StatusAborted, Updated: at(5), Ended: at(5), Wake: at(100)})
	b.equal("changed, before", ids(299), []string{"late"})
	b.equal("changed, after", ids(300), []string{"late", "awake"})
	due, err := b.s.Due(b.ctx, 0, at(1000), 10)
	b.must("reading due runs", err)
	b.equal("due", due, []int64{awake.Ref})
}

func dueOrder(b *rig) {
	var runs []store.Run
	for i, ms := range []int{30, 10, 20, 10, 0} {
		runs = append(runs, b.run(3, "d"+string(rune('0'+i)), i, func(r *store.Run) { r.Wake = at(ms) }))
	}
	runs = append(runs, b.run(3, "awake", 1), b.run(1, "other", 1, func(r *store.Run) { r.Wake = at(1) }))
	b.create(runs...)
	due := func(ms, limit int) []int64 {
		refs, err := b.s.Due(b.ctx, 3, at(ms), limit)
		b.must("reading due runs", err)
		return refs
	}
	b.equal("all", due(30, 10), []int64{runs[4].Ref, runs[1].Ref, runs[3].Ref, runs[2].Ref, runs[0].Ref})
	b.equal("some", due(29, 10), []int64{runs[4].Ref, runs[1].Ref, runs[3].Ref, runs[2].Ref})
	b.equal("limit", due(29, 2), []int64{runs[4].Ref, runs[1].Ref})
	b.equal("none", due(-1, 10), []int64{})
}
