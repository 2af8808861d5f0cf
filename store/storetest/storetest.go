// Package storetest is the suite that every implementation of [store.Store]
// passes, and a model of the port in memory that the suite compares
// implementations with.
//
// An implementation's test calls [Run] with a [Harness] that makes empty
// databases. What it cannot do for lack of a file of its own (losing power at
// a chosen moment) is declared by leaving the harness's optional parts nil.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/store"
)

// Database is one database of the implementation under test.
type Database interface {
	// Open opens the database with a configured number of shards; zero leaves
	// the number to the database.
	Open(ctx context.Context, shards uint32) (store.Store, error)
}

// Harness makes databases for the suite.
type Harness struct {
	// New makes an empty database that is gone when the test ends.
	New func(t testing.TB) Database
	// Apart says that an id is compared with those of its own shard alone.
	Apart bool
	// Exclusive says that a database that is open cannot be opened again.
	Exclusive bool
	// Crash copies a database, which may be open and in use, to what would be
	// left of it if power were lost now. The last cut bytes of what was being
	// written are lost as well. Nil: the crash tests are left out.
	Crash func(t testing.TB, db Database, cut int64) Database
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	for _, group := range []struct {
		name  string
		tests []test
	}{
		{"open", openTests},
		{"commit", commitTests},
		{"recovery", recoveryTests},
		{"tombstones", tombstoneTests},
		{"removal", removalTests},
		{"list", listTests},
		{"workflow", workflowTests},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, tt := range group.tests {
				t.Run(tt.name, func(t *testing.T) { tt.run(newRig(t, h)) })
			}
		})
	}
	t.Run("behaves as the model does", func(t *testing.T) { property(t, h) })
	if h.Crash != nil {
		t.Run("crash", func(t *testing.T) { Crashes(t, h) })
	}
}

type test struct {
	name string
	run  func(*rig)
}

// rig is what one test works with: a database that is open, and shortcuts
// that fail the test when a call fails that should not.
type rig struct {
	*testing.T
	ctx context.Context
	h   Harness
	db  Database
	s   store.Store
	// epochs by shard, of those that were acquired through the rig
	epochs map[uint32]uint64
	refs   map[uint32]int64
}

// rigShards is the number of shards of a rig's store.
const rigShards = 4

// The workflows that a rig registers.
const (
	flow, flowV1, flowV2 = "order", "v1", "v2"
	pay, payV1           = "payment", "v1"
)

func newRig(t *testing.T, h Harness) *rig {
	b := &rig{T: t, ctx: t.Context(), h: h, db: h.New(t), epochs: map[uint32]uint64{}, refs: map[uint32]int64{}}
	b.open()
	// A test's context ends before its cleanup.
	t.Cleanup(func() { b.close() })
	b.workflow(flow, flowV1)
	b.workflow(flow, flowV2)
	b.workflow(pay, payV1)
	for shard := range uint32(rigShards) {
		b.acquire(shard)
	}
	return b
}

func (b *rig) open() {
	b.Helper()
	s, err := b.db.Open(b.ctx, rigShards)
	b.must("opening the store", err)
	b.s = s
}

func (b *rig) close() {
	b.Helper()
	b.must("closing the store", b.s.Close())
}

func (b *rig) must(what string, err error) {
	b.Helper()
	if err != nil {
		b.Fatalf("%s: %v", what, err)
	}
}

func (b *rig) is(err, want error) {
	b.Helper()
	if !errors.Is(err, want) {
		b.Fatalf("error is %v, want %v", err, want)
	}
}

// equal compares two values by what they print, so that a difference can be
// read.
func (b *rig) equal(what string, got, want any) {
	b.Helper()
	if d := difference(render(got), render(want)); d != "" {
		b.Fatalf("%s: %s", what, d)
	}
}

func (b *rig) workflow(name, version string) {
	b.Helper()
	_, _, err := b.s.PutWorkflow(b.ctx, workflowInfo(name, version), definition(name, version))
	b.must("registering a workflow", err)
}

func workflowInfo(name, version string) store.WorkflowInfo {
	return store.WorkflowInfo{Name: name, Version: version, Kind: "saga", Registered: at(0)}
}

func definition(name, version string) []byte {
	return fmt.Appendf(nil, `{"name":%q,"version":%q}`, name, version)
}

func (b *rig) acquire(shard uint32) uint64 {
	b.Helper()
	epoch, last, err := b.s.Acquire(b.ctx, shard, "owner")
	b.must("acquiring a shard", err)
	b.epochs[shard], b.refs[shard] = epoch, max(last, b.refs[shard])
	return epoch
}

// run makes a run of a shard, with the next number, created at(ms).
func (b *rig) run(shard uint32, id string, ms int, change ...func(*store.Run)) store.Run {
	b.refs[shard] = max(b.refs[shard], store.RefBase(shard)) + 1
	r := store.Run{
		Ref: b.refs[shard], ID: id, Shard: shard, Workflow: flow, Version: flowV1, Status: store.StatusRunning,
		Key: id, InputHash: [16]byte{1, 2, 3}, Created: at(ms), Updated: at(ms),
	}
	for _, c := range change {
		c(&r)
	}
	return r
}

// part starts a part of a shard under its present epoch.
func (b *rig) part(shard uint32) store.Part {
	return store.Part{Shard: shard, Epoch: b.epochs[shard]}
}

// create commits runs, each with one record of history.
func (b *rig) create(runs ...store.Run) {
	b.Helper()
	var parts []store.Part
	for _, r := range runs {
		p := b.part(r.Shard)
		p.Create = []store.Run{r}
		p.Append = []store.Record{record(r.Ref, 1)}
		parts = append(parts, p)
	}
	b.commit(parts...)
}

// commit commits parts all of which must be written.
func (b *rig) commit(parts ...store.Part) {
	b.Helper()
	errs, err := b.s.Commit(parts)
	b.must("committing", err)
	if errs != nil {
		b.Fatalf("committing: parts failed: %v", errs)
	}
}

// update commits one update.
func (b *rig) update(u store.Update) {
	b.Helper()
	p := b.part(uint32(u.Ref >> 40))
	p.Update = []store.Update{u}
	b.commit(p)
}

// append commits records of one run.
func (b *rig) append(records ...store.Record) {
	b.Helper()
	p := b.part(uint32(records[0].Ref >> 40))
	p.Append = records
	b.commit(p)
}

func (b *rig) get(id string) store.Run {
	b.Helper()
	r, err := b.s.Run(b.ctx, id)
	b.must("reading a run", err)
	return r
}

func (b *rig) absent(id string) {
	b.Helper()
	_, err := b.s.Run(b.ctx, id)
	b.is(err, store.ErrNotFound)
}

func (b *rig) history(ref int64) []store.Record {
	b.Helper()
	h, err := b.s.History(b.ctx, ref)
	b.must("reading a history", err)
	return h
}

func record(ref int64, seq uint64) store.Record {
	return store.Record{Ref: ref, Seq: seq, Data: fmt.Appendf(nil, "events %d of run %d", seq, ref)}
}

// at is the time ms milliseconds into the tests' day.
func at(ms int) time.Time {
	return time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC).Add(time.Duration(ms) * time.Millisecond)
}
