package engine

import (
	"slices"
	"time"

	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/ring"
)

// silentAfter is the number of heartbeat intervals after which a worker that
// says nothing counts as dead.
const silentAfter = 3

// republishAfter is the number of heartbeats after which a task that its worker
// has not received is published again; twice as many the next time.
const republishAfter = 3

// maxRepublish is how often that is done before the attempt counts as lost: a
// worker that cannot decode a task never says that it has it.
const maxRepublish = 5

// timeoutGrace is how long past its timeout a task may be listed as running:
// its worker cancels it before that, so then the worker is at fault.
const timeoutGrace = 2 * time.Second

// peer is a worker as this orchestrator knows it.
type peer struct {
	id, name, queue string
	service, rel    string
	speaks          protocol.Versions
	version         int // the newest protocol version that it and we speak
	types           []string
	weight, credit  int
	capacity        int
	batches         bool
	draining        bool
	unreachable     bool // its queue is gone; it may come back with another
	identity        identity
	noted           bool // it is in the store's note of workers
	interval        time.Duration
	heartbeat       uint64        // sequence number of the last one
	seen            time.Duration // when that came, by the engine's clock
	graceUntil      time.Duration // not counted as silent before

	out     map[protocol.TaskID]*sent // tasks it has, or is about to be sent
	pending []*sent                   // of these, what is to be published
	cancels []protocol.TaskID
	drain   bool // tell it to drain
	tell    bool // tell it its watermark, if nothing else does
	seq     uint64
	dirty   bool

	classes []*class // that it is a member of
	turn    int      // which class is next to be given credit
}

func (p *peer) ready() bool { return p.noted && !p.draining && !p.unreachable }

// free is how many tasks it may be sent.
func (p *peer) free() int {
	if !p.ready() {
		return 0
	}
	return p.credit - len(p.out)
}

func (p *peer) serves(k classKey) bool {
	return p.service == k.service && slices.Contains(p.types, k.typ)
}

// member is the worker's place on a ring: under its name, so that a restart
// finds its old place; two workers of one name are told apart.
func (p *peer) member() ring.Member {
	return ring.Member{Name: p.name, ID: p.id, Weight: min(max(p.weight, 1), ring.MaxWeight)}
}

func (p *peer) state(now time.Duration) string {
	switch {
	case p.unreachable:
		return "unreachable"
	case p.draining:
		return "draining"
	case now-p.seen > silentAfter*p.interval:
		return "silent"
	}
	return "ready"
}

func (d *dispatcher) sortedPeers() []*peer {
	peers := make([]*peer, 0, len(d.peers))
	for _, p := range d.peers {
		peers = append(peers, p)
	}
	slices.SortFunc(peers, byID)
	return peers
}

// heard takes in a heartbeat.
func (d *dispatcher) heard(hb *protocol.Heartbeat) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peers[hb.Worker]
	if p == nil {
		if hb.Leaving {
			return
		}
		// One that was taken for dead has received tasks of ours: the numbers go
		// on from there, or the next would look received, and lost.
		p = &peer{id: hb.Worker, service: hb.Service, seq: hb.Received[d.eng.id], out: map[protocol.TaskID]*sent{}}
		d.peers[hb.Worker] = p
		d.meet(p)
		d.eng.log.Info("worker joined", "worker", hb.Worker, "service", hb.Service, "task_types", hb.TaskTypes)
	} else if d.refuses(p, hb) || hb.Sequence <= p.heartbeat {
		d.wakeSender()
		return
	}
	moved := p.queue != hb.Queue
	if moved {
		p.identity.moved(p.queue, p.heartbeat)
	}
	p.heartbeat, p.seen, p.interval = hb.Sequence, d.eng.clock.since(), time.Duration(hb.IntervalMS)*time.Millisecond
	d.raiseFloor(hb.Worker, hb.Floor[d.eng.id])
	if service := p.service; d.describe(p, hb) {
		d.changed(service)
		if p.service != service {
			d.changed(p.service)
		}
	}
	d.reconcile(p, hb, moved)
	d.reported(p, hb.Heard)
	if hb.Leaving {
		d.forget(p, "left")
		delete(d.marks, p.id)
		return
	}
	d.refill(p)
	d.wakeSender()
}

