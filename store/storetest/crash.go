package storetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ringmaster-dev/ringmaster/store"
)

// Script is a sequence of commits that are the same whenever they are made,
// each with a mark of its number, so that what a store holds tells how many of
// them it has seen: see [Verify]. It is for one goroutine.
type Script struct {
	gen *generator
	n   int
}

// ScriptShards is the number of shards of a script's store.
const ScriptShards = rigShards

// markRef is the run whose records number the commits.
const markRef = 1

// NewScript makes the script of a seed.
func NewScript(seed uint64) *Script {
	rng := rand.New(rand.NewPCG(seed, 1))
	s := &Script{gen: newGenerator(rng.IntN, rigShards, false)}
	s.gen.next[0] = markRef
	return s
}

// Begin prepares an empty store, of [ScriptShards] shards, for a script.
func (s *Script) Begin(ctx context.Context, to store.Store) error {
	for _, w := range [][2]string{{flow, flowV1}, {flow, flowV2}, {pay, payV1}} {
		if _, _, err := to.PutWorkflow(ctx, workflowInfo(w[0], w[1]), definition(w[0], w[1])); err != nil {
			return err
		}
	}
	return s.acquire(ctx, to)
}

// acquire has the script go on under new epochs of a store's shards.
func (s *Script) acquire(ctx context.Context, to store.Store) error {
	for shard := range uint32(rigShards) {
		epoch, _, err := to.Acquire(ctx, shard, "owner")
		if err != nil {
			return err
		}
		s.gen.epochs[shard] = epoch
	}
	return nil
}

// next makes the script's next commit.
func (s *Script) next() []store.Part {
	parts := s.gen.commit()
	s.n++
	mark := store.Part{Shard: 0, Epoch: s.gen.epochs[0], Append: []store.Record{{Ref: markRef, Seq: uint64(s.n), Data: []byte{1}}}}
	if s.n == 1 {
		mark.Create = []store.Run{{Ref: markRef, ID: "mark", Workflow: flow, Version: flowV1, Status: store.StatusRunning,
			Created: at(0), Updated: at(0)}}
	}
	return append(parts, mark)
}

// Commit makes the script's next commit on a store.
func (s *Script) Commit(to store.Store) error {
	errs, err := to.Commit(s.next())
	if err == nil && errs != nil {
		err = fmt.Errorf("parts failed: %v", errs)
	}
	return err
}

// Verify opens a database and checks that it holds exactly the first n commits
// of a seed's script, for some n from low to high, and that it takes more.
func Verify(t testing.TB, db Database, seed uint64, low, high int) {
	t.Helper()
	ctx := context.Background()
	s, err := db.Open(ctx, rigShards)
	if err != nil {
		t.Fatalf("opening after a crash: %v", err)
	}
	defer s.Close()
	marks, err := s.History(ctx, markRef)
	if err != nil {
		t.Fatalf("reading after a crash: %v", err)
	}
	n := len(marks)
	if n < low || n > high {
		t.Fatalf("after a crash %d commits are there; at least %d were acknowledged and at most %d begun", n, low, high)
	}
	if n == 0 {
		return // even what came before the first commit may be gone
	}
	model, again := NewModel(rigShards), NewScript(seed)
	if err := again.Begin(ctx, model); err != nil {
		t.Fatal(err)
	}
	for range n {
		if err := again.Commit(model); err != nil {
			t.Fatal(err)
		}
	}
	compare(t, s, model, "after a crash")
	if err := again.acquire(ctx, s); err != nil {
		t.Fatal(err)
	}
	for shard, epoch := range again.gen.epochs {
		model.epochs[shard] = epoch
	}
	for range 3 {
		parts := again.next()
		for _, to := range []store.Store{s, model} {
			if errs, err := to.Commit(parts); err != nil || errs != nil {
				t.Fatalf("committing after a crash: %v, %v", errs, err)
			}
		}
	}
	compare(t, s, model, "after going on")
}

func compare(t testing.TB, s, model store.Store, when string) {
	t.Helper()
	got, err := dump(context.Background(), s)
	if err != nil {
		t.Fatalf("reading %s: %v", when, err)
	}
	want, err := dump(context.Background(), model)
	if err != nil {
		t.Fatal(err)
	}
	if d := difference(got, want); d != "" {
		t.Fatalf("%s: %s", when, d)
	}
}

// Crashes runs the crash tests alone, which are part of [Run].
func Crashes(t *testing.T, h Harness) {
	t.Run("after each commit what was acknowledged is there", func(t *testing.T) { crashAfterCommits(t, h) })
	t.Run("in the middle of commits what was acknowledged is there", func(t *testing.T) { crashAmidCommits(t, h) })
	t.Run("with a torn log whole commits are there", func(t *testing.T) { crashTorn(t, h) })
}

// started opens a new database and begins a script on it.
func started(t testing.TB, h Harness, seed uint64) (Database, store.Store, *Script) {
	t.Helper()
	db := h.New(t)
	s, err := db.Open(context.Background(), rigShards)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	sc := NewScript(seed)
	if err := sc.Begin(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	return db, s, sc
}

func crashAfterCommits(t *testing.T, h Harness) {
	const seed = 11
	db, s, sc := started(t, h, seed)
	for n := 1; n <= 12; n++ {
		if err := sc.Commit(s); err != nil {
			t.Fatal(err)
		}
		Verify(t, h.Crash(t, db, 0), seed, n, n)
	}
}

func crashAmidCommits(t *testing.T, h Harness) {
	const seed = 12
	db, s, sc := started(t, h, seed)
	for range 8 {
		// Commits go on while the database is copied, from some before to some
		// after, and then rest, so that the machine is free for the comparison.
		var begun, done atomic.Int64
		begun.Store(int64(sc.n))
		done.Store(int64(sc.n))
		copied := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for more := 3; more > 0; {
				select {
				case <-copied:
					more--
				default:
				}
				begun.Add(1)
				if err := sc.Commit(s); err != nil {
					t.Errorf("committing: %v", err)
					return
				}
				done.Add(1)
			}
		})
		for first := done.Load(); done.Load() < first+3 && !t.Failed(); {
			runtime.Gosched()
		}
		low := done.Load()
		left := h.Crash(t, db, 0)
		high := begun.Load()
		close(copied)
		wg.Wait()
		if t.Failed() {
			return
		}
		Verify(t, left, seed, int(low), int(high))
	}
}

func crashTorn(t *testing.T, h Harness) {
	const seed = 13
	db, s, sc := started(t, h, seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	for n := 1; n <= 10; n++ {
		if err := sc.Commit(s); err != nil {
			t.Fatal(err)
		}
		// A cut may take commits with it, as a disk that lies may, but never
		// half a one.
		Verify(t, h.Crash(t, db, 1+rng.Int64N(40_000)), seed, 0, n)
	}
}
