package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/store"
)

// Kept says what a store of an earlier schema version could hold.
type Kept struct{ Locks, Tombstones, Parents, Retention bool }

// Upgraded checks that a store which was opened on the dump of an earlier version
// (the same content in all dumps, as far as the version had a place for it) holds all
// of it, and that it takes commits.
func Upgraded(t testing.TB, s store.Store, kept Kept) {
	t.Helper()
	ctx := context.Background()
	ms := func(n int64) time.Time { return time.UnixMilli(1_700_000_000_000 + n).UTC() }
	hash := [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	done := store.Run{Ref: store.RefBase(1) + 1, ID: "done", Shard: 1, Workflow: flow, Version: "1", Status: store.StatusSucceeded, Waived: true,
		Key: "done", InputHash: hash, RetryOf: "first", Created: ms(1), Updated: ms(5), Ended: ms(5)}
	live := store.Run{Ref: store.RefBase(1) + 2, ID: "live", Shard: 1, Workflow: flow, Version: "2", Status: store.StatusRunning,
		Key: "k", InputHash: hash, Tags: map[string]string{"region": "eu"}, Created: ms(2), Updated: ms(2), Wake: ms(9000),
		FailedStep: "pay", Error: "E: no"}
	if kept.Parents {
		live.Parent, live.ParentStep = "mother", "settle"
	}
	same := func(what string, got any, err error, want any) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if d := difference(render(got), render(want)); d != "" {
			t.Errorf("%s: %s", what, d)
		}
	}
	page, err := s.List(ctx, store.Filter{})
	same("runs", page.Runs, err, []store.Run{live, done})
	page, err = s.List(ctx, store.Filter{TagName: "region", TagValue: "eu"})
	same("tagged", page.Runs, err, []store.Run{live})
	runs, err := s.Load(ctx, []int64{done.Ref, live.Ref})
	same("histories", runs, err, []store.Unfinished{
		{Run: done, History: []store.Record{{Ref: done.Ref, Seq: 1, Data: []byte{1}}, {Ref: done.Ref, Seq: 2, Data: []byte{2, 255}}}},
		{Run: live, History: []store.Record{{Ref: live.Ref, Seq: 1, Data: []byte{3}}}},
	})
	counts, err := s.Counts(ctx)
	same("counts", counts, err, store.Counts{flow: {store.StatusSucceeded: 1, store.StatusRunning: 1}})
	ended, err := s.Ended(ctx, 1, ms(10), store.EndedPlace{}, 10)
	same("ended", ended, err, []store.Run{done})
	due, err := s.Due(ctx, 1, ms(9000), 10)
	same("due", due, err, []int64{live.Ref})
	note, err := s.Note(ctx, "n")
	same("note", string(note), err, "v")
	info, definition, err := s.Workflow(ctx, flow, "")
	same("workflow", info, err, store.WorkflowInfo{Name: flow, Version: "2", Kind: "saga", Registered: ms(1000), Active: true})
	same("definition", string(definition), nil, `{"a":1}`)
	if kept.Locks {
		lock, err := s.Lock(ctx, 1, "l")
		same("lock", lock, err, store.Lock{Name: "l", Data: []byte{1, 2}})
	}
	upgradedTombstone(t, s, kept, same)

	epoch, last, err := s.Acquire(ctx, 1, "after")
	want := live.Ref
	if kept.Retention {
		want = store.RefBase(1) + 14
	}
	same("last number", last, err, want)
	if epoch <= 1_700_000_000 {
		t.Errorf("epoch %d is not above the one before", epoch)
	}
	p := store.Part{Shard: 1, Epoch: epoch, Append: []store.Record{record(live.Ref, 2)}}
	p.Create = []store.Run{{Ref: last + 1, ID: "new", Shard: 1, Workflow: flow, Version: "1", Status: store.StatusRunning, Key: "new", Created: ms(20), Updated: ms(20)}}
	p.Update = []store.Update{{Ref: live.Ref, Status: store.StatusAborted, Updated: ms(20), Ended: ms(20)}}
	p.Locks = []store.Lock{{Name: "m", Data: []byte{1}}}
	errs, err := s.Commit([]store.Part{p})
	same("commit", errs == nil, err, true)
	counts, err = s.Counts(ctx)
	same("counts after that", counts, err, store.Counts{flow: {store.StatusSucceeded: 1, store.StatusRunning: 1, store.StatusAborted: 1}})
}

// upgradedTombstone checks the one tombstone of an earlier version.
func upgradedTombstone(t testing.TB, s store.Store, kept Kept, same func(what string, got any, err error, want any)) {
	t.Helper()
	ms := func(n int64) time.Time { return time.UnixMilli(1_700_000_000_000 + n).UTC() }
	want := []store.Tombstone{{ID: "gone", Shard: 1, Status: store.StatusAborted, Buried: ms(3)}}
	if kept.Retention {
		want[0].Until, want[0].Workflow, want[0].Version, want[0].Waived = ms(8000), flow, "1", true
		want[0].InputHash = [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
		want[0].Created, want[0].Ended = ms(1), ms(2)
	}
	if !kept.Tombstones {
		want = nil
	}
	got, err := s.Tombstones(context.Background(), []string{"gone"})
	same("tombstones", got, err, want)
}
