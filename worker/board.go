package worker

import (
	"context"
	"time"

	"github.com/ringmaster-dev/ringmaster/protocol"
)

// board is all that a worker knows: the tasks it has, the orchestrators that
// it heard of, and the results that wait to be sent. It does no I/O and locks
// nothing; Worker.mu guards it.
type board struct {
	worker string

	tasks  map[taskKey]*task
	queue  fifo[*task] // may hold tasks that are not queued any more
	urgent fifo[*task] // the same, of commits and aborts: others wait for what they give free
	shards map[uint32]claim
	peers  map[string]*peer
	outbox []*task

	queued, running, held int
	heldBytes             int64
	draining              bool // no task starts any more

	maxQueued, maxHeld int
	maxHeldBytes       int64
	resendAfter        time.Duration
}

// claim is who owns a shard, by the highest epoch heard of.
type claim struct {
	epoch uint64
	owner *peer
}

// peer is an orchestrator incarnation.
type peer struct {
	id       string
	version  int         // the newest protocol version that it and we speak
	heard    uint64      // number of its last announcement
	received uint64      // highest task number that has arrived
	issued   uint64      // last number given to a result for it
	numbered fifo[entry] // results for it in the order of their numbers
	unfit    bool        // it left, or a result for it came back: wait until it announces itself
	shards   int         // that it owns
	seen     time.Time
	interval time.Duration // between its announcements; 0 if it does not say
}

// entry is a number of a peer's results. It is void once the task has gone or
// its result has another number or peer.
type entry struct {
	seq  uint64
	task *task
}

func (p *peer) valid(e entry) bool {
	return e.task.state == finished && e.task.to == p && e.task.result.Seq == e.seq
}

// floor is the lowest number that p may still expect.
func (p *peer) floor() uint64 {
	for p.numbered.len() > 0 {
		if e := p.numbered.front(); p.valid(e) {
			return e.seq
		}
		p.numbered.pop()
	}
	return p.issued + 1
}

func newBoard(worker string, c *Config) board {
	credit := c.Concurrency + c.Prefetch
	return board{
		worker: worker,
		tasks:  map[taskKey]*task{}, shards: map[uint32]claim{}, peers: map[string]*peer{},
		// Several orchestrators may use their credit at once; the heartbeat's
		// lists are bounded too.
		maxQueued: min(max(16*credit, 1024), protocol.MaxHeld),
		maxHeld:   c.MaxHeldResults, maxHeldBytes: c.MaxHeldBytes, resendAfter: c.ResendAfter,
	}
}

func (b *board) peer(id string, now time.Time) *peer {
	p := b.peers[id]
	if p == nil {
		p = &peer{id: id, version: protocol.MinVersion}
		b.peers[id] = p
	}
	p.seen = now
	return p
}

// claims notes that p owns the shard under that epoch. It returns false if a
// higher one was heard of.
func (b *board) claims(p *peer, shard uint32, epoch uint64) (valid, changed bool) {
	c := b.shards[shard]
	if epoch < c.epoch {
		return false, false
	}
	if changed = c.owner != p; changed || epoch > c.epoch {
		b.shards[shard] = claim{epoch, p}
	}
	if changed {
		p.shards++
		if c.owner != nil {
			c.owner.shards--
		}
	}
	return true, changed
}

// intake counts what became of received tasks.
type intake struct {
	queued, stale, dropped, duplicate, overloaded int
	epoch                                         claim // of the last stale task's shard
}

// accept takes tasks in, from a message of a protocol version. handlers are by
// task type; a task keeps the address of its element of msgs.
func (b *board) accept(msgs []protocol.Task, version int, service string, handlers map[string]*handler, now time.Time) (in intake) {
	slab := make([]task, len(msgs))
	moved := false
	for i := range msgs {
		m := &msgs[i]
		p := b.peer(m.Owner, now)
		p.version = max(p.version, version)
		p.received = max(p.received, m.Seq)
		valid, changed := b.claims(p, m.Shard, m.Epoch)
		if !valid {
			in.stale++
			in.epoch = b.shards[m.Shard]
			continue
		}
		moved = moved || changed
		key := taskKey{m.TaskID, m.RunID}
		if known := b.tasks[key]; known != nil {
			in.duplicate++
			if known.state == finished {
				b.post(known)
			}
			continue
		}
		if b.draining {
			in.dropped++
			continue
		}
		full := b.queued >= b.maxQueued
		if full && b.held >= b.maxHeld {
			in.overloaded++ // no room even for an answer
			continue
		}
		t := &slab[i]
		t.msg, t.worker = m, b.worker
		if m.Service == service {
			t.handler = handlers[m.Type]
		}
		b.tasks[key] = t
		if full {
			in.overloaded++
			t.refusal(CodeOverloaded, "the worker has more tasks than it granted", true)
			b.finish(t)
			continue
		}
		t.state = queued
		if m.Phase == protocol.PhaseCommit || m.Phase == protocol.PhaseAbort {
			b.urgent.push(t)
		} else {
			b.queue.push(t)
		}
		b.queued++
		in.queued++
	}
	if moved {
		b.rehome()
	}
	return in
}

