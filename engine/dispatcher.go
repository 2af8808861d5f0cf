package engine

import (
	"sync"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/ring"
)

// classKey names the tasks that can go to the same workers by the same policy.
type classKey struct {
	service, typ string
	place        definitions.Placement
}

// class is a group of tasks with one ring and one queue.
type class struct {
	key     classKey
	members []*peer    // workers that take such tasks now, in the ring's order
	ring    *ring.Ring // over members
	waiting backlog
	// strict queues hold what must go to one worker only, until it has credit
	// or the ring changes (placement Ring).
	strict map[*peer]*backlog
	whole  int // entries waiting that hold their task
	behind int // tasks that wait for the one before of their routing key (serial workflows)
}

func (c *class) depth() int {
	n := c.waiting.len() + c.behind
	for _, q := range c.strict {
		n += q.len()
	}
	return n
}

// offer is a task that may go to a worker.
type offer struct {
	entry
	class  *class
	serial string // the lease that it needs; see leaseName
	// Of one that waits for its turn:
	scheduled int64 // when it began to, Unix ms
	ahead     int   // how many go before it, as was heard last
}

// sent is a task at a worker, or on its way to one.
type sent struct {
	entry
	class       *class
	queue       string        // that it was published to; "" while it has not been
	seq         uint64        // 0 while it has not been published
	token       uint64        // of its routing key's lease, where it has one
	adopted     bool          // sent by an earlier incarnation; the worker listed it
	idle        bool          // the worker's last heartbeat listed it, as not started or as answered
	running     bool          // ... as started
	missing     int           // heartbeats in a row that should have listed it
	cancelled   bool          // its worker was told to give it up
	republished int           // how often
	unsure      bool          // it was published, but may have been lost on the way, or not
	session     uint64        // of our connection, when it was published
	dropped     bool          // no longer at this worker, as far as the run is concerned
	progress    []byte        // that its worker reported last
	timeout     time.Duration // of an adopted task, whose task is not at hand
}

// assignment asks a shard to build the task of an entry that has a place.
type assignment struct {
	id   protocol.TaskID
	peer *peer
	sent *sent
}

// dispatcher places tasks on workers. It knows who is there, what each holds,
// and what waits. One mutex guards it all; nothing under it blocks.
type dispatcher struct {
	eng *Engine

	mu      sync.Mutex
	classes map[classKey]*class
	fleets  map[string]*fleet // by service
	peers   map[string]*peer  // by worker incarnation
	marks   map[string]*watermark
	dirty   []*peer  // with something to publish
	notices []parcel // for workers that are sent no tasks
	kick    chan struct{}
	// limbo holds tasks of runs that were recovered, until a worker lists them,
	// all who may have them have reported, or the grace is over.
	limbo     map[protocol.TaskID]*limboTask
	limboEnds time.Duration
	leases    map[string]*lease  // of routing keys of serial workflows that have tasks
	askedAt   time.Duration      // when turns were asked for again
	holdings  map[uint32]holding // by shard
	epochs    map[uint32]uint64  // of these
	keepers   map[uint32]uint64  // of all shards, the highest epoch heard of
	known     knownWorkers
	connected bool          // to the broker
	cutAt     time.Duration // when it was lost, by the engine's clock
	session   uint64        // grows with every reconnect to it
	swept     time.Duration // when sweep ran last
}

type limboTask struct {
	offer
	scheduled time.Time
	timeout   time.Duration
	cancel    bool
	expired   bool // its queue timeout has passed; that counts unless a worker has started it
}

func newDispatcher(e *Engine) *dispatcher {
	return &dispatcher{
		eng: e, classes: map[classKey]*class{}, fleets: map[string]*fleet{}, peers: map[string]*peer{}, marks: map[string]*watermark{},
		kick: make(chan struct{}, 1), limbo: map[protocol.TaskID]*limboTask{}, leases: map[string]*lease{}, holdings: map[uint32]holding{}, keepers: map[uint32]uint64{}, epochs: map[uint32]uint64{}, known: newKnownWorkers(), connected: true,
	}
}

// class returns the class of a step's tasks.
func (d *dispatcher) class(step *definitions.Step, phase machine.Phase) *class {
	typ, _ := machine.TaskOf(step, phase)
	key := classKey{service: step.Service, typ: typ, place: step.Placement}
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.classes[key]
	if c == nil {
		c = &class{key: key, ring: &ring.Ring{}, strict: map[*peer]*backlog{}}
		d.enroll(c)
		d.classes[key] = c
	}
	return c
}

