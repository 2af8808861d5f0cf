package engine

import (
	"iter"
	"sync/atomic"

	"github.com/ringmaster-dev/ringmaster/store"
)

// shardTable is which of the store's shards are owned here. It is safe for
// concurrent use.
type shardTable struct{ slots []atomic.Pointer[shard] }

func newShardTable(n uint32) *shardTable {
	return &shardTable{slots: make([]atomic.Pointer[shard], n)}
}

// count is the number of shards of the store.
func (t *shardTable) count() uint32 { return uint32(len(t.slots)) }

// get returns a shard if it is owned here, or nil.
func (t *shardTable) get(i uint32) *shard {
	if int(i) >= len(t.slots) {
		return nil
	}
	return t.slots[i].Load()
}

func (t *shardTable) add(s *shard) { t.slots[s.id].Store(s) }

// remove takes a shard out, if it is still the one that is in.
func (t *shardTable) remove(s *shard) bool { return t.slots[s.id].CompareAndSwap(s, nil) }

// all yields the shards that are owned here.
func (t *shardTable) all() iter.Seq[*shard] {
	return func(yield func(*shard) bool) {
		for i := range t.slots {
			if s := t.slots[i].Load(); s != nil && !yield(s) {
				return
			}
		}
	}
}

// shardIndex is the shard of a run's number (see store.RefBase).
func shardIndex(ref int64) uint32 { return uint32(ref >> 40) }

// shardOf is the shard of whatever is found by a name: a run by its id, a lock or
// a lease by its name.
func (e *Engine) shardOf(name string) uint32 { return store.ShardOf(name, e.shards.count()) }

// post hands a message to a shard that is owned here. It returns false if it is
// not: then nothing will come of the message.
func (e *Engine) post(i uint32, m message) bool {
	s := e.shards.get(i)
	return s != nil && s.inbox.put(m)
}

// tell posts what a run is to hear. If its shard has gone elsewhere, its owner
// finds out by itself.
func (e *Engine) tell(ref int64, m message) { e.post(shardIndex(ref), m) }

// send hands a message to a shard, wherever its owner is. It may be lost on the
// way: whoever waits for an answer asks again.
func (e *Engine) send(i uint32, m message) {
	if !e.post(i, m) && e.cfg.Leases != nil {
		e.outgoing.put(letterOf(i, &m))
	}
}

// ownerChanged has the shards here repeat what they have asked a shard that has
// a new owner.
func (e *Engine) ownerChanged(shard uint32, epoch uint64) {
	e.dispatcher.keeperIs(shard, epoch)
	for s := range e.shards.all() {
		s.inbox.put(message{moved: &shard})
	}
}

// Shards lists the shards that this engine owns.
func (e *Engine) Shards() []uint32 {
	var list []uint32
	for s := range e.shards.all() {
		list = append(list, s.id)
	}
	return list
}
