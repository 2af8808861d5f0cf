package engine

import (
	"slices"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

// lease is what a routing key of a serial workflow has, as far as tasks of the
// shards here are concerned. Whose turn it is, is decided by the shard of the
// lease's name (see keeper), wherever that is; the dispatcher asks it for each
// task, places a task when it has been told that it may, and says when the task
// is over. It is guarded by the dispatcher's mutex.
type lease struct {
	name string
	// held are the tasks that may be at a worker, or go to one: those whose turn
	// it is, and recovered ones of which that is not known.
	held   map[protocol.TaskID]*hold
	asking []offer // in the order in which they came; without their tasks
}

// hold is a task's turn.
type hold struct {
	token uint64 // of its first sending; 0: a recovered task's, which is not known
	sent  uint64 // how often
}

// leaseName is the name of the lease that a run's tasks need; empty if they need
// none. Their tokens travel under it.
func leaseName(r *run) string {
	if !r.wf.Serial() {
		return ""
	}
	return definitions.SerialPrefix + r.wf.Name() + "/" + r.state.RoutingKey()
}

// enter takes an offer of a serial workflow, and asks for its turn.
func (d *dispatcher) enter(o offer) {
	d.wantTurn(o, turnMessage{verb: turnAsk, id: o.id, scheduled: d.eng.clock.now().UnixMilli()})
}

func (d *dispatcher) wantTurn(o offer, m turnMessage) {
	l := d.leaseOf(o.serial)
	if o.lease = l; len(l.held)+len(l.asking) > 0 {
		o.task = nil // it is built again when its turn comes
	}
	o.scheduled = m.scheduled
	o.class.behind++
	l.asking = append(l.asking, o)
	d.toKeeper(l, m)
}

// toKeeper tells the shard that decides on a lease something of a task.
func (d *dispatcher) toKeeper(l *lease, m turnMessage) {
	epoch, ok := d.epochs[shardIndex(m.id.Ref)]
	if !ok {
		return // the task's shard has gone
	}
	m.name, m.of, m.epoch = l.name, shardIndex(m.id.Ref), epoch
	d.eng.send(d.eng.shardOf(l.name), message{turn: &m})
}

func (d *dispatcher) leaseOf(name string) *lease {
	l := d.leases[name]
	if l == nil {
		l = &lease{name: name, held: map[protocol.TaskID]*hold{}}
		d.leases[name] = l
	}
	return l
}

// keeperIs takes in the epoch under which a shard has an owner, and leases a
// keeper.
func (d *dispatcher) keeperIs(shard uint32, epoch uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.keepers[shard] = max(d.keepers[shard], epoch)
}

// granted takes in that it is a task's turn.
func (d *dispatcher) granted(m *turnMessage) {
	d.mu.Lock()
	defer d.mu.Unlock()
	defer d.wakeSender()
	l := d.leases[m.name]
	if d.holdings[shardIndex(m.id.Ref)] != holdingServed || l != nil && l.held[m.id] != nil || m.epoch < d.keepers[m.of] {
		return // a keeper that has been superseded may not know
	}
	o, ok := d.stopAsking(l, m.id)
	if !ok {
		// It is over, and that was lost on the way.
		d.toKeeper(d.leaseOf(m.name), turnMessage{verb: turnLeave, id: m.id})
		d.forgetLease(d.leases[m.name])
		return
	}
	l.held[m.id] = &hold{token: m.token}
	d.place(o.class, o.entry)
}

// waits takes in how many go before a task.
func (d *dispatcher) waits(m *turnMessage) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l := d.leases[m.name]; l != nil {
		if i := slices.IndexFunc(l.asking, func(o offer) bool { return o.id == m.id }); i >= 0 {
			l.asking[i].ahead = m.ahead
		}
	}
}

// stopAsking takes a task out of those that wait for their turn.
func (d *dispatcher) stopAsking(l *lease, id protocol.TaskID) (offer, bool) {
	if l == nil {
		return offer{}, false
	}
	i := slices.IndexFunc(l.asking, func(o offer) bool { return o.id == id })
	if i < 0 {
		return offer{}, false
	}
	o := l.asking[i]
	l.asking = slices.Delete(l.asking, i, i+1)
	o.class.behind--
	return o, true
}

// left has the next task of a key go, now that e is over: answered, given up,
// taken back.
func (d *dispatcher) left(e *entry) {
	l := e.lease
	if l == nil || l.held[e.id] == nil {
		return
	}
	delete(l.held, e.id)
	d.toKeeper(l, turnMessage{verb: turnLeave, id: e.id})
	d.forgetLease(l)
}

func (d *dispatcher) forgetLease(l *lease) {
	if len(l.held)+len(l.asking) == 0 && d.leases[l.name] == l {
		delete(d.leases, l.name)
	}
}

