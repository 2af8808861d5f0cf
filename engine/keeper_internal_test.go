package engine

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker/memory"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/store/storetest"
)

// theatre is two engines that share three shards, and one worker: a simulation of
// whose turn it is, in which shards move, letters are lost, and nothing happens
// but what the test lets happen.
type theatre struct {
	t      *testing.T
	rng    *rand.Rand
	seed   uint64
	lossy  bool
	stages [2]*Engine
	class  [2]*class
	owner  [3]int // of each shard; -1: nobody
	epoch  uint64
	keys   []string

	ghosts map[uint32]*shard // owners that do not know that they have been superseded

	wanted  map[protocol.TaskID]string // tasks that are scheduled and not over, with their keys
	running map[protocol.TaskID]uint64 // at the worker, with their tokens
	tokens  map[string]uint64          // the highest that the worker has seen
	ended   int
	next    int64
}

// someLocks makes an engine one of several; nothing is asked of it.
type someLocks struct{ lock.Provider }

func newTheatre(t *testing.T, seed uint64) *theatre {
	th := &theatre{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 11)), lossy: true, owner: [3]int{-1, -1, -1}, epoch: 1,
		keys: []string{"serial:w/a", "serial:w/b", "serial:w/c"}, wanted: map[protocol.TaskID]string{},
		running: map[protocol.TaskID]uint64{}, ghosts: map[uint32]*shard{}, tokens: map[string]uint64{},
	}
	for i := range th.stages {
		b, err := memory.New(memory.Config{})
		if err != nil {
			t.Fatal(err)
		}
		e, err := New(Config{Store: storetest.NewModel(3), Broker: b, Leases: someLocks{}, Node: fmt.Sprint("e", i)})
		if err != nil {
			t.Fatal(err)
		}
		saga := definitions.Saga("s").Service("shop")
		saga.Step("pay").Action("pay").NoCompensation("a test")
		th.stages[i], th.class[i] = e, e.dispatcher.class(saga.MustBuild().Step(0), machine.Action)
	}
	for shard := range th.owner {
		th.give(uint32(shard), th.rng.IntN(2))
	}
	return th
}

// give makes an engine the owner of a shard, and has it recover its tasks: those
// that are at the worker are adopted, the others wait.
func (th *theatre) give(shard uint32, to int) {
	th.epoch++
	e := th.stages[to]
	s := newShard(e, shard, th.epoch, 0)
	e.dispatcher.own(shard, th.epoch)
	var limbo []limboTask
	for id, key := range th.wanted {
		if shardIndex(id.Ref) == shard {
			limbo = append(limbo, limboTask{
				timeout: time.Minute, scheduled: time.UnixMilli(id.Ref & 0xffff),
				offer: offer{class: th.class[to], serial: key, entry: entry{id: id}},
			})
		}
	}
	e.dispatcher.recovered(limbo)
	e.shards.add(s)
	e.dispatcher.serve(shard, nil)
	th.owner[shard] = to
	th.beat(to)
	e.dispatcher.mu.Lock()
	e.dispatcher.release(func(string) bool { return true }, false)
	e.dispatcher.mu.Unlock()
	for _, e := range th.stages { // who hear of it by its announcement
		e.ownerChanged(shard, th.epoch)
	}
}

// take ends the ownership of a shard.
func (th *theatre) take(shard uint32) {
	if at := th.owner[shard]; at >= 0 {
		e := th.stages[at]
		s := e.shards.get(shard)
		e.shards.remove(s)
		e.dispatcher.disown(shard)
		th.owner[shard] = -1
		if th.rng.IntN(2) == 0 {
			th.ghosts[shard] = s
		}
	}
}

// beat is the worker's heartbeat to one engine.
func (th *theatre) beat(to int) {
	th.next++
	hb := protocol.Heartbeat{
		Worker: "w", Name: "w", Queue: "q", Service: "shop", TaskTypes: []string{"pay"}, Credit: 100, Weight: 100,
		IntervalMS: 1000, Sequence: uint64(th.next), Received: map[string]uint64{th.stages[to].id: 1 << 40},
	}
	for id := range th.running {
		hb.Running = append(hb.Running, protocol.Held{TaskID: id})
	}
	d := th.stages[to].dispatcher
	d.heard(&hb)
	d.noted(d.known.now)
}

// schedule has a task come up.
func (th *theatre) schedule() {
	shard := uint32(th.rng.IntN(3))
	at := th.owner[shard]
	if at < 0 {
		return
	}
	th.next++
	id := protocol.TaskID{Ref: int64(shard)<<40 | th.next, Phase: protocol.PhaseAction, Generation: 1, Attempt: 1}
	key := th.keys[th.rng.IntN(len(th.keys))]
	th.wanted[id] = key
	th.stages[at].dispatcher.offer([]offer{{
		class: th.class[at], serial: key, entry: entry{id: id, task: &protocol.Task{TaskID: id, Timeout: time.Minute}},
	}})
}

