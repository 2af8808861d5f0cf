package engine

import (
	"cmp"
	"slices"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

// lease is what a routing key of a serial workflow has: at most one of its tasks
// is at a worker, or next to go to one. After a restart there may be more for a
// while, all of which an earlier incarnation sent. It is guarded by the
// dispatcher's mutex.
type lease struct {
	name    string
	held    map[protocol.TaskID]struct{}
	waiting []offer // in the order in which they came; without their tasks
}

// leaseName is the name of the lease that a run's tasks need; empty if they need
// none. Their tokens travel under it.
func leaseName(r *run) string {
	if !r.wf.Serial() {
		return ""
	}
	return definitions.SerialPrefix + r.wf.Name() + "/" + r.state.RoutingKey()
}

// enter takes an offer of a serial workflow: it is placed if nothing of its key
// is under way, and waits for that otherwise.
func (d *dispatcher) enter(o offer) {
	l := d.leaseOf(o.serial)
	o.lease = l
	if len(l.held) > 0 || len(l.waiting) > 0 {
		o.task = nil // it is built again when its turn comes
		o.class.behind++
		l.waiting = append(l.waiting, o)
		return
	}
	l.held[o.id] = struct{}{}
	d.place(o.class, o.entry)
}

func (d *dispatcher) leaseOf(name string) *lease {
	l := d.leases[name]
	if l == nil {
		l = &lease{name: name, held: map[protocol.TaskID]struct{}{}}
		d.leases[name] = l
	}
	return l
}

// left has the next task of a key go, now that e is over: answered, given up,
// taken back.
func (d *dispatcher) left(e *entry) {
	l := e.lease
	if l == nil {
		return
	}
	if _, ok := l.held[e.id]; !ok {
		return
	}
	delete(l.held, e.id)
	d.pass(l)
}

// pass gives a lease that nobody has to the first who waits for it.
func (d *dispatcher) pass(l *lease) {
	if len(l.held) > 0 {
		return
	}
	if len(l.waiting) == 0 {
		delete(d.leases, l.name)
		return
	}
	next := l.waiting[0]
	l.waiting[0] = offer{}
	l.waiting = l.waiting[1:]
	next.class.behind--
	l.held[next.id] = struct{}{}
	d.place(next.class, next.entry)
}

// unlease takes a task out of the queue of its key.
func (d *dispatcher) unlease(name string, id protocol.TaskID) (entry, bool) {
	l := d.leases[name]
	if l == nil {
		return entry{}, false
	}
	i := slices.IndexFunc(l.waiting, func(o offer) bool { return o.id == id })
	if i < 0 {
		return entry{}, false
	}
	o := l.waiting[i]
	l.waiting = slices.Delete(l.waiting, i, i+1)
	o.class.behind--
	return o.entry, true
}

// reclaim keeps the lease of a recovered task's key for it: it may be at a
// worker.
func (d *dispatcher) reclaim(t *limboTask) {
	if t.serial == "" {
		return
	}
	t.lease = d.leaseOf(t.serial)
	t.lease.held[t.id] = struct{}{}
}

// readmit puts recovered tasks of serial workflows that are at no worker into
// the queues of their keys, ahead of what has come since, in the order in which
// they were scheduled.
func (d *dispatcher) readmit(tasks []*limboTask) {
	slices.SortFunc(tasks, func(a, b *limboTask) int {
		return cmp.Or(a.scheduled.Compare(b.scheduled), cmp.Compare(a.id.Ref, b.id.Ref), cmp.Compare(a.id.Step, b.id.Step))
	})
	ahead := map[*lease][]offer{}
	for _, t := range tasks {
		delete(t.lease.held, t.id)
		t.class.behind++
		ahead[t.lease] = append(ahead[t.lease], t.offer)
	}
	for l, offers := range ahead {
		l.waiting = append(offers, l.waiting...)
		d.pass(l)
	}
}

// nextToken is the token for the next task of a key: higher than any before,
// since it counts up from the epoch of the key's shard.
func (d *dispatcher) nextToken(l *lease) uint64 {
	d.tokens++
	return firstToken(d.epochOf(l.name)) + d.tokens
}

// epochOf is the epoch of the shard of a lease.
func (d *dispatcher) epochOf(name string) uint64 {
	if s := d.eng.shards.get(d.eng.shardOf(name)); s != nil {
		return s.epoch
	}
	return 0
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
	i := slices.IndexFunc(l.waiting, func(o offer) bool { return o.id == id })
	return len(l.held) + i, i >= 0
}