// describe takes over what a worker says of itself, and tells whether that
// changes any ring.
func (d *dispatcher) describe(p *peer, hb *protocol.Heartbeat) bool {
	draining, was := hb.Draining || hb.Leaving, p.ready()
	changed := p.queue != hb.Queue || p.draining != draining || p.unreachable || p.weight != hb.Weight ||
		p.name != hb.Name || p.service != hb.Service || !slices.Equal(p.types, hb.TaskTypes)
	p.name, p.queue, p.service, p.rel, p.types = hb.Name, hb.Queue, hb.Service, hb.Release, hb.TaskTypes
	if p.unreachable { // what was held back can go
		d.mark(p)
	}
	p.weight, p.credit, p.capacity, p.draining, p.unreachable = hb.Weight, hb.Credit, hb.Capacity, draining, false
	p.speaks, p.version = hb.Speaks(), min(hb.Speaks().Max, protocol.Version)
	p.batches = slices.Contains(hb.Capabilities, protocol.CapabilityBatch)
	return changed && (was || p.ready())
}

// reconcile compares what a worker lists with what it was sent.
func (d *dispatcher) reconcile(p *peer, hb *protocol.Heartbeat, moved bool) {
	const queued, running, finished = 1, 2, 3
	listed := make(map[protocol.TaskID]int8, len(hb.Queued)+len(hb.Running)+len(hb.Finished))
	note := func(held []protocol.Held, as int8) {
		for i := range held {
			listed[held[i].TaskID] = as
			d.adopt(p, held[i].TaskID, as == queued)
		}
	}
	note(hb.Queued, queued)
	note(hb.Running, running)
	note(hb.Finished, finished)
	for i := range hb.Running {
		if s := p.out[hb.Running[i].TaskID]; s != nil && len(hb.Running[i].Progress) > 0 {
			s.progress = hb.Running[i].Progress
		}
		d.checkAge(p, &hb.Running[i])
	}
	received := hb.Received[d.eng.id]
	for id, s := range p.out {
		as := listed[id]
		s.idle, s.running = as == queued || as == finished, as == running
		switch {
		case as != 0:
			s.missing = 0
		case s.seq == 0 && !s.adopted:
			// Not published yet.
		case s.seq > received && !s.adopted:
			d.overdue(p, s, moved && s.queue != hb.Queue || hb.Leaving)
		case p.draining:
			d.move(p, s) // dropped unstarted: what it runs or ran, it lists
		default:
			if s.missing++; s.missing > 1 {
				d.lost(p, s, machine.LostVanished)
			}
		}
	}
}

// overdue looks at a task that its worker has not received. If it never will,
// it moves. Else it may have been lost on the way, surely so if our connection
// was lost since: after some heartbeats, more each time, it is published again.
// A worker that has it after all knows it.
func (d *dispatcher) overdue(p *peer, s *sent, never bool) {
	switch {
	case never:
		d.move(p, s)
	case s.task != nil:
		if s.missing++; s.republished == maxRepublish {
			d.lost(p, s, machine.LostVanished)
			return
		}
		if s.missing > republishAfter<<min(s.republished, 8) || s.session != d.session && s.missing > 1 {
			s.missing, s.unsure = 0, true
			s.republished++
			t := *s.task // the sender may still be reading that one
			s.task = &t
			d.publish(p, s)
		}
	}
}

// adopt leaves a recovered task to the worker that says it has it. If its queue
// timeout has passed in the meantime and it has not started, it never will.
func (d *dispatcher) adopt(p *peer, id protocol.TaskID, queued bool) {
	l := d.limbo[id]
	if l == nil {
		return
	}
	delete(d.limbo, id)
	s := &sent{entry: l.entry, class: l.class, queue: p.queue, adopted: true, cancelled: l.cancel, timeout: l.timeout}
	p.out[id] = s
	if l.cancel {
		p.cancels = append(p.cancels, id)
		d.mark(p)
	}
	if l.expired && queued {
		d.expireSent(p, s)
	}
}

// checkAge gives up on a task that its worker should have cancelled by itself.
func (d *dispatcher) checkAge(p *peer, h *protocol.Held) {
	s := p.out[h.TaskID]
	if s == nil {
		return
	}
	timeout := s.timeout
	if s.task != nil {
		timeout = s.task.Timeout
	}
	if time.Duration(h.AgeMS)*time.Millisecond > timeout+timeoutGrace {
		p.cancels = append(p.cancels, h.TaskID)
		d.mark(p)
		d.lost(p, s, machine.LostTimeout)
	}
}

// move gives a task that was never started to whoever the ring names now.
func (d *dispatcher) move(p *peer, s *sent) {
	delete(p.out, s.id)
	s.dropped = true
	e := s.entry
	e.doubtful = e.doubtful || s.unsure
	if s.cancelled {
		d.withdrawn(e)
		d.left(&e)
		return
	}
	if e.task != nil {
		t := *e.task // the sender may still be reading that one
		e.task = &t
	}
	d.eng.metrics.moved.Inc()
	d.place(s.class, e)
}