// offer takes tasks that are durable: each goes to a worker, or waits.
func (d *dispatcher) offer(offers []offer) {
	if len(offers) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range offers {
		if d.holdings[shardIndex(offers[i].id.Ref)] == holdingNone {
			continue // it has just gone elsewhere
		}
		if offers[i].serial != "" {
			d.enter(offers[i])
		} else {
			d.place(offers[i].class, offers[i].entry)
		}
	}
}

// place sends a task to the worker that its policy names, or has it wait. What
// waits already goes first.
func (d *dispatcher) place(c *class, e entry) {
	if c.waiting.len() == 0 {
		if p := d.choose(c, e.hash); p != nil {
			d.send(p, c, e)
			return
		}
	}
	d.wait(c, e)
}

// wait puts a task into its queue.
func (d *dispatcher) wait(c *class, e entry) {
	if e.task != nil {
		if c.whole >= d.eng.cfg.Limits.MaxWaitingTasks {
			e.task = nil
		} else {
			c.whole++
		}
	}
	if c.key.place == definitions.Ring && len(c.members) > 0 {
		p := c.members[c.ring.Lookup(e.hash)]
		q := c.strict[p]
		if q == nil {
			q = &backlog{}
			c.strict[p] = q
		}
		q.push(e)
		return
	}
	c.waiting.push(e)
}

// choose returns a worker with credit for a key, or nil.
func (d *dispatcher) choose(c *class, hash uint64) *peer {
	i := c.ring.Lookup(hash)
	if i < 0 {
		return nil
	}
	// Whatever the policy, a worker with nothing to do keeps its keys: that
	// spares looking at all the others.
	if owner := c.members[i]; len(owner.out) > 0 || owner.free() <= 0 {
		i = c.ring.Choose(ring.Policy(c.key.place.String()), hash, c.load, c.total(), ring.DefaultEpsilon)
	}
	if i < 0 || c.members[i].free() <= 0 {
		return nil
	}
	return c.members[i]
}

// total is what all members together have to do, as bounded loads want it.
func (c *class) total() int {
	if c.key.place != definitions.Bounded {
		return 0
	}
	total := 0
	for _, p := range c.members {
		if p.free() > 0 {
			total += len(p.out)
		}
	}
	return total
}

// load is what a member has to do, as the ring counts.
func (c *class) load(i int) int {
	if p := c.members[i]; p.free() > 0 {
		return len(p.out)
	}
	return ring.Full
}

// send gives a task to a worker; the sender publishes it.
func (d *dispatcher) send(p *peer, c *class, e entry) {
	s := &sent{entry: e, class: c}
	if e.lease != nil {
		s.token = d.nextToken(&e)
	}
	p.out[e.id] = s
	if e.task == nil {
		d.eng.tell(e.id.Ref, message{ref: e.id.Ref, fetch: &assignment{id: e.id, peer: p, sent: s}})
		return
	}
	d.publish(p, s)
}

func (d *dispatcher) publish(p *peer, s *sent) {
	if s.lease != nil {
		s.task = withToken(s.task, s.lease.name, s.token)
	}
	s.task.Resent = s.doubtful
	p.pending = append(p.pending, s)
	d.mark(p)
}

func (d *dispatcher) mark(p *peer) {
	if !p.dirty {
		p.dirty = true
		d.dirty = append(d.dirty, p)
	}
}

// assign completes an assignment with the task that a shard built; nil means
// that the attempt is no longer wanted.
func (d *dispatcher) assign(a *assignment, task *protocol.Task) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if a.sent.dropped || a.peer.out[a.id] != a.sent {
		return
	}
	if task == nil {
		delete(a.peer.out, a.id)
		d.left(&a.sent.entry)
		d.refill(a.peer)
	} else {
		a.sent.task = task
		d.publish(a.peer, a.sent)
	}
	d.wakeSender()
}

// flush has the sender publish what was placed.
func (d *dispatcher) flush() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wakeSender()
}

func (d *dispatcher) wakeSender() {
	if len(d.dirty)+len(d.notices) == 0 {
		return
	}
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// refill gives waiting tasks to a worker that has credit again, one class
// after the other.
func (d *dispatcher) refill(p *peer) {
	if !p.ready() {
		return
	}
	for idle := 0; p.free() > 0 && idle < len(p.classes); {
		c := p.classes[p.turn%len(p.classes)]
		p.turn++
		switch q := c.strict[p]; {
		case q != nil && q.len() > 0:
			d.send(p, c, c.take(q))
			idle = 0
		case c.waiting.len() > 0:
			e := c.take(&c.waiting)
			if to := d.choose(c, e.hash); to != nil {
				d.send(to, c, e)
				idle = 0
			} else {
				d.wait(c, e)
				idle++
			}
		default:
			idle++
		}
	}
}

func (c *class) take(q *backlog) entry {
	e := q.pop()
	if e.task != nil {
		c.whole--
	}
	return e
}
