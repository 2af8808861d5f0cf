package spread

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ringmaster-dev/ringmaster/store"
)

const (
	// mover is the owner of a shard that is being moved.
	mover = "shard move"
	// movedMark is a lock's row that says, in the store to which a shard is
	// moved, that all of it is there. It is written under the shard's epoch, so that
	// of two moves one comes to that.
	movedMark = "\x00moved"
	// movePage is the number of runs that are copied or removed by one commit.
	movePage = 100
)

// Place is where a shard is.
type Place struct {
	Shard    uint32
	Database int // its number, from 1
	// To is the database to which it is being moved, From the one in which what was
	// moved is still being removed; 0 where that is not so.
	To, From int
	Owner    string // who acquired it last; empty: nobody yet
	Epoch    uint64
}

// Places tells where all shards are.
func (s *Store) Places(ctx context.Context) ([]Place, error) {
	out := make([]Place, s.shards)
	for shard := range s.shards {
		p, err := s.places.read(ctx, shard)
		if err != nil {
			return nil, fmt.Errorf("spread: %w", err)
		}
		at, err := s.index(p.At)
		if err != nil {
			return nil, err
		}
		out[shard] = Place{Shard: shard, Database: p.At, To: p.To, From: p.From}
		if out[shard].Owner, out[shard].Epoch, err = s.stores[at].Owner(ctx, shard); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Move moves a shard to the database with a number, from 1. Its owner, if it has one,
// loses it at once; whoever acquires it after that goes on where it is then. A move that was cut short is
// taken up by the next one to the same database.
func (s *Store) Move(ctx context.Context, shard uint32, to int) error {
	if shard >= s.shards {
		return fmt.Errorf("spread: moving shard %d: there are %d", shard, s.shards)
	}
	if _, err := s.index(to); err != nil {
		return fmt.Errorf("spread: moving shard %d to database %d: there are %d", shard, to, len(s.stores))
	}
	if err := s.move(ctx, shard, to); err != nil {
		return fmt.Errorf("spread: moving shard %d to database %d: %w", shard, to, err)
	}
	return nil
}

func (s *Store) move(ctx context.Context, shard uint32, to int) error {
	p, err := s.places.settle(ctx, shard)
	if err == nil && p.From != 0 {
		p, err = s.clear(ctx, shard, p) // the rest of an earlier move
	}
	switch {
	case err != nil:
		return err
	case p.At == to && p.To == 0:
		return nil
	case p.To != 0 && p.To != to:
		return fmt.Errorf("%w to database %d: let that end first", ErrMoving, p.To)
	}
	if err := s.step(ctx, shard, place{At: p.At, To: to}, "noted that it moves"); err != nil {
		return err
	}
	if err := s.transfer(ctx, shard, p.At, to); err != nil {
		return err
	}
	if err := s.step(ctx, shard, place{At: to, From: p.At}, "noted that it has moved"); err != nil {
		return err
	}
	// Whoever reads goes by what was noted a moment ago.
	select {
	case <-time.After(s.grace):
	case <-ctx.Done():
		return ctx.Err()
	}
	_, err = s.clear(ctx, shard, place{At: to, From: p.At})
	return err
}

// step notes where a shard is.
func (s *Store) step(ctx context.Context, shard uint32, p place, what string) error {
	if err := s.places.write(ctx, shard, p); err != nil {
		return err
	}
	return s.hook(what)
}

// clear removes what a shard has left behind.
func (s *Store) clear(ctx context.Context, shard uint32, p place) (place, error) {
	epoch, _, err := s.stores[p.From-1].Acquire(ctx, shard, mover)
	if err == nil {
		err = wipe(ctx, s.stores[p.From-1], shard, epoch, s.hook)
	}
	if err != nil {
		return p, fmt.Errorf("removing what was moved: %w", err)
	}
	p.From = 0
	return p, s.step(ctx, shard, p, "noted that nothing is left")
}

// transfer copies a shard, and returns once all of it is in the other store and
// its owner of before can commit nothing more.
func (s *Store) transfer(ctx context.Context, shard uint32, from, to int) error {
	source, target := s.stores[from-1], s.stores[to-1]
	old, last, err := source.Acquire(ctx, shard, mover)
	if err != nil {
		return err
	}
	var epoch uint64
	for epoch <= old { // they grow from one owner to the next, wherever the shard is
		if epoch, _, err = target.Acquire(ctx, shard, mover); err != nil {
			return err
		}
	}
	if err := s.hook("acquired both"); err != nil {
		return err
	}
	_, err = target.Lock(ctx, shard, movedMark)
	if err == nil {
		return nil // an earlier move came this far
	}
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if err := wipe(ctx, target, shard, epoch, s.hook); err != nil {
		return fmt.Errorf("removing an earlier copy: %w", err)
	}
	c := copier{s: s, shard: shard, epoch: epoch, source: source, target: target}
	for _, f := range []func(context.Context) error{c.runs, c.locks, c.tombstones, func(ctx context.Context) error { return c.last(ctx, last) }} {
		if err := f(ctx); err != nil {
			return fmt.Errorf("copying: %w", err)
		}
	}
	if owner, now, err := source.Owner(ctx, shard); err != nil || owner != mover || now != old {
		return errors.Join(errors.New("another has acquired the shard meanwhile"), err)
	}
	return c.commit(store.Part{Locks: []store.Lock{{Name: movedMark, Data: []byte{1}}}}, "marked the copy as whole")
}

// copier copies what a shard has.
type copier struct {
	s              *Store
	shard          uint32
	epoch          uint64
	source, target store.Store
	highest        int64 // number of a run that was copied
}

// commit writes a part to the target.
func (c *copier) commit(p store.Part, what string) error {
	p.Shard, p.Epoch = c.shard, c.epoch
	if err := commit(c.target, p); err != nil {
		return err
	}
	return c.s.hook(what)
}

func commit(to store.Store, p store.Part) error {
	errs, err := to.Commit([]store.Part{p})
	return errors.Join(append(errs, err)...)
}

func (c *copier) runs(ctx context.Context) error {
	for after := int64(0); ; {
		page, err := c.source.Runs(ctx, c.shard, after, movePage)
		if err != nil || len(page) == 0 {
			return err
		}
		refs := make([]int64, len(page))
		for i := range page {
			refs[i] = page[i].Ref
		}
		whole, err := c.source.Load(ctx, refs)
		if err != nil {
			return err
		}
		var p store.Part
		for i := range whole {
			p.Create = append(p.Create, whole[i].Run)
			p.Append = append(p.Append, whole[i].History...)
		}
		if err := c.commit(p, "copied runs"); err != nil {
			return err
		}
		after = refs[len(refs)-1]
		c.highest = after
	}
}

func (c *copier) locks(ctx context.Context) error {
	for after := movedMark; ; {
		page, err := c.source.Locks(ctx, c.shard, after, movePage)
		if err != nil || len(page) == 0 {
			return err
		}
		if err := c.commit(store.Part{Locks: page}, "copied locks"); err != nil {
			return err
		}
		after = page[len(page)-1].Name
	}
}

func (c *copier) tombstones(ctx context.Context) error {
	return tombstones(ctx, c.source, c.shard, func(page []store.Tombstone) error {
		return c.commit(store.Part{Bury: page}, "copied tombstones")
	})
}

// tombstones calls f with those of a shard, page by page.
func tombstones(ctx context.Context, of store.Store, shard uint32, f func([]store.Tombstone) error) error {
	for after := ""; ; {
		page, err := of.Buried(ctx, after, 10*movePage)
		if err != nil || len(page) == 0 {
			return err
		}
		after = page[len(page)-1].ID
		page = slices.DeleteFunc(page, func(t store.Tombstone) bool { return t.Shard != shard })
		if len(page) == 0 {
			continue
		}
		if err := f(page); err != nil {
			return err
		}
	}
}

// last has the target know the highest number that the shard ever gave, if that of
// the run which had it is gone: by a run that comes and goes.
func (c *copier) last(ctx context.Context, last int64) error {
	if last <= max(c.highest, store.RefBase(c.shard)) {
		return nil
	}
	known, err := c.target.Workflows(ctx)
	if err != nil || len(known) == 0 {
		return errors.Join(err, errors.New("there were runs, and no workflow is registered"))
	}
	now := time.Now()
	r := store.Run{Ref: last, ID: fmt.Sprintf("\u2205%d", last), Shard: c.shard, Workflow: known[0].Name, Version: known[0].Version,
		Status: store.StatusAborted, Created: now, Updated: now, Ended: now}
	if err := c.commit(store.Part{Create: []store.Run{r}}, "kept the last number"); err != nil {
		return err
	}
	return c.commit(store.Part{Remove: []int64{last}}, "kept the last number")
}

// wipe removes all that a store has of a shard.
func wipe(ctx context.Context, st store.Store, shard uint32, epoch uint64, hook func(string) error) error {
	do := func(p store.Part) error {
		p.Shard, p.Epoch = shard, epoch
		if err := commit(st, p); err != nil {
			return err
		}
		return hook("removed some")
	}
	for {
		page, err := st.Runs(ctx, shard, 0, movePage)
		if err != nil {
			return err
		}
		if len(page) == 0 {
			break
		}
		var end, remove store.Part
		for i := range page {
			r := &page[i]
			if !r.Status.Final() { // it goes on elsewhere, and only what has ended is removed
				end.Update = append(end.Update, store.Update{Ref: r.Ref, Status: store.StatusAborted, Updated: r.Updated, Ended: r.Updated})
			}
			remove.Remove = append(remove.Remove, r.Ref)
		}
		if err := do(end); err != nil {
			return err
		}
		if err := do(remove); err != nil {
			return err
		}
	}
	err := tombstones(ctx, st, shard, func(page []store.Tombstone) error {
		var p store.Part
		for i := range page {
			p.Forget = append(p.Forget, page[i].ID)
		}
		return do(p)
	})
	if err != nil {
		return err
	}
	for {
		page, err := st.Locks(ctx, shard, "", movePage)
		if err != nil || len(page) == 0 {
			return err
		}
		for i := range page {
			page[i].Data = nil
		}
		if err := do(store.Part{Locks: page}); err != nil {
			return err
		}
	}
}
