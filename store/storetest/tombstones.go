package storetest

import "github.com/ringmaster-dev/ringmaster/store"

var tombstoneTests = []test{
	{"tombstones are found again, also after a new start", func(b *rig) {
		b.equal("none", b.tombstones("a", "b"), []store.Tombstone(nil))
		b.bury(b.tombstone(1, "a"), b.tombstone(2, "it's \"b\""))
		want := []store.Tombstone{b.tombstone(1, "a"), b.tombstone(2, "it's \"b\"")}
		b.equal("tombstones", b.tombstones("c", "a", "it's \"b\"", "a"), want)
		b.close()
		b.open()
		b.equal("after a new start", b.tombstones("c", "a", "it's \"b\""), want)
		b.absent("a")
		found, err := b.s.Lookup(b.ctx, []string{"a"})
		b.must("looking up", err)
		b.equal("lookup", found, []store.Run(nil))
		page, err := b.s.List(b.ctx, store.Filter{})
		b.must("listing", err)
		b.equal("list", page.Runs, []store.Run(nil))
	}},
	{"T8: an id that has a tombstone is never again that of a run", func(b *rig) {
		b.bury(b.tombstone(1, "a"))
		for _, again := range []func(){func() {}, func() { b.close(); b.open() }} {
			again()
			p, good := b.part(1), b.part(2)
			p.Create = []store.Run{b.run(1, "beside", 1), b.run(1, "a", 1)}
			p.Append = []store.Record{record(p.Create[0].Ref, 1), record(p.Create[1].Ref, 1)}
			b.refused(store.ErrDuplicate, p, good)
			b.absent("beside")
			b.absent("a")
		}
		b.create(b.run(1, "beside", 1)) // the store goes on
	}},
	{"a run that exists, and a tombstone, exclude a tombstone", func(b *rig) {
		b.create(b.run(1, "run", 1))
		b.bury(b.tombstone(1, "buried"))
		for _, id := range []string{"run", "buried"} {
			p := b.part(1)
			p.Create = []store.Run{b.run(1, "beside", 1)}
			p.Bury = []store.Tombstone{b.tombstone(1, "more"), b.tombstone(1, id)}
			b.refused(store.ErrDuplicate, p)
			b.absent("beside")
			b.equal("tombstones", b.tombstones("more", "run", "buried"), []store.Tombstone{b.tombstone(1, "buried")})
		}
		b.get("run")
	}},
	{"T8: of a start and a tombstone in one commit, the first is written", func(b *rig) {
		start, bury := b.part(1), b.part(1)
		start.Create = []store.Run{b.run(1, "a", 1)}
		bury.Bury = []store.Tombstone{b.tombstone(1, "a")}
		errs, err := b.s.Commit([]store.Part{start, bury})
		b.must("committing", err)
		b.is(errs[0], nil)
		b.is(errs[1], store.ErrDuplicate)
		b.get("a")
		b.equal("tombstones", b.tombstones("a"), []store.Tombstone(nil))

		start.Create = []store.Run{b.run(1, "b", 1)}
		bury.Bury = []store.Tombstone{b.tombstone(1, "b")}
		errs, err = b.s.Commit([]store.Part{bury, start})
		b.must("committing", err)
		b.is(errs[0], nil)
		b.is(errs[1], store.ErrDuplicate)
		b.absent("b")
		b.equal("tombstones", b.tombstones("b"), []store.Tombstone{b.tombstone(1, "b")})

		both := b.part(1)
		both.Create = []store.Run{b.run(1, "c", 1)}
		both.Bury = []store.Tombstone{b.tombstone(1, "c")}
		b.refused(store.ErrDuplicate, both)
		twice := b.part(1)
		twice.Bury = []store.Tombstone{b.tombstone(1, "c"), b.tombstone(1, "c")}
		b.refused(store.ErrDuplicate, twice)
		b.create(b.run(1, "c", 1))
	}},
	{"T9: a stale epoch buries nothing", func(b *rig) {
		p := b.part(1)
		p.Bury = []store.Tombstone{b.tombstone(1, "a")}
		b.acquire(1)
		b.refused(store.ErrStaleEpoch, p)
		b.create(b.run(1, "a", 1))
	}},
}

func (b *rig) tombstone(shard uint32, id string) store.Tombstone {
	return store.Tombstone{ID: id, Shard: shard, Status: store.StatusAborted, Buried: at(7)}
}

func (b *rig) tombstones(ids ...string) []store.Tombstone {
	b.Helper()
	got, err := b.s.Tombstones(b.ctx, ids)
	b.must("looking tombstones up", err)
	return got
}

// bury commits tombstones.
func (b *rig) bury(tombs ...store.Tombstone) {
	b.Helper()
	var parts []store.Part
	for _, t := range tombs {
		p := b.part(t.Shard)
		p.Bury = []store.Tombstone{t}
		parts = append(parts, p)
	}
	b.commit(parts...)
}

// refused commits parts of which the first must fail in a certain way, and the
// others must be written.
func (b *rig) refused(want error, parts ...store.Part) {
	b.Helper()
	errs, err := b.s.Commit(parts)
	b.must("committing", err)
	if len(errs) != len(parts) {
		b.Fatalf("committing: %d errors, want one for each of %d parts", len(errs), len(parts))
	}
	b.is(errs[0], want)
	for _, err := range errs[1:] {
		b.is(err, nil)
	}
}
