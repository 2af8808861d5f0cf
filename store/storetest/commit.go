package storetest

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/ringmaster-dev/ringmaster/store"
)

var commitTests = []test{
	{"a run is read as it was written", roundTrip},
	{"records are read as they were written, in order", func(b *rig) {
		r := b.run(1, "a", 1)
		b.create(r)
		big := store.Record{Ref: r.Ref, Seq: 1 << 40, Data: bytes.Repeat([]byte{0, 255, '\''}, 400_000)}
		b.append(store.Record{Ref: r.Ref, Seq: 5, Data: []byte{}}, store.Record{Ref: r.Ref, Seq: 3, Data: []byte{0}})
		b.append(big)
		b.equal("history", b.history(r.Ref), []store.Record{record(r.Ref, 1), {Ref: r.Ref, Seq: 3, Data: []byte{0}},
			{Ref: r.Ref, Seq: 5, Data: nil}, big})
	}},
	{"an update sets all of its fields and no others", func(b *rig) {
		r := b.run(1, "a", 1, func(r *store.Run) { r.Wake, r.FailedStep, r.Error, r.Waived = at(9), "s", "e", true })
		b.create(r)
		r.Status, r.Waived, r.Updated, r.Wake, r.FailedStep, r.Error = store.StatusStalled, false, at(10), at(0).AddDate(1, 0, 0), "t", ""
		b.update(store.Update{Ref: r.Ref, Status: r.Status, Updated: r.Updated, Wake: r.Wake, FailedStep: "t"})
		b.equal("stalled", b.get("a"), r)
		r.Status, r.Updated, r.Ended, r.FailedStep, r.Error = store.StatusCompensated, at(11), at(11), "", "E"
		r.Wake, r.Waived = time.Time{}, true
		b.update(store.Update{Ref: r.Ref, Status: r.Status, Waived: true, Updated: at(11), Ended: at(11), Wake: r.Wake, Error: "E"})
		b.equal("compensated", b.get("a"), r)
	}},
	{"a part creates, appends and updates in this order", func(b *rig) {
		r := b.run(2, "a", 1)
		p := b.part(2)
		p.Create = []store.Run{r}
		p.Append = []store.Record{record(r.Ref, 1), record(r.Ref, 4)}
		p.Update = []store.Update{
			{Ref: r.Ref, Status: store.StatusCompensating, Updated: at(2)},
			{Ref: r.Ref, Status: store.StatusCompensated, Updated: at(3), Ended: at(3)},
		}
		b.commit(p)
		r.Status, r.Updated, r.Ended = store.StatusCompensated, at(3), at(3)
		b.equal("run", b.get("a"), r)
		b.equal("history", b.history(r.Ref), p.Append)
		b.counts(store.Counts{flow: {store.StatusCompensated: 1}})
	}},
	{"a checkpoint takes the place of the records from DropFrom on", func(b *rig) {
		r, other := b.run(0, "a", 1), b.run(0, "b", 1)
		b.create(r, other)
		b.append(record(r.Ref, 2), record(r.Ref, 3), record(r.Ref, 4), record(other.Ref, 3))
		check := store.Record{Ref: r.Ref, Seq: 5, Data: []byte("sum of 2 to 4"), DropFrom: 2}
		b.append(check)
		check.DropFrom = 0
		b.equal("history", b.history(r.Ref), []store.Record{record(r.Ref, 1), check})
		b.equal("another's", b.history(other.Ref), []store.Record{record(other.Ref, 1), record(other.Ref, 3)})
		// In the commit of what it replaces, and from the first on.
		last := store.Record{Ref: r.Ref, Seq: 7, Data: []byte("sum of all"), DropFrom: 1}
		b.append(record(r.Ref, 6), last, record(r.Ref, 8))
		last.DropFrom = 0
		b.equal("history", b.history(r.Ref), []store.Record{last, record(r.Ref, 8)})
	}},
	{"locks are written whole, by shard, and removed when they are empty", locksWritten},
	{"nothing is a commit", func(b *rig) {
		b.commit()
		b.commit(b.part(0), b.part(1))
	}},
	{"S13: a part under another epoch writes nothing", staleEpochs},
	{"a stale and two duplicate parts are left out among good ones", groupCommit},
	{"duplicates within one part and between parts of a commit", duplicatesWithin},
	{"a run of a workflow that is not registered is refused", func(b *rig) {
		bad, good := b.part(0), b.part(1)
		bad.Create = []store.Run{b.run(0, "bad", 1, func(r *store.Run) { r.Version = "unheard of" })}
		good.Create = []store.Run{b.run(1, "good", 1)}
		errs, err := b.s.Commit([]store.Part{bad, good})
		b.must("committing", err)
		b.is(errs[0], store.ErrNotFound)
		b.is(errs[1], nil)
		b.absent("bad")
		b.get("good")
	}},
	{"a record of a run that does not exist is refused", func(b *rig) {
		bad, good := b.part(0), b.part(1)
		bad.Create = []store.Run{b.run(0, "bad", 1)}
		bad.Append = []store.Record{record(bad.Create[0].Ref, 1), record(bad.Create[0].Ref+1, 1)}
		good.Create = []store.Run{b.run(1, "good", 1)}
		errs, err := b.s.Commit([]store.Part{bad, good})
		b.must("committing", err)
		b.is(errs[0], store.ErrNotFound)
		b.is(errs[1], nil)
		b.absent("bad")
		b.get("good")
		b.create(b.run(0, "bad", 1))
	}},
	{"a commit of many rows", func(b *rig) {
		var parts []store.Part
		want := store.Counts{flow: {}}
		for shard := range uint32(rigShards) {
			p := b.part(shard)
			for i := range 300 + int(shard) {
				r := b.run(shard, fmt.Sprintf("run %d of %d", i, shard), i)
				p.Create = append(p.Create, r)
				p.Append = append(p.Append, record(r.Ref, 1), record(r.Ref, 2))
				if i%3 == 0 {
					p.Update = append(p.Update, store.Update{Ref: r.Ref, Status: store.StatusSucceeded, Updated: at(i), Ended: at(i)})
					want[flow][store.StatusSucceeded]++
				} else {
					want[flow][store.StatusRunning]++
				}
			}
			parts = append(parts, p)
		}
		b.commit(parts...)
		b.counts(want)
		for _, p := range parts {
			for _, r := range p.Create {
				b.equal("history", b.history(r.Ref), []store.Record{record(r.Ref, 1), record(r.Ref, 2)})
			}
		}
	}},
	{"counts follow runs through their statuses", func(b *rig) {
		a, c := b.run(0, "a", 1), b.run(1, "b", 1, func(r *store.Run) { r.Version = flowV2 })
		d := b.run(2, "c", 1, func(r *store.Run) { r.Workflow, r.Version = pay, payV1 })
		b.create(a, c, d)
		b.counts(store.Counts{flow: {store.StatusRunning: 2}, pay: {store.StatusRunning: 1}})
		b.update(store.Update{Ref: a.Ref, Status: store.StatusSucceeded, Updated: at(2), Ended: at(2)})
		b.update(store.Update{Ref: c.Ref, Status: store.StatusRunning, Updated: at(2), Wake: at(9)})
		b.counts(store.Counts{flow: {store.StatusRunning: 1, store.StatusSucceeded: 1}, pay: {store.StatusRunning: 1}})
		b.update(store.Update{Ref: c.Ref, Status: store.StatusSucceeded, Updated: at(3), Ended: at(3)})
		b.update(store.Update{Ref: d.Ref, Status: store.StatusAborted, Updated: at(3), Ended: at(3)})
		b.counts(store.Counts{flow: {store.StatusSucceeded: 2}, pay: {store.StatusAborted: 1}})
		b.close()
		b.open()
		b.counts(store.Counts{flow: {store.StatusSucceeded: 2}, pay: {store.StatusAborted: 1}})
	}},
}

