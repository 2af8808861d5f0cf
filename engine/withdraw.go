package engine

import (
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

// cancelOrder asks to take an attempt back, or to tell its worker to give up.
type cancelOrder struct {
	id     protocol.TaskID
	gentle bool // take it back if it has not been sent; else let it be
	ended  bool // the run has ended: nobody waits to hear of it
	class  *class
	serial string // the lease that it needs
}

// cancel carries out a cancelOrder, and sees to it that the run hears of the
// attempt's end in any case.
func (d *dispatcher) cancel(o cancelOrder) {
	d.mu.Lock()
	defer d.mu.Unlock()
	withdrawn := d.withdrawn
	if o.ended {
		withdrawn = func(entry) {}
	}
	if l := d.limbo[o.id]; l != nil {
		l.cancel = l.cancel || !o.gentle
		return
	}
	for _, p := range d.peers {
		s := p.out[o.id]
		if s == nil {
			continue
		}
		if s.seq == 0 && !s.adopted {
			delete(p.out, o.id)
			s.dropped = true
			withdrawn(s.entry)
			d.left(&s.entry)
			d.refill(p)
			return
		}
		if o.gentle {
			return
		}
		s.cancelled = true
		p.cancels = append(p.cancels, o.id)
		d.mark(p)
		return
	}
	if e, ok := d.unqueue(o.class, o.serial, o.id); ok {
		withdrawn(e)
		d.left(&e)
		return
	}
	// Nowhere: its result is on its way to the run, ahead of this.
	if o.gentle || o.ended {
		return
	}
	d.postLost(o.id, machine.LostVanished, "", nil)
}

// unqueue takes a task out of its class's queues, or its key's.
func (d *dispatcher) unqueue(c *class, serial string, id protocol.TaskID) (entry, bool) {
	if e, ok := d.unlease(serial, id); ok {
		return e, true
	}
	e, ok := c.waiting.remove(id)
	for _, q := range c.strict {
		if ok {
			break
		}
		e, ok = q.remove(id)
	}
	if ok && e.task != nil {
		c.whole--
	}
	return e, ok
}

// withdrawn tells the run that an attempt did not leave, unless an earlier
// incarnation may have sent it.
func (d *dispatcher) withdrawn(e entry) {
	if e.doubtful {
		d.postLost(e.id, machine.LostVanished, "", nil)
		return
	}
	d.eng.tell(e.id.Ref, message{ref: e.id.Ref, input: machine.Withdrawn{
		Step: int(e.id.Step), Phase: machine.Phase(e.id.Phase), Generation: e.id.Generation, Attempt: e.id.Attempt,
	}})
}

// expire ends the wait of a task whose queue timeout has passed, unless a
// worker has started it. Of a recovered task only the workers know that.
func (d *dispatcher) expire(id protocol.TaskID, c *class, serial string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l, ok := d.limbo[id]; ok {
		l.expired = true
		return
	}
	for _, p := range d.peers {
		if s := p.out[id]; s != nil {
			if !s.running {
				d.expireSent(p, s)
				d.wakeSender()
			}
			return
		}
	}
	if e, ok := d.unqueue(c, serial, id); ok {
		d.postExpired(id, e.doubtful)
		d.left(&e)
		d.wakeSender()
	}
}

// expireSent is expire for a task that a worker has, or is about to be sent.
func (d *dispatcher) expireSent(p *peer, s *sent) {
	published := s.seq != 0 || s.adopted
	if published {
		p.cancels = append(p.cancels, s.id)
		d.mark(p)
	}
	delete(p.out, s.id)
	s.dropped = true
	d.postExpired(s.id, published || s.doubtful)
	d.left(&s.entry)
	d.refill(p)
}

func (d *dispatcher) postExpired(id protocol.TaskID, mayHaveLeft bool) {
	d.eng.tell(id.Ref, message{ref: id.Ref, input: machine.Expired{
		Step: int(id.Step), Phase: machine.Phase(id.Phase), Generation: id.Generation, Attempt: id.Attempt, Sent: mayHaveLeft,
	}})
}