// lost tells the run that an attempt will not answer.
func (d *dispatcher) lost(p *peer, s *sent, why machine.LossReason) {
	delete(p.out, s.id)
	s.dropped = true
	d.eng.metrics.lost.WithLabelValues(lossWord(why)).Inc()
	d.postLost(s.id, why, p.id, s.progress)
	d.left(&s.entry)
}

// lossWord is the label of a loss.
func lossWord(why machine.LossReason) string {
	switch why {
	case machine.LostWorkerDied:
		return "worker_died"
	case machine.LostTimeout:
		return "timeout"
	}
	return "vanished"
}

func (d *dispatcher) postLost(id protocol.TaskID, why machine.LossReason, worker string, progress []byte) {
	d.eng.tell(id.Ref, message{ref: id.Ref, input: machine.Lost{
		Step: int(id.Step), Phase: machine.Phase(id.Phase), Generation: id.Generation, Attempt: id.Attempt,
		Reason: why, Worker: worker, Progress: progress,
	}})
}

// forget removes a worker that left or died. What it had not been sent goes
// elsewhere; the fate of the rest is unknown.
func (d *dispatcher) forget(p *peer, how string) {
	delete(d.peers, p.id)
	d.known.gone[p.id] = d.eng.clock.since()
	p.unreachable = true
	d.eng.log.Info("worker gone", "worker", p.id, "service", p.service, "how", how, "tasks", len(p.out))
	d.changed(p.service)
	for _, s := range p.out {
		switch {
		case s.seq == 0 && !s.adopted:
			d.move(p, s)
		case s.idle:
			d.lost(p, s, machine.LostVanished) // it was not running when last heard of
		default:
			d.lost(p, s, machine.LostWorkerDied)
		}
	}
}

// sweep ends the limbo of recovered tasks, and forgets what is of no use any more.
// It runs once an interval.
func (d *dispatcher) sweep() {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.eng.clock.since()
	if now-d.swept > 2*d.eng.cfg.HeartbeatInterval {
		// This process stood still, and maybe the workers with it. Nobody is silent
		// before they had time to say something.
		for _, p := range d.peers {
			p.graceUntil = max(p.graceUntil, now+silentAfter*max(p.interval, d.eng.cfg.HeartbeatInterval))
		}
	}
	d.swept = now
	inFlight := 0
	for _, p := range d.peers {
		inFlight += len(p.out)
	}
	d.eng.setResidents(inFlight)
	for worker, m := range d.marks {
		if d.peers[worker] == nil && now-m.used > watermarkKept {
			delete(d.marks, worker)
		}
	}
	d.dropGone(now)
	d.repeatAsks(now)
	if len(d.limbo) > 0 && now >= d.limboEnds && d.connected {
		d.known.waiting = map[string]map[string]*report{}
		d.release(func(string) bool { return true }, true)
	}
	d.wakeSender()
}

// recovered takes tasks that may be at a worker already.
func (d *dispatcher) recovered(tasks []limboTask) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range tasks {
		d.limbo[tasks[i].id] = &tasks[i]
		d.reclaim(&tasks[i])
	}
}

// connection takes in that the broker came or went.
func (d *dispatcher) connection(up bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if up && !d.connected {
		now := d.eng.clock.since()
		d.session++
		for _, p := range d.peers {
			p.graceUntil = now + d.eng.cfg.ReconnectGrace
		}
		d.limboEnds = max(d.limboEnds, now+d.eng.cfg.RecoveryGrace)
	}
	if !up && d.connected {
		d.cutAt = d.eng.clock.since()
	}
	d.connected = up
	d.wakeSender()
}

// returned takes in that a message to a worker's queue came back: the queue is
// gone. What the message held was not received by anybody.
func (d *dispatcher) returned(queue string, ids []protocol.TaskID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.sentTo(queue) {
		if p.queue == queue && !p.unreachable {
			p.unreachable = true
			d.eng.log.Warn("worker unreachable", "worker", p.id, "service", p.service)
			d.changed(p.service)
			for _, s := range p.out {
				if s.seq == 0 && !s.adopted {
					d.move(p, s)
				}
			}
		}
		for _, id := range ids {
			if s := p.out[id]; s != nil && s.queue == queue {
				d.move(p, s)
			}
		}
	}
	d.wakeSender()
}

// sentTo returns the worker that has that queue, or, if it is that of none now,
// all of them: one may have had it.
func (d *dispatcher) sentTo(queue string) map[string]*peer {
	for _, p := range d.peers {
		if p.queue == queue {
			return map[string]*peer{p.id: p}
		}
	}
	return d.peers
}
