package engine

import (
	"cmp"
	"slices"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/ring"
)

const (
	// eagerWorkers is how many workers a service may have for each change of them
	// to be taken into its rings at once. Those of more are made at intervals.
	eagerWorkers = 64
	// rebuildRest is how many times as long as making a service's rings has taken
	// it is left alone after that, up to maxRebuildRest: however many workers come
	// and go, rings take no more than a tenth of a core.
	rebuildRest    = 10
	maxRebuildRest = 250 * time.Millisecond
)

// fleet is what there is to know of a service's workers together.
//
// While its rings are behind, nothing is sent to a worker that is not ready:
// choose looks at each worker itself. Only tasks that the ring would give to a
// worker that has just come, or gone, go to another one, or wait for the moment.
type fleet struct {
	behind    bool          // a rebuild is due at the end of the rest
	restUntil time.Duration // by the engine's clock
}

// changed takes in that other workers of a service are ready than before, or with
// another weight, name or task types.
func (d *dispatcher) changed(service string) {
	f := d.fleets[service]
	if f == nil {
		f = &fleet{}
		d.fleets[service] = f
	}
	rest := f.restUntil - d.eng.clock.since()
	switch {
	case f.behind:
	case rest <= 0 || d.count(service, eagerWorkers+1) <= eagerWorkers:
		d.rebuild(service, f)
	default:
		f.behind = true
		time.AfterFunc(rest, func() { d.catchUp(service, f) })
	}
}

// catchUp makes rings that are behind.
func (d *dispatcher) catchUp(service string, f *fleet) {
	if d.eng.background.Err() != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rebuild(service, f)
	d.wakeSender()
}

// rebuild makes a service's rings anew from the workers that are ready, and gives
// what waits another chance.
func (d *dispatcher) rebuild(service string, f *fleet) {
	began := time.Now()
	ready := d.ready(service)
	for _, p := range d.peers {
		if p.service == service {
			p.classes = p.classes[:0]
		}
	}
	var done []*class
	for key, c := range d.classes {
		if key.service == service {
			d.settle(c, ready, done)
			done = append(done, c)
		}
	}
	d.eng.metrics.ringRebuilds.Inc()
	f.behind = false
	f.restUntil = d.eng.clock.since() + min(rebuildRest*time.Since(began), maxRebuildRest)
	for _, c := range done {
		d.retry(c)
	}
}

// enroll gives a new class its workers.
func (d *dispatcher) enroll(c *class) {
	var others []*class
	for key, other := range d.classes {
		if key.service == c.key.service {
			others = append(others, other)
		}
	}
	d.settle(c, d.ready(c.key.service), others)
}

// settle gives a class the workers that serve it, and their ring: that of another
// class, if it is of the same workers as they are now.
func (d *dispatcher) settle(c *class, ready []*peer, others []*class) {
	members := make([]*peer, 0, len(ready))
	for _, p := range ready {
		if p.serves(c.key) {
			members = append(members, p)
			p.classes = append(p.classes, c)
		}
	}
	for _, other := range others {
		if slices.Equal(other.members, members) {
			c.members, c.ring = other.members, other.ring
			return
		}
	}
	c.members = members
	next, err := c.ring.Update(membersOf(members))
	if err != nil {
		// Heartbeats were checked when they were decoded.
		d.eng.log.Error("ring not rebuilt", "service", c.key.service, "type", c.key.typ, "error", err)
		next, c.members = &ring.Ring{}, nil
	}
	c.ring = next
}

func membersOf(peers []*peer) []ring.Member {
	members := make([]ring.Member, len(peers))
	for i, p := range peers {
		members[i] = p.member()
	}
	return members
}

// ready returns a service's workers that are ready, in order.
func (d *dispatcher) ready(service string) []*peer {
	var peers []*peer
	for _, p := range d.peers {
		if p.service == service && p.ready() {
			peers = append(peers, p)
		}
	}
	slices.SortFunc(peers, byID)
	return peers
}

func byID(a, b *peer) int { return cmp.Compare(a.id, b.id) }

// count is the number of a service's workers, or most if there are more.
func (d *dispatcher) count(service string, most int) int {
	n := 0
	for _, p := range d.peers {
		if p.service == service {
			if n++; n >= most {
				break
			}
		}
	}
	return n
}

// retry gives what waits another chance.
func (d *dispatcher) retry(c *class) {
	for p, q := range c.strict {
		q.drain(func(e entry) { c.waiting.push(e) })
		delete(c.strict, p)
	}
	if c.key.place != definitions.Ring {
		for c.waiting.len() > 0 {
			p := d.choose(c, c.waiting.front().hash)
			if p == nil {
				return // nobody has credit
			}
			d.send(p, c, c.take(&c.waiting))
		}
		return
	}
	for n := c.waiting.len(); n > 0; n-- {
		e := c.take(&c.waiting)
		if p := d.choose(c, e.hash); p != nil {
			d.send(p, c, e)
			continue
		}
		d.wait(c, e)
	}
}