// counts checks the counts.
func (b *rig) counts(want store.Counts) {
	b.Helper()
	got, err := b.s.Counts(b.ctx)
	b.must("counting", err)
	b.equal("counts", got, want)
}

func locksWritten(b *rig) {
	put := func(shard uint32, locks ...store.Lock) {
		b.Helper()
		p := b.part(shard)
		p.Locks = locks
		b.commit(p)
	}
	of := func(shard uint32, after string, limit int, want ...store.Lock) {
		b.Helper()
		got, err := b.s.Locks(b.ctx, shard, after, limit)
		b.must("reading locks", err)
		b.equal("locks", got, want)
	}
	first, second, third := store.Lock{Name: "a", Data: []byte{1}}, store.Lock{Name: "a/é'", Data: []byte{2, 0}}, store.Lock{Name: "B", Data: []byte{3}}
	put(1, second, first, third, store.Lock{Name: "a", Data: []byte{9}})
	put(2, store.Lock{Name: "a", Data: []byte{4}})
	first.Data = []byte{9}
	of(1, "", 10, third, first, second)
	of(1, "a", 10, second)
	of(1, "", 2, third, first)
	of(0, "", 10)
	b.close()
	b.open()
	b.acquire(1)
	put(1, store.Lock{Name: "a"}, store.Lock{Name: "none"}, store.Lock{Name: "B", Data: []byte{5, 5}})
	third.Data = []byte{5, 5}
	of(1, "", 10, third, second)
	got, err := b.s.Lock(b.ctx, 1, "B")
	b.must("reading a lock", err)
	b.equal("lock", got, third)
	_, err = b.s.Lock(b.ctx, 1, "a")
	b.is(err, store.ErrNotFound)
	stale := b.part(1)
	stale.Epoch--
	stale.Locks = []store.Lock{{Name: "B"}}
	errs, err := b.s.Commit([]store.Part{stale})
	b.must("committing", err)
	b.is(errs[0], store.ErrStaleEpoch)
	of(1, "", 10, third, second)
}

