package engine

import (
	"time"

	"github.com/ringmaster-dev/ringmaster/protocol"
)

// holding is how far a shard's ownership has come, for the dispatcher.
type holding uint8

const (
	holdingNone   holding = iota
	holdingFolded         // its runs are being folded: their tasks come into limbo, and stay there
	holdingServed         // its tasks may leave limbo, and new ones are taken
)

// own has the dispatcher take the tasks of a shard that is being recovered.
func (d *dispatcher) own(shard uint32, epoch uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.holdings[shard], d.epochs[shard] = holdingFolded, epoch
}

// serve has the tasks of a recovered shard leave limbo, once the workers of
// before have reported, or the grace is over.
func (d *dispatcher) serve(shard uint32, before map[string]string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.holdings[shard] = holdingServed
	after := d.eng.announced.Load()
	for worker, service := range before {
		if d.known.waiting[service] == nil {
			d.known.waiting[service] = map[string]*report{}
		}
		d.known.waiting[service][worker] = &report{after: after, left: reports}
	}
	d.reclaimed(shard)
	d.limboEnds = max(d.limboEnds, d.eng.clock.since()+d.eng.cfg.RecoveryGrace)
}

// disown forgets all tasks of a shard: they are no longer this engine's, also
// those that are at workers.
func (d *dispatcher) disown(shard uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.holdings, shard)
	delete(d.epochs, shard)
	ours := func(id protocol.TaskID) bool { return shardIndex(id.Ref) == shard }
	for id := range d.limbo {
		if ours(id) {
			delete(d.limbo, id)
		}
	}
	d.discardTurns(ours)
	for _, c := range d.classes {
		c.discard(&c.waiting, ours)
		for _, q := range c.strict {
			c.discard(q, ours)
		}
	}
	for _, p := range d.peers {
		for id, s := range p.out {
			if ours(id) {
				delete(p.out, id)
				s.dropped = true
			}
		}
	}
	for _, p := range d.peers {
		d.refill(p)
	}
	d.wakeSender()
}

// discard takes entries out of one of the class's queues.
func (c *class) discard(q *backlog, which func(protocol.TaskID) bool) {
	var kept []entry
	q.drain(func(e entry) {
		if !which(e.id) {
			kept = append(kept, e)
			return
		}
		if e.task != nil {
			c.whole--
		}
	})
	for _, e := range kept {
		q.push(e)
	}
}

// retrySoon is when to repeat what was asked of the wrong orchestrator.
const retrySoon = 500 * time.Millisecond