// move has letters and messages go, and tasks be sent, until nothing moves.
func (th *theatre) move() {
	for busy := true; busy; {
		busy = false
		for _, e := range th.stages {
			for _, l := range e.outgoing.take(nil) {
				busy = true
				if th.lossy && th.rng.IntN(8) == 0 {
					continue
				}
				body, err := json.Marshal([]letter{l})
				if err != nil {
					th.t.Fatal(err)
				}
				if g := th.ghosts[l.Shard]; g != nil && l.Turn != nil { // its queue is bound still
					if m, ok := l.message(); ok {
						g.turn(m.turn)
					}
				}
				if to := th.owner[l.Shard]; to >= 0 {
					th.stages[to].lettersCame(body)
				}
			}
			for s := range e.shards.all() {
				for _, m := range s.inbox.take(nil) {
					busy = true
					switch {
					case m.turn != nil:
						s.turn(m.turn)
					case m.fetch != nil:
						e.dispatcher.assign(m.fetch, &protocol.Task{TaskID: m.fetch.id, Timeout: time.Minute})
					case m.moved != nil:
						if err := s.ownerMoved(*m.moved); err != nil {
							th.t.Fatal(err)
						}
					}
				}
			}
			for _, p := range e.dispatcher.collect(nil) {
				for _, s := range p.tasks {
					busy = true
					th.arrive(s.task)
				}
			}
		}
	}
}

// arrive has the worker begin a task: no other of its key may be under way.
func (th *theatre) arrive(task *protocol.Task) {
	if _, again := th.running[task.TaskID]; again {
		return
	}
	key := th.wanted[task.TaskID]
	for id := range th.running {
		if th.wanted[id] == key {
			th.t.Fatalf("seed %d: %v is begun beside %v, both of %s", th.seed, task.TaskID, id, key)
		}
	}
	token := task.Tokens[0]
	if token.Name != key || token.Token <= th.tokens[key] {
		th.t.Fatalf("seed %d: %v has token %v after %d", th.seed, task.TaskID, token, th.tokens[key])
	}
	th.running[task.TaskID], th.tokens[key] = token.Token, token.Token
}

// answer has the worker end a task, if somebody is there who hears of it.
func (th *theatre) answer() {
	ids := make([]protocol.TaskID, 0, len(th.running))
	for id := range th.running {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b protocol.TaskID) int { return int(a.Ref - b.Ref) })
	for _, id := range ids {
		if at := th.owner[shardIndex(id.Ref)]; at >= 0 {
			delete(th.running, id)
			delete(th.wanted, id)
			th.ended++
			th.stages[at].dispatcher.answered([]protocol.Result{{TaskID: id, Worker: "w", Outcome: protocol.OutcomeSucceeded}})
			return
		}
	}
}

// later lets the time pass after which lost messages are made up for.
func (th *theatre) later() {
	for i, e := range th.stages {
		d := e.dispatcher
		d.mu.Lock()
		d.askedAt -= 2 * askAgain
		d.repeatAsks(e.clock.since())
		d.mu.Unlock()
		for s := range e.shards.all() {
			if s.keeper.begun {
				s.count()
			}
		}
		th.beat(i)
	}
}

// TestTurnsWhileShardsMoveAndLettersAreLost has tasks of few keys come up in shards
// that move between two orchestrators, whose letters are lost now and then: at no
// time are two tasks of a key under way, tokens grow, and once nothing is lost any
// more all tasks come to their end.
func TestTurnsWhileShardsMoveAndLettersAreLost(t *testing.T) {
	for seed := range uint64(500) {
		th := newTheatre(t, seed)
		for range 80 {
			switch th.rng.IntN(8) {
			case 0, 1, 2:
				th.schedule()
			case 3, 4:
				th.answer()
			case 5:
				th.take(uint32(th.rng.IntN(3)))
			case 6:
				if shard := uint32(th.rng.IntN(3)); th.owner[shard] < 0 {
					th.give(shard, th.rng.IntN(2))
				}
			default:
				th.later()
			}
			th.move()
		}
		th.lossy = false
		for shard := range th.owner {
			if th.owner[shard] < 0 {
				th.give(uint32(shard), th.rng.IntN(2))
			}
		}
		for n := 0; len(th.wanted) > 0; n++ {
			if n > 500 {
				t.Fatalf("seed %d: %d tasks wait for ever, %d run", seed, len(th.wanted), len(th.running))
			}
			th.move()
			th.answer()
			th.later()
		}
	}
}