func roundTrip(b *rig) {
	for i, change := range []func(*store.Run){
		func(*store.Run) {},
		func(r *store.Run) { r.Key = "" },
		func(r *store.Run) { r.Key = "another's" },
		func(r *store.Run) { r.Workflow, r.Version = pay, payV1 },
		func(r *store.Run) { r.Status, r.Ended, r.Updated = store.StatusCommitted, at(123), at(124) },
		func(r *store.Run) { r.Waived, r.Wake, r.RetryOf = true, at(86_400_001), "the one before" },
		func(r *store.Run) { r.Parent, r.ParentStep = "mother", "settle" },
		func(r *store.Run) { r.Tags = map[string]string{"a": "", "": "b", "<\"é\n": "' \\ &"} },
		func(r *store.Run) { r.InputHash = [16]byte{15: 255} },
		func(r *store.Run) { r.FailedStep, r.Error = "pay", strings.Repeat("E: it's \"broken\"\n", 200) },
		func(r *store.Run) { r.ID = strings.Repeat("long", 100) },
		func(r *store.Run) { r.Ref = store.RefBase(r.Shard+1) - 1 },
		func(r *store.Run) { r.Created, r.Updated = at(0).AddDate(-100, 0, 0), at(0).AddDate(100, 0, 0) },
	} {
		r := b.run(uint32(i)%rigShards, fmt.Sprintf("run%d", i), i, change)
		b.create(r)
		b.equal("by id", b.get(r.ID), r)
		got, err := b.s.RunByRef(b.ctx, r.Ref)
		b.must("reading by number", err)
		b.equal("by number", got, r)
	}
}

func staleEpochs(b *rig) {
	r := b.run(1, "mine", 1)
	b.create(r)
	old := b.epochs[1]
	b.acquire(1)
	for _, epoch := range []uint64{old, 0, b.epochs[1] + 1} {
		p := store.Part{Shard: 1, Epoch: epoch, Create: []store.Run{b.run(1, "lost", 1)},
			Append: []store.Record{record(r.Ref, 2)},
			Update: []store.Update{{Ref: r.Ref, Status: store.StatusAborted, Updated: at(9), Ended: at(9)}}}
		errs, err := b.s.Commit([]store.Part{p})
		b.must("committing", err)
		b.is(errs[0], store.ErrStaleEpoch)
	}
	b.absent("lost")
	b.equal("run", b.get("mine"), r)
	b.equal("history", b.history(r.Ref), []store.Record{record(r.Ref, 1)})
	// Nobody has acquired a shard that does not exist.
	errs, err := b.s.Commit([]store.Part{{Shard: rigShards, Epoch: 1}})
	b.must("committing", err)
	b.is(errs[0], store.ErrStaleEpoch)
}

