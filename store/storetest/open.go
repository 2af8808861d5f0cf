package storetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/ringmaster-dev/ringmaster/store"
)

var openTests = []test{
	{"an empty store answers nothing and is sound", func(b *rig) {
		b.must("checking", b.s.Check(b.ctx))
		b.equal("shards", b.s.Shards(), uint32(rigShards))
		b.absent("none")
		_, err := b.s.RunByRef(b.ctx, 1)
		b.is(err, store.ErrNotFound)
		b.equal("history", b.history(1), []store.Record(nil))
		page, err := b.s.List(b.ctx, store.Filter{})
		b.must("listing", err)
		b.equal("runs", page.Runs, []store.Run(nil))
		b.equal("cursor", page.Next, "")
		counts, err := b.s.Counts(b.ctx)
		b.must("counting", err)
		b.equal("counts", counts, store.Counts{})
	}},
	{"everything is there after closing and opening", func(b *rig) {
		r := b.run(1, "a", 5, func(r *store.Run) {
			r.Key, r.Tags, r.RetryOf = "k", map[string]string{"x": "1", "y": ""}, "before"
			r.Parent, r.ParentStep = "mother", "settle"
			r.Waived, r.Wake, r.FailedStep, r.Error = true, at(77), "pay", "E: no"
		})
		b.create(r, b.run(2, "b", 6))
		before, err := dump(b.ctx, b.s)
		b.must("dumping", err)
		b.close()
		b.open()
		after, err := dump(b.ctx, b.s)
		b.must("dumping", err)
		b.equal("all", after, before)
		b.equal("run", b.get("a"), r)
	}},
	{"a note is there after closing, and replaced by the next", func(b *rig) {
		note := func() string {
			v, err := b.s.Note(b.ctx, "n")
			b.must("reading a note", err)
			if v == nil {
				return "none"
			}
			return string(v)
		}
		b.equal("note", note(), "none")
		b.must("keeping a note", b.s.SetNote(b.ctx, "n", []byte("one")))
		b.must("keeping a note", b.s.SetNote(b.ctx, "n", []byte("two")))
		b.must("keeping another", b.s.SetNote(b.ctx, "m", []byte{}))
		b.close()
		b.open()
		b.equal("note", note(), "two")
		b.must("removing a note", b.s.SetNote(b.ctx, "n", nil))
		b.must("removing it again", b.s.SetNote(b.ctx, "n", nil))
		b.equal("note", note(), "none")
	}},
	{"notes are found by the beginning of their names", func(b *rig) {
		for _, name := range []string{"a/%", "a/_", "a/", "a", "A/x", "b/a/"} {
			b.must("keeping a note", b.s.SetNote(b.ctx, name, []byte(name)))
		}
		for prefix, want := range map[string][]string{
			"a/": {"a/", "a/%", "a/_"}, "a/_": {"a/_"}, "": {"A/x", "a", "a/", "a/%", "a/_", "b/a/"}, "none": nil,
		} {
			notes, err := b.s.Notes(b.ctx, prefix)
			b.must("reading notes", err)
			for name, v := range notes {
				b.equal("value of "+name, string(v), name)
			}
			b.equal("notes of "+prefix, slices.Sorted(maps.Keys(notes)), want)
		}
	}},
	{"the number of shards is fixed and the error names both", func(b *rig) {
		b.close()
		s, err := b.db.Open(b.ctx, rigShards+3)
		b.is(err, store.ErrShardCount)
		for _, n := range []string{"4", "7"} {
			if !strings.Contains(err.Error(), n) {
				b.Errorf("the error does not name %s: %v", n, err)
			}
		}
		if s != nil {
			b.Error("a store was returned with the error")
		}
		s, err = b.db.Open(b.ctx, 0)
		b.must("opening without a number", err)
		b.equal("shards", s.Shards(), uint32(rigShards))
		b.s = s
	}},
	{"a store that is open is locked", func(b *rig) {
		if !b.h.Exclusive {
			return
		}
		_, err := b.db.Open(b.ctx, rigShards)
		b.is(err, store.ErrLocked)
		b.create(b.run(0, "still works", 1))
		b.close()
		b.open()
		b.get("still works")
	}},
	{"a closed store refuses and closes again", func(b *rig) {
		b.close()
		if _, err := b.s.Commit([]store.Part{b.part(0)}); err == nil {
			b.Error("a closed store took a commit")
		}
		if err := b.s.Check(b.ctx); err == nil {
			b.Error("a closed store is sound")
		}
	}},
	{"closing while reads go on lets them end", func(b *rig) {
		for i := range 20 {
			b.create(b.run(uint32(i%rigShards), fmt.Sprint("r", i), i))
		}
		var wg sync.WaitGroup
		started := make(chan struct{}, 4)
		for range 4 {
			wg.Go(func() {
				for first := true; ; first = false {
					page, err := b.s.List(b.ctx, store.Filter{})
					if err != nil {
						return
					}
					if len(page.Runs) != 20 {
						b.Errorf("listed %d runs of 20", len(page.Runs))
					}
					if first {
						started <- struct{}{}
					}
				}
			})
		}
		for range 4 {
			<-started
		}
		b.close()
		wg.Wait()
	}},
	{"an ended context ends a read", func(b *rig) {
		ctx, cancel := context.WithCancel(b.ctx)
		cancel()
		if _, err := b.s.List(ctx, store.Filter{}); err == nil {
			b.Error("List succeeded")
		}
		b.create(b.run(0, "works on", 1))
	}},
}