// next takes the oldest queued task, commits and aborts first, and marks it
// running; nil if there is none, or no room to hold its result.
func (b *board) next(base context.Context, now time.Time) *task {
	if b.draining || b.queued == 0 || b.held+b.running >= b.maxHeld || b.heldBytes >= b.maxHeldBytes {
		return nil
	}
	for t := b.pop(); t != nil; t = b.pop() {
		if t.state != queued {
			continue // cancelled while it waited
		}
		t.state, t.started = running, now
		b.queued--
		b.running++
		if t.handler != nil {
			t.Context, t.cancel = context.WithTimeout(base, t.msg.Timeout-margin(t.msg.Timeout))
		}
		return t
	}
	return nil
}

// pop takes a task from the queues, nil if both are empty.
func (b *board) pop() *task {
	switch {
	case b.urgent.len() > 0:
		return b.urgent.pop()
	case b.queue.len() > 0:
		return b.queue.pop()
	}
	return nil
}

// finish keeps the result of a task that was not queued (or no longer is) and
// puts it into the outbox.
func (b *board) finish(t *task) {
	if t.state == running {
		b.running--
	}
	t.state = finished
	b.held++
	b.heldBytes += t.size()
	b.address(t, b.shards[t.msg.Shard].owner)
	b.post(t)
}

// address gives the result a number of p's.
func (b *board) address(t *task, p *peer) {
	if t.to != nil {
		// The sender may be reading the old one.
		r := *t.result
		t.result = &r
	}
	p.issued++
	t.to, t.sent = p, time.Time{}
	t.result.Owner, t.result.Seq = p.id, p.issued
	p.numbered.push(entry{p.issued, t})
}

// rehome readdresses the results of shards that have another owner now.
func (b *board) rehome() {
	for _, t := range b.tasks {
		if t.state != finished {
			continue
		}
		if owner := b.shards[t.msg.Shard].owner; owner != t.to {
			b.address(t, owner)
			b.post(t)
		}
	}
}

func (b *board) post(t *task) {
	if !t.inBox {
		t.inBox = true
		b.outbox = append(b.outbox, t)
	}
}

// settle forgets the results for p up to number mark.
func (b *board) settle(p *peer, mark uint64) {
	if mark > p.issued {
		b.renumber(p, mark)
		return
	}
	for p.numbered.len() > 0 && p.numbered.front().seq <= mark {
		if e := p.numbered.pop(); p.valid(e) {
			b.forget(e.task)
		}
	}
}

// renumber follows a watermark above the numbers given out: p knows this
// worker from before, and the worker had forgotten it (see prune).
func (b *board) renumber(p *peer, mark uint64) {
	old := p.numbered
	p.numbered, p.issued = fifo[entry]{}, mark
	for old.len() > 0 {
		e := old.pop()
		if p.valid(e) {
			b.address(e.task, p)
			b.post(e.task)
		}
	}
}

func (b *board) forget(t *task) {
	if t.state == finished {
		b.held--
		b.heldBytes -= t.size()
	}
	t.state = gone
	delete(b.tasks, t.key())
}

// announce takes in what an orchestrator says of itself.
func (b *board) announce(a *protocol.Announcement, now time.Time) {
	p := b.peer(a.Orchestrator, now)
	p.version = min(a.Speaks().Max, protocol.Version)
	p.heard = max(p.heard, a.Seq)
	moved := false
	for shard, epoch := range a.Shards {
		_, changed := b.claims(p, shard, epoch)
		moved = moved || changed
	}
	if mark := a.Durable[b.worker]; mark > 0 {
		b.settle(p, mark)
	}
	wasUnfit := p.unfit
	p.unfit, p.interval = a.Leaving, time.Duration(a.IntervalMS)*time.Millisecond
	if moved {
		b.rehome()
	}
	if !p.unfit && (a.Hello || wasUnfit) {
		b.repost(p, a.Hello)
	}
}

