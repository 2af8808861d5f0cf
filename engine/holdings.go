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
func (d *dispatcher) own(shard uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.holdings[shard] = holdingFolded
}

// serve has the tasks of a recovered shard leave limbo, once the workers of
// before have reported, or the grace is over.
func (d *dispatcher) serve(shard uint32, before map[string]string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.holdings[shard] = holdingServed
	for worker, service := range before {
		if d.known.waiting[service] == nil {
			d.known.waiting[service] = map[string]*report{}
		}
		d.known.waiting[service][worker] = &report{left: reports}
	}
	d.limboEnds = max(d.limboEnds, d.eng.clock.since()+d.eng.cfg.RecoveryGrace)
}

// disown forgets all tasks of a shard: they are no longer this engine's, also
// those that are at workers.
func (d *dispatcher) disown(shard uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.holdings, shard)
	ours := func(id protocol.TaskID) bool { return shardIndex(id.Ref) == shard }
	for id, l := range d.limbo {
		if ours(id) {
			delete(d.limbo, id)
			d.left(&l.entry)
		}
	}
	var over []*lease
	for _, l := range d.leases {
		kept := l.waiting[:0]
		for _, o := range l.waiting {
			if ours(o.id) {
				o.class.behind--
			} else {
				kept = append(kept, o)
			}
		}
		clear(l.waiting[len(kept):])
		l.waiting = kept
		over = append(over, l)
	}
	for _, c := range d.classes {
		c.discard(&c.waiting, ours, d.left)
		for _, q := range c.strict {
			c.discard(q, ours, d.left)
		}
	}
	for _, p := range d.peers {
		for id, s := range p.out {
			if ours(id) {
				delete(p.out, id)
				s.dropped = true
				d.left(&s.entry)
			}
		}
	}
	for _, l := range over {
		d.pass(l)
	}
	for _, p := range d.peers {
		d.refill(p)
	}
	d.wakeSender()
}

// discard takes entries out of one of the class's queues.
func (c *class) discard(q *backlog, which func(protocol.TaskID) bool, left func(*entry)) {
	var kept []entry
	q.drain(func(e entry) {
		if !which(e.id) {
			kept = append(kept, e)
			return
		}
		if e.task != nil {
			c.whole--
		}
		left(&e)
	})
	for _, e := range kept {
		q.push(e)
	}
}

// retrySoon is when to repeat what was asked of the wrong orchestrator.
const retrySoon = 500 * time.Millisecond
