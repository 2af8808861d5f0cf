package engine

import "github.com/ringmaster-dev/ringmaster/protocol"

// strayLimit is how many heartbeats may come from the queue that a worker left,
// late, before two workers count as sharing one identity.
const strayLimit = 3

// identity notices that two workers say they are the same one. A worker that
// reconnects moves to another queue and never comes back to the one before.
type identity struct {
	former    string // the queue before the present one
	formerSeq uint64 // last heartbeat heard from there
	strays    int
	banned    string // queue of a worker that was refused
}

// moved takes in that the worker has another queue.
func (i *identity) moved(from string, seq uint64) {
	i.former, i.formerSeq, i.strays = from, seq, 0
}

// refuses tells whether a heartbeat is to be ignored, because it comes from a
// worker that claims the identity of another. When that is found out, the one
// that came first keeps it, and the other is told to drain.
func (d *dispatcher) refuses(p *peer, hb *protocol.Heartbeat) bool {
	i := &p.identity
	if hb.Queue == i.banned {
		return true
	}
	if hb.Queue == p.queue || hb.Queue != i.former || hb.Sequence <= i.formerSeq {
		return false
	}
	i.formerSeq = hb.Sequence
	if i.strays++; i.strays < strayLimit {
		return true
	}
	d.eng.metrics.conflicts.Inc()
	d.eng.log.Error("two workers have the same identity: the second is told to leave",
		"worker", p.id, "service", p.service, "kept", i.former, "refused", p.queue)
	i.banned = p.queue
	d.notices = append(d.notices, parcel{queue: p.queue, version: p.version, drain: true})
	for _, s := range p.out {
		if s.queue == p.queue { // the refused one may have it
			s.unsure = true
			d.move(p, s)
		}
	}
	p.queue, p.heartbeat, i.former = hb.Queue, 0, ""
	return false
}
