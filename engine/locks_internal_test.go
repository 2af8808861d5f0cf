package engine

import (
	"testing"

	"github.com/ringmaster-dev/ringmaster/broker/memory"
	"github.com/ringmaster-dev/ringmaster/engine/lockqueue"
	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/store/storetest"
)

// lockShard is a shard alone, on a store that holds a lock's row.
func lockShard(t *testing.T, row store.Lock) *shard {
	t.Helper()
	b, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	m := storetest.NewModel(1)
	epoch, _, err := m.Acquire(t.Context(), 0, "test")
	if err != nil {
		t.Fatal(err)
	}
	if errs, err := m.Commit([]store.Part{{Epoch: epoch, Locks: []store.Lock{row}}}); err != nil || errs != nil {
		t.Fatal(errs, err)
	}
	e, err := New(Config{Store: m, Broker: b})
	if err != nil {
		t.Fatal(err)
	}
	adopt(e, newShard(e, 0, epoch, 0))
	if err := e.shards.get(0).recoverLocks(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e.shards.get(0)
}

// deliver hands messages between shards until there are none.
func (s *shard) deliver(t *testing.T) {
	t.Helper()
	for range 10 {
		for _, m := range s.inbox.take(nil) {
			if err := s.handle(&m); err != nil {
				t.Fatal(err)
			}
		}
		for _, m := range s.effects.locks {
			s.eng.passOn(m)
		}
		s.effects.locks = nil
	}
}

// A holder and a waiter whose runs are not there (their ends, and their farewells,
// were lost) are found at the start.
func TestALockOfRunsThatAreGoneIsFreed(t *testing.T) {
	var q lockqueue.Queue
	token := uint64(1<<62 - 1)
	next := func() uint64 { token++; return token }
	q.Ask(lockqueue.Entry{Ref: 7, RunID: "gone"}, 10, next)
	q.Ask(lockqueue.Entry{Ref: 8, RunID: "gone too"}, 10, next)
	s := lockShard(t, store.Lock{Name: "a", Data: q.Append(nil)})
	if s.locks.next() <= token {
		t.Errorf("a token below one that was given out before")
	}
	s.deliver(t)
	if len(s.locks.queues) != 0 || !s.locks.dirty["a"] || s.eng.locksHeld.Load() != 0 || s.eng.locksWaiting.Load() != 0 {
		t.Errorf("%d locks are held", len(s.locks.queues))
	}
	s.lockRows()
	if len(s.part.Locks) != 1 || len(s.part.Locks[0].Data) != 0 {
		t.Errorf("written: %v", s.part.Locks)
	}
}

// A lock whose row cannot be read is left as it is; who wants it is told.
func TestALockThatCannotBeReadIsLeftAlone(t *testing.T) {
	s := lockShard(t, store.Lock{Name: "a", Data: []byte("nonsense")})
	s.lockAsked(&lockMessage{verb: lockAsk, name: "a", ref: 7, runID: "r"})
	if len(s.effects.locks) != 1 || s.effects.locks[0].verb != lockRefused {
		t.Errorf("answered with %+v", s.effects.locks)
	}
	s.lockRows()
	if len(s.part.Locks) != 0 {
		t.Errorf("written: %v", s.part.Locks)
	}
	page, err := s.eng.lock(t.Context(), "a")
	if page != nil || err != nil {
		t.Errorf("shown: %v, %v", page, err)
	}
}