// unlease takes a task out of the queue of its key.
func (d *dispatcher) unlease(name string, id protocol.TaskID) (entry, bool) {
	l := d.leases[name]
	o, ok := d.stopAsking(l, id)
	if !ok {
		return entry{}, false
	}
	d.toKeeper(l, turnMessage{verb: turnLeave, id: id})
	d.forgetLease(l)
	return o.entry, true
}

// reclaim keeps the lease of a recovered task's key for it: it may be at a
// worker.
func (d *dispatcher) reclaim(t *limboTask) {
	if t.serial == "" {
		return
	}
	t.lease = d.leaseOf(t.serial)
	t.lease.held[t.id] = &hold{}
}

// reclaimed tells the keepers of the leases that a recovered shard's tasks may
// have that they may have them.
func (d *dispatcher) reclaimed(shard uint32) {
	for id, l := range d.limbo {
		if l.lease != nil && shardIndex(id.Ref) == shard {
			d.toKeeper(l.lease, turnMessage{verb: turnHold, id: id, scheduled: l.scheduled.UnixMilli()})
		}
	}
}

// readmit has recovered tasks of serial workflows that are at no worker wait for
// their turn again.
func (d *dispatcher) readmit(tasks []*limboTask) {
	for _, t := range tasks {
		delete(t.lease.held, t.id)
		d.wantTurn(t.offer, turnMessage{verb: turnReturn, id: t.id, scheduled: t.scheduled.UnixMilli()})
	}
}

// discardTurns forgets the turns of tasks whose shard has gone elsewhere: its
// owner there has them now.
func (d *dispatcher) discardTurns(ours func(protocol.TaskID) bool) {
	for _, l := range d.leases {
		kept := l.asking[:0]
		for _, o := range l.asking {
			if ours(o.id) {
				o.class.behind--
			} else {
				kept = append(kept, o)
			}
		}
		clear(l.asking[len(kept):])
		l.asking = kept
		for id := range l.held {
			if ours(id) {
				delete(l.held, id)
			}
		}
		d.forgetLease(l)
	}
}

// repeatAsks asks once more for the first task that waits of each key: what was
// asked before may have been lost.
func (d *dispatcher) repeatAsks(now time.Duration) {
	if now-d.askedAt < askAgain {
		return
	}
	d.askedAt = now
	for _, l := range d.leases {
		if len(l.asking) > 0 {
			o := &l.asking[0]
			d.toKeeper(l, turnMessage{verb: turnAsk, id: o.id, scheduled: o.scheduled})
		}
	}
}

// claims tells a keeper all that a shard's tasks have, or wait for, of the leases
// that it decides on.
func (d *dispatcher) claims(shard, keeper uint32, since uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if since < d.keepers[keeper] {
		return
	}
	d.keepers[keeper] = since // what an earlier one grants from now on, this one would not know
	epoch, ok := d.epochs[shard]
	if !ok || d.holdings[shard] != holdingServed {
		return // it is asked again
	}
	m := turnMessage{verb: turnClaims, of: shard, epoch: epoch}
	for name, l := range d.leases {
		if d.eng.shardOf(name) != keeper {
			continue
		}
		for id, h := range l.held {
			if shardIndex(id.Ref) == shard {
				m.claims = append(m.claims, claim{Name: name, ID: id, Held: true, Token: h.token})
			}
		}
		for _, o := range l.asking {
			if shardIndex(o.id.Ref) == shard {
				m.claims = append(m.claims, claim{Name: name, ID: o.id, Scheduled: o.scheduled})
			}
		}
	}
	d.eng.send(keeper, message{turn: &m})
}

// nextToken is the token under which a task whose turn it is is sent now: higher
// than at any time before, and than those of the tasks before it.
func (d *dispatcher) nextToken(e *entry) uint64 {
	h := e.lease.held[e.id]
	if h == nil {
		return 0
	}
	token := h.token + min(h.sent, tokensPerTurn-1)
	h.sent++
	return token
}

// withToken gives a copy of a task the token of its key, in place of one that it
// had when it was sent before.
func withToken(t *protocol.Task, name string, token uint64) *protocol.Task {
	c := *t
	c.Tokens = slices.DeleteFunc(slices.Clone(t.Tokens), func(t protocol.Token) bool { return t.Name == name })
	c.Tokens = append(c.Tokens, protocol.Token{Name: name, Token: token})
	return &c
}

// before is how many tasks of its key go before a task that waits for that.
func (d *dispatcher) before(name string, id protocol.TaskID) (n int, waits bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.leases[name]
	if l == nil {
		return 0, false
	}
	i := slices.IndexFunc(l.asking, func(o offer) bool { return o.id == id })
	if i < 0 {
		return 0, false
	}
	return max(l.asking[i].ahead, len(l.held)+i), true
}
