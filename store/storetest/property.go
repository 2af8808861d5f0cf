package storetest

import (
	"context"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/ringmaster-dev/ringmaster/store"
)

// pair is a store and the model, which are asked the same.
type pair struct {
	*rapid.T
	ctx   context.Context
	db    Database
	real  store.Store
	model *Model
	gen   *generator
}

// property runs random calls against a store and the model and compares all
// answers.
func property(t *testing.T, h Harness) {
	rapid.Check(t, func(rt *rapid.T) {
		index := rapid.IntRange(0, 1<<16)
		choose := func(n int) int { return index.Draw(rt, "choice") % n }
		p := &pair{T: rt, ctx: context.Background(), db: h.New(t), model: NewModel(rigShards),
			gen: newGenerator(choose, rigShards, true)}
		p.gen.apart = h.Apart
		p.open()
		defer func() { p.check("closing", p.real.Close()) }()
		for _, w := range [][2]string{{flow, flowV1}, {flow, flowV2}, {pay, payV1}} {
			p.put(w[0], w[1])
		}
		for shard := range uint32(rigShards) {
			p.acquire(shard)
		}
		for range 1 + choose(12) {
			p.step(choose)
		}
		p.compareAll()
	})
}

func (p *pair) check(what string, err error) {
	if err != nil {
		p.Fatalf("%s: %v", what, err)
	}
}

// same compares two answers and the kinds of two errors.
func (p *pair) same(what string, got any, gotErr error, want any, wantErr error) {
	for _, kind := range []error{store.ErrNotFound, store.ErrStaleEpoch, store.ErrDuplicate, store.ErrUnended} {
		if errors.Is(gotErr, kind) != errors.Is(wantErr, kind) {
			p.Fatalf("%s: error is %v, want %v", what, gotErr, wantErr)
		}
	}
	if (gotErr == nil) != (wantErr == nil) {
		p.Fatalf("%s: error is %v, want %v", what, gotErr, wantErr)
	}
	if d := difference(render(got), render(want)); d != "" {
		p.Fatalf("%s: %s", what, d)
	}
}

func (p *pair) open() {
	s, err := p.db.Open(p.ctx, rigShards)
	p.check("opening", err)
	p.real = s
}

func (p *pair) put(name, version string) {
	info, created, err := p.real.PutWorkflow(p.ctx, workflowInfo(name, version), definition(name, version))
	wantInfo, wantCreated, wantErr := p.model.PutWorkflow(p.ctx, workflowInfo(name, version), definition(name, version))
	p.same("registering", info, err, wantInfo, wantErr)
	p.same("registering", created, nil, wantCreated, nil)
}

func (p *pair) acquire(shard uint32) {
	epoch, last, err := p.real.Acquire(p.ctx, shard, "owner")
	wantEpoch, wantLast, wantErr := p.model.Acquire(p.ctx, shard, "owner")
	// Both go by the clock, which may have moved on in between.
	p.same("epoch", epoch == wantEpoch || epoch+1 == wantEpoch, err, true, wantErr)
	if err == nil {
		p.model.epochs[shard] = epoch
	}
	p.same("last number", last, nil, wantLast, nil)
	p.gen.epochs[shard] = epoch
}

func (p *pair) step(choose chooser) {
	switch choose(12) {
	case 0:
		p.acquire(uint32(choose(rigShards)))
	case 1:
		p.check("closing", p.real.Close())
		p.open()
	case 2:
		name, version := pick(choose, flow, pay, "more"), pick(choose, "v1", "v2", "v3")
		p.put(name, version)
		version = pick(choose, "v1", "v2", "v3")
		p.same("activating", nil, p.real.ActivateWorkflow(p.ctx, name, version), nil, p.model.ActivateWorkflow(p.ctx, name, version))
	case 3, 4, 5:
		p.list()
	default:
		p.commit()
	}
}

func (p *pair) commit() {
	parts := p.gen.commit()
	errs, err := p.real.Commit(parts)
	p.check("committing", err)
	want, err := p.model.Commit(parts)
	p.check("committing to the model", err)
	if len(errs) != len(want) {
		p.Fatalf("committing: %d errors, want %d: %v, want %v", len(errs), len(want), errs, want)
	}
	for i := range errs {
		p.same("a part of a commit", nil, errs[i], nil, want[i])
	}
}

// list reads all pages of a filter from both.
func (p *pair) list() {
	f := p.gen.filter()
	wf := f
	for {
		got, err := p.real.List(p.ctx, f)
		want, wantErr := p.model.List(p.ctx, wf)
		p.same("a list", got.Runs, err, want.Runs, wantErr)
		p.same("whether there is more", got.Next != "", nil, want.Next != "", nil)
		if got.Next == "" {
			return
		}
		f.Cursor, wf.Cursor = got.Next, want.Next
	}
}

func (p *pair) compareAll() {
	for _, ref := range append(p.gen.runs, 7) {
		got, err := p.real.RunByRef(p.ctx, ref)
		want, wantErr := p.model.RunByRef(p.ctx, ref)
		p.same("a run", got, err, want, wantErr)
		h, err := p.real.History(p.ctx, ref)
		wantH, wantErr := p.model.History(p.ctx, ref)
		p.same("a history", h, err, wantH, wantErr)
	}
	for shard := range uint32(rigShards) {
		t, limit := at(p.gen.choose(p.gen.ms+5)), 1+p.gen.choose(5)
		after := store.RefBase(shard) + int64(p.gen.choose(5))
		u, err := p.real.Unfinished(p.ctx, shard, after, t, limit)
		wantU, wantErr := p.model.Unfinished(p.ctx, shard, after, t, limit)
		p.same("unfinished runs", u, err, wantU, wantErr)
		due, err := p.real.Due(p.ctx, shard, t, limit)
		wantDue, wantErr := p.model.Due(p.ctx, shard, t, limit)
		p.same("due runs", due, err, wantDue, wantErr)
		some, err := p.real.Runs(p.ctx, shard, after, limit)
		wantSome, wantErr := p.model.Runs(p.ctx, shard, after, limit)
		p.same("runs of a shard", some, err, wantSome, wantErr)
		place := store.EndedPlace{Ended: at(p.gen.choose(p.gen.ms + 5)), Ref: after}
		ended, err := p.real.Ended(p.ctx, shard, t, place, limit)
		wantEnded, wantErr := p.model.Ended(p.ctx, shard, t, place, limit)
		p.same("ended runs", ended, err, wantEnded, wantErr)
		expired, err := p.real.Expired(p.ctx, shard, t, limit)
		wantExpired, wantErr := p.model.Expired(p.ctx, shard, t, limit)
		p.same("expired tombstones", expired, err, wantExpired, wantErr)
		from := pick(p.gen.choose, "", "a", "a/b")
		locks, err := p.real.Locks(p.ctx, shard, from, limit)
		wantLocks, wantErr := p.model.Locks(p.ctx, shard, from, limit)
		p.same("locks", locks, err, wantLocks, wantErr)
		lock, err := p.real.Lock(p.ctx, shard, from)
		wantLock, wantErr := p.model.Lock(p.ctx, shard, from)
		p.same("a lock", lock, err, wantLock, wantErr)
	}
	got, err := dump(p.ctx, p.real)
	want, wantErr := dump(p.ctx, p.model)
	p.same("everything", got, err, want, wantErr)
}