// repost sends p its results again: all, or those not known to have been sent.
func (b *board) repost(p *peer, all bool) {
	for e := range p.numbered.all() {
		if p.valid(e) && (all || e.task.sent.IsZero()) {
			b.post(e.task)
		}
	}
}

// repostAll is for a connection that was lost with whatever was on it.
func (b *board) repostAll() {
	for _, p := range b.peers {
		b.repost(p, true)
	}
}

// overdue posts results of which nothing was heard for a while.
func (b *board) overdue(now time.Time) {
	if b.held == 0 {
		return
	}
	for _, t := range b.tasks {
		if t.state == finished && !t.to.unfit && now.Sub(t.sent) >= b.resendAfter {
			b.post(t)
		}
	}
}

// returned notes that a message of results found no queue.
func (b *board) returned(results []protocol.Result) {
	for i := range results {
		t := b.tasks[taskKey{results[i].TaskID, results[i].RunID}]
		if t != nil && t.state == finished && t.result.Seq == results[i].Seq {
			t.sent = time.Time{}
			t.to.unfit = true
		}
	}
}

// cancel answers queued ones of the attempts and cancels the contexts of
// running ones. A control names attempts by their ids alone.
func (b *board) cancel(ids []protocol.TaskID) {
	wanted := make(map[protocol.TaskID]struct{}, len(ids))
	for _, id := range ids {
		wanted[id] = struct{}{}
	}
	for _, t := range b.tasks {
		if _, ok := wanted[t.msg.TaskID]; !ok {
			continue
		}
		switch t.state {
		case queued:
			b.queued--
			t.refusal(CodeCancelled, "cancelled before it started", true)
			b.finish(t)
		case running:
			b.interrupt(t)
		}
	}
}

func (b *board) interrupt(t *task) {
	t.cancelled = true
	if t.cancel != nil {
		t.cancel()
	}
}

// drain drops the tasks that have not started: no longer listed, they move.
func (b *board) drain() (dropped int) {
	b.draining = true
	for t := b.pop(); t != nil; t = b.pop() {
		if t.state == queued {
			b.queued--
			b.forget(t)
			dropped++
		}
	}
	return dropped
}

// interruptAll cancels the contexts of all running tasks.
func (b *board) interruptAll() {
	for _, t := range b.tasks {
		if t.state == running {
			b.interrupt(t)
		}
	}
}

// peerListed is how long a silent orchestrator is listed in heartbeats. One that
// was only away says so when it is back, and is listed again.
const peerListed = time.Minute

// peerMemory is how long a silent orchestrator without results and shards is
// remembered. It has to be far longer than a pause that one survives.
const peerMemory = time.Hour

// prune forgets orchestrators that have long been silent.
func (b *board) prune(now time.Time) {
	for id, p := range b.peers {
		if now.Sub(p.seen) >= peerMemory && p.floor() > p.issued && p.shards == 0 {
			delete(b.peers, id)
		}
	}
}

// list fills in what a heartbeat says of tasks and orchestrators.
func (b *board) list(h *protocol.Heartbeat, now time.Time) {
	h.Draining = b.draining
	h.Received = make(map[string]uint64, len(b.peers))
	h.Floor = make(map[string]uint64, len(b.peers))
	h.Heard = make(map[string]uint64, len(b.peers))
	for id, p := range b.peers {
		if now.Sub(p.seen) > max(peerListed, silentAnnouncements*p.interval) {
			continue
		}
		if p.issued > 0 {
			h.Floor[id] = p.floor()
		}
		if p.heard > 0 {
			h.Heard[id] = p.heard
		}
		if p.received > 0 {
			h.Received[id] = p.received
		}
	}
	if b.queued > 0 {
		h.Queued = make([]protocol.Held, 0, b.queued)
	}
	if b.held > 0 {
		h.Finished = make([]protocol.Held, 0, b.held)
	}
	for _, t := range b.tasks {
		item := protocol.Held{TaskID: t.msg.TaskID, Shard: t.msg.Shard}
		switch t.state {
		case queued:
			h.Queued = append(h.Queued, item)
		case running:
			item.AgeMS = max(now.Sub(t.started).Milliseconds(), 0)
			item.Progress = t.progress.last()
			h.Running = append(h.Running, item)
		case finished:
			h.Finished = append(h.Finished, item)
		}
	}
}
