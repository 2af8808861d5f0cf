package spread_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/store/spread"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
	"github.com/ringmaster-dev/ringmaster/store/storetest"
)

// files are the databases of one store.
type files []string

func newFiles(t testing.TB, n int) files {
	dir := t.TempDir()
	var f files
	for i := range n {
		f = append(f, filepath.Join(dir, fmt.Sprintf("%d.db", i+1)))
	}
	return f
}

func (f files) Open(ctx context.Context, shards uint32) (store.Store, error) {
	s, err := f.open(ctx, shards)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (f files) open(ctx context.Context, shards uint32) (*spread.Store, error) {
	var stores []store.Store
	var err error
	for _, path := range f {
		var s *sqlite.Store
		if s, err = sqlite.Open(ctx, sqlite.Config{Path: path, Shards: shards}); err != nil {
			break
		}
		stores = append(stores, s)
	}
	var s *spread.Store
	if err == nil {
		s, err = spread.New(ctx, spread.Config{Stores: stores})
	}
	if err != nil {
		for _, s := range stores {
			err = errors.Join(err, s.Close())
		}
		return nil, err
	}
	return s, nil
}

func TestStorePassesTheSuite(t *testing.T) {
	storetest.Run(t, storetest.Harness{
		New: func(t testing.TB) storetest.Database { return newFiles(t, 2) }, Exclusive: true, Apart: true,
	})
}

// S13, S10: a shard is moved while it has everything, and every point at which the move may
// be cut short is tried. It ends up whole in the other database, wherever it was cut.
func TestAShardThatIsMovedIsWhole(t *testing.T) {
	for cut := 1; ; cut++ {
		f := newFiles(t, 2)
		s, err := f.open(t.Context(), storetest.ScriptShards)
		if err != nil {
			t.Fatal(err)
		}
		const seed, commits = 5, 12
		script := storetest.NewScript(seed)
		if err := script.Begin(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		for range commits {
			if err := script.Commit(s); err != nil {
				t.Fatal(err)
			}
		}
		before, err := s.Places(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		spread.Hook(s, func(string) error {
			if n++; n == cut {
				return errCut
			}
			return nil
		})
		err = s.Move(t.Context(), 0, 2)
		cutShort := errors.Is(err, errCut)
		if err != nil && !cutShort {
			t.Fatal(err)
		}
		if cutShort {
			// Whoever had the shard has lost it, unless nothing has been done yet.
			errs, err := s.Commit([]store.Part{{Shard: 0, Epoch: before[0].Epoch, Locks: []store.Lock{{Name: "none"}}}})
			if err != nil || n > 1 && (errs == nil || !errors.Is(errs[0], store.ErrStaleEpoch)) {
				t.Errorf("cut %d: a commit under the epoch before: %v, %v", cut, errs, err)
			}
			if _, _, err := s.Acquire(t.Context(), 0, "another"); before[0].To == 0 && err == nil && n < 5 {
				t.Errorf("cut %d: the shard was acquired in the middle of the move", cut)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if s, err = f.open(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			spread.Hook(s, func(string) error { return nil })
			if err := s.Move(t.Context(), 0, 2); err != nil {
				t.Fatalf("cut %d: moving again: %v", cut, err)
			}
		}
		places, err := s.Places(t.Context())
		if err != nil || places[0].Database != 2 || places[0].To != 0 || places[0].From != 0 {
			t.Errorf("cut %d: the shard is at %+v, %v", cut, places[0], err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		left, err := sqlite.Open(t.Context(), sqlite.Config{Path: f[0]})
		if err != nil {
			t.Fatal(err)
		}
		if runs, err := left.Runs(t.Context(), 0, 0, 10); err != nil || len(runs) != 0 {
			t.Errorf("cut %d: %d runs are left behind, %v", cut, len(runs), err)
		}
		if err := left.Close(); err != nil {
			t.Fatal(err)
		}
		storetest.Verify(t, f, seed, commits, commits)
		if !cutShort {
			t.Logf("%d points", cut-1)
			return
		}
	}
}

var errCut = errors.New("cut short")

// late is a store that something happens to before each acquisition.
type late struct {
	store.Store
	before func()
}

func (l *late) Acquire(ctx context.Context, shard uint32, owner string) (uint64, int64, error) {
	l.before()
	return l.Store.Acquire(ctx, shard, owner)
}

// S14: who reads where a shard is and acquires it there when it has moved away does not
// have it.
func TestAShardIsNotAcquiredWhereItHasBeen(t *testing.T) {
	var stores []store.Store
	for _, path := range newFiles(t, 2) {
		s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path, Shards: 4})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		stores = append(stores, s)
	}
	open := func(stores ...store.Store) *spread.Store {
		s, err := spread.New(t.Context(), spread.Config{Stores: stores})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	mover := open(stores...)
	spread.Hook(mover, func(string) error { return nil })
	first := &late{Store: stores[0], before: func() {}}
	owner := open(first, stores[1])
	if _, _, err := owner.Acquire(t.Context(), 0, "owner"); err != nil {
		t.Fatal(err)
	}
	first.before = func() {
		first.before = func() {}
		if err := mover.Move(t.Context(), 0, 2); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := owner.Acquire(t.Context(), 0, "owner"); !errors.Is(err, spread.ErrMoving) {
		t.Errorf("acquiring where the shard was: %v", err)
	}
	epoch, _, err := owner.Acquire(t.Context(), 0, "owner")
	if err != nil {
		t.Fatal(err)
	}
	if who, now, err := stores[1].Owner(t.Context(), 0); err != nil || who != "owner" || now != epoch {
		t.Errorf("the owner where it is: %s, %d, %v", who, now, err)
	}
	// And of the databases in another order nothing is made.
	if _, err := spread.New(t.Context(), spread.Config{Stores: []store.Store{stores[1], stores[0]}}); err == nil {
		t.Error("databases were taken in another order")
	}
}
