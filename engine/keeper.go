package engine

import (
	"cmp"
	"slices"
	"time"

	"github.com/ringmaster-dev/ringmaster/protocol"
)

// turnVerb is what a turnMessage says.
type turnVerb uint8

const (
	turnAsk    turnVerb = iota + 1 // task to keeper: I want my turn
	turnHold                       // task to keeper: I may be at a worker
	turnReturn                     // task to keeper: I am not, and want my turn
	turnLeave                      // task to keeper: I am over
	turnGrant                      // keeper to task: it is your turn, under token
	turnWaits                      // keeper to task: some go before you
	turnCount                      // keeper to a shard: what have your tasks of mine?
	turnClaims                     // a shard to the keeper: this
)

// turnMessage goes between the shard of a serial workflow's task and the keeper of
// its key. None of it is durable: what a keeper knows it can ask for.
type turnMessage struct {
	verb      turnVerb
	name      string // of the lease
	id        protocol.TaskID
	scheduled int64 // Unix ms
	token     uint64
	ahead     int
	of        uint32 // the shard of who says it, and its epoch
	epoch     uint64
	claims    []claim
}

// claim is a task that has its turn, or may have it, or waits.
type claim struct {
	Name      string          `json:"name"`
	ID        protocol.TaskID `json:"id"`
	Held      bool            `json:"held,omitempty"`
	Token     uint64          `json:"token,omitempty"`
	Scheduled int64           `json:"scheduled,omitempty"`
}

const (
	// tokensPerTurn is how many tokens a turn has: a task that goes to another
	// worker gets a higher one.
	tokensPerTurn = 16
	// countAgain is how long a keeper waits for the claims of a shard before it
	// asks again.
	countAgain = time.Second
)

// keeper decides, for the leases whose names are a shard's, whose turn it is. It
// belongs to that shard's goroutine.
//
// It has no memory beyond its shard's stay in this process: a new keeper first
// asks all shards what their tasks have. Until all have answered, it grants
// nothing. Later it asks again now and then, which makes up for messages that were
// lost.
type keeper struct {
	queues  map[string]*turnQueue
	begun   bool
	missing map[uint32]bool   // shards that have not answered
	counted time.Duration     // when it asked them last, by the engine's clock
	epochs  map[uint32]uint64 // the highest heard of each shard
	last    uint64            // the last token given
}

// turnQueue is the tasks of one key.
type turnQueue struct {
	held    map[protocol.TaskID]uint64 // their tokens; more than one only of recovered tasks
	waiting []waiter
}

type waiter struct {
	id        protocol.TaskID
	scheduled int64
}

func newKeeper(epoch uint64) keeper {
	return keeper{queues: map[string]*turnQueue{}, missing: map[uint32]bool{}, epochs: map[uint32]uint64{}, last: firstToken(epoch)}
}

func (k *keeper) complete() bool { return k.begun && len(k.missing) == 0 }

// turn takes in a message about turns, at the keeper or at a task's shard.
func (s *shard) turn(m *turnMessage) {
	switch m.verb {
	case turnGrant:
		s.eng.dispatcher.granted(m)
	case turnWaits:
		s.eng.dispatcher.waits(m)
	case turnCount:
		s.eng.dispatcher.claims(s.id, m.of, m.epoch)
	default:
		s.keep(m)
	}
}

// keep is the keeper's part.
func (s *shard) keep(m *turnMessage) {
	k := &s.keeper
	if m.epoch < k.epochs[m.of] || !s.owned() {
		return // one of the two is an owner no more
	}
	k.epochs[m.of] = m.epoch
	if !k.begun {
		k.begun = true
		for shard := range s.eng.shards.count() {
			k.missing[shard] = true
		}
		s.count()
	}
	if m.verb == turnClaims {
		s.claimed(m)
		return
	}
	q := k.queue(m.name)
	switch m.verb {
	case turnAsk:
		s.askedTurn(q, m)
	case turnReturn:
		delete(q.held, m.id)
		q.add(waiter{m.id, m.scheduled})
		q.sort()
	case turnHold:
		if _, held := q.held[m.id]; !held && !q.waits(m.id) {
			q.held[m.id] = 0
		}
	case turnLeave:
		delete(q.held, m.id)
		q.drop(m.id)
	}
	s.pass(m.name, q)
}

func (k *keeper) queue(name string) *turnQueue {
	q := k.queues[name]
	if q == nil {
		q = &turnQueue{held: map[protocol.TaskID]uint64{}}
		k.queues[name] = q
	}
	return q
}