func groupCommit(b *rig) {
	there := b.run(2, "there", 1)
	b.create(there)
	stale, good1, dupID, dupRecord, good2 := b.part(0), b.part(1), b.part(2), b.part(3), b.part(1)
	stale.Epoch += 5
	stale.Create = []store.Run{b.run(0, "stale", 1)}
	good1.Create = []store.Run{b.run(1, "good1", 1, func(r *store.Run) { r.Tags = map[string]string{"t": "1"} })}
	good1.Append = []store.Record{record(good1.Create[0].Ref, 1)}
	dupID.Create = []store.Run{
		b.run(2, "beside", 1, func(r *store.Run) { r.Tags = map[string]string{"t": "2"} }), b.run(2, "there", 2),
	}
	dupID.Append = []store.Record{record(there.Ref, 2)}
	dupID.Update = []store.Update{{Ref: there.Ref, Status: store.StatusAborted, Updated: at(5), Ended: at(5)}}
	r3 := b.run(3, "three", 1)
	b.create(r3)
	dupRecord.Create = []store.Run{b.run(3, "beside too", 1)}
	dupRecord.Append = []store.Record{record(r3.Ref, 2), record(r3.Ref, 1)}
	good2.Update = []store.Update{{Ref: good1.Create[0].Ref, Status: store.StatusSucceeded, Updated: at(6), Ended: at(6)}}

	errs, err := b.s.Commit([]store.Part{stale, good1, dupID, dupRecord, good2})
	b.must("committing", err)
	for i, want := range []error{store.ErrStaleEpoch, nil, store.ErrDuplicate, store.ErrDuplicate, nil} {
		b.is(errs[i], want)
	}
	for _, id := range []string{"stale", "beside", "beside too"} {
		b.absent(id)
	}
	b.equal("there", b.get("there"), there)
	b.equal("its history", b.history(there.Ref), []store.Record{record(there.Ref, 1)})
	b.equal("history of three", b.history(r3.Ref), []store.Record{record(r3.Ref, 1)})
	good := good1.Create[0]
	good.Status, good.Updated, good.Ended = store.StatusSucceeded, at(6), at(6)
	b.equal("good", b.get("good1"), good)
	b.equal("its history", b.history(good.Ref), good1.Append)
	b.counts(store.Counts{flow: {store.StatusRunning: 2, store.StatusSucceeded: 1}})
	page, err := b.s.List(b.ctx, store.Filter{TagName: "t"})
	b.must("listing", err)
	b.equal("tagged", page.Runs, []store.Run{good})
	// The store goes on.
	b.create(b.run(2, "beside", 1))
}

func duplicatesWithin(b *rig) {
	r := b.run(0, "r", 1)
	b.create(r)
	for _, tt := range []struct {
		name string
		part func(*store.Part)
	}{
		{"an id twice", func(p *store.Part) { p.Create = []store.Run{b.run(0, "x", 1), b.run(0, "x", 1)} }},
		{"a number twice", func(p *store.Part) {
			x := b.run(0, "x", 1)
			y := x
			y.ID = "y"
			p.Create = []store.Run{x, y}
		}},
		{"a number that exists", func(p *store.Part) {
			x := b.run(0, "x", 1)
			x.Ref = r.Ref
			p.Create = []store.Run{x}
		}},
		{"a record twice", func(p *store.Part) { p.Append = []store.Record{record(r.Ref, 2), record(r.Ref, 2)} }},
	} {
		p, good := b.part(0), b.part(1)
		tt.part(&p)
		good.Create = []store.Run{b.run(1, tt.name, 1)}
		errs, err := b.s.Commit([]store.Part{p, good})
		b.must("committing "+tt.name, err)
		b.is(errs[0], store.ErrDuplicate)
		b.is(errs[1], nil)
		b.absent("x")
		b.get(tt.name)
	}
	// Of two parts with the same run, the first is written.
	first, second := b.part(0), b.part(0)
	first.Create = []store.Run{b.run(0, "once", 1)}
	second.Create = []store.Run{b.run(0, "once", 2)}
	errs, err := b.s.Commit([]store.Part{first, second})
	b.must("committing", err)
	b.is(errs[0], nil)
	b.is(errs[1], store.ErrDuplicate)
	b.equal("run", b.get("once"), first.Create[0])
}