// askedTurn takes in that a task wants its turn; it may have it already.
func (s *shard) askedTurn(q *turnQueue, m *turnMessage) {
	if token, held := q.held[m.id]; held {
		if token != 0 {
			s.grant(m.name, m.id, token)
			return
		}
		delete(q.held, m.id) // it was thought to be at a worker
	}
	q.add(waiter{m.id, m.scheduled})
	if ahead := len(q.held) + len(q.waiting) - 1; ahead > 0 {
		s.sayTurn(shardIndex(m.id.Ref), turnMessage{verb: turnWaits, name: m.name, id: m.id, ahead: ahead})
	}
}

// pass gives a lease that nobody has to the first who waits for it.
func (s *shard) pass(name string, q *turnQueue) {
	k := &s.keeper
	switch {
	case len(q.held)+len(q.waiting) == 0:
		delete(k.queues, name)
	case len(q.held) == 0 && k.complete():
		next := q.waiting[0]
		q.waiting = slices.Delete(q.waiting, 0, 1)
		k.last += tokensPerTurn
		q.held[next.id] = k.last
		s.grant(name, next.id, k.last)
	}
}

func (s *shard) grant(name string, id protocol.TaskID, token uint64) {
	s.sayTurn(shardIndex(id.Ref), turnMessage{verb: turnGrant, name: name, id: id, token: token})
}

// sayTurn has the keeper tell another shard something.
func (s *shard) sayTurn(to uint32, m turnMessage) {
	m.of, m.epoch = s.id, s.epoch
	s.eng.send(to, message{turn: &m})
}

// claimed takes in all that a shard's tasks have.
func (s *shard) claimed(m *turnMessage) {
	k := &s.keeper
	claims := make(map[protocol.TaskID]bool, len(m.claims))
	for i := range m.claims {
		claims[m.claims[i].ID] = true
	}
	over := func(id protocol.TaskID) bool { return shardIndex(id.Ref) == m.of && !claims[id] }
	for _, q := range k.queues {
		for id := range q.held {
			if over(id) {
				delete(q.held, id)
			}
		}
		q.waiting = slices.DeleteFunc(q.waiting, func(w waiter) bool { return over(w.id) })
	}
	for i := range m.claims {
		c := &m.claims[i]
		q := k.queue(c.Name)
		token, held := q.held[c.ID]
		switch {
		case c.Held && !held:
			q.drop(c.ID)
			q.held[c.ID] = c.Token
		case !c.Held && held && token != 0:
			s.grant(c.Name, c.ID, token) // which was lost
		case !c.Held:
			delete(q.held, c.ID) // it was thought to be at a worker
			q.add(waiter{c.ID, c.Scheduled})
		}
	}
	was := k.complete()
	delete(k.missing, m.of)
	for name, q := range k.queues {
		if !was && k.complete() {
			q.sort()
		}
		s.pass(name, q)
	}
}

// count asks for the claims of the shards that have not answered, or, when all
// have, of those that tasks in the queues are of.
func (s *shard) count() {
	k := &s.keeper
	k.counted = s.eng.clock.since()
	whose := map[uint32]bool{}
	if k.complete() {
		for _, q := range k.queues {
			for id := range q.held {
				whose[shardIndex(id.Ref)] = true
			}
			for _, w := range q.waiting {
				whose[shardIndex(w.id.Ref)] = true
			}
		}
	} else {
		for shard := range k.missing {
			whose[shard] = true
		}
	}
	for shard := range whose {
		s.sayTurn(shard, turnMessage{verb: turnCount})
	}
}

// countLate counts again if it is time for that, and says when it will be.
func (s *shard) countLate() time.Duration {
	k := &s.keeper
	every := duePeriod
	switch {
	case !k.begun || k.complete() && len(k.queues) == 0:
		return duePeriod
	case !k.complete():
		every = countAgain
	}
	if left := k.counted + every - s.eng.clock.since(); left > 0 {
		return left
	}
	s.count()
	return every
}

func (q *turnQueue) waits(id protocol.TaskID) bool {
	return slices.ContainsFunc(q.waiting, func(w waiter) bool { return w.id == id })
}

func (q *turnQueue) add(w waiter) {
	if !q.waits(w.id) {
		q.waiting = append(q.waiting, w)
	}
}

func (q *turnQueue) drop(id protocol.TaskID) {
	q.waiting = slices.DeleteFunc(q.waiting, func(w waiter) bool { return w.id == id })
}

// sort puts those first that were scheduled first: recovered tasks come in any
// order.
func (q *turnQueue) sort() {
	slices.SortStableFunc(q.waiting, func(a, b waiter) int {
		return cmp.Or(cmp.Compare(a.scheduled, b.scheduled), cmp.Compare(a.id.Ref, b.id.Ref), cmp.Compare(a.id.Step, b.id.Step))
	})
}
