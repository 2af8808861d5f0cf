package engine

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

const serialKey = "serial:w/k"

// giveSerial offers a task of a serial workflow's key.
func (d *desk) giveSerial(key string, n int64) {
	id := task(n)
	d.offer([]offer{{class: d.class, serial: key, entry: entry{id: id, hash: uint64(n), task: &protocol.Task{TaskID: id, Timeout: time.Minute}}}})
}

// collected takes what would be published now, and has shards build the tasks
// that the queues of keys do not hold.
func (d *desk) collected() (all []*sent) {
	d.t.Helper()
	d.deliver(nil)
	for _, p := range d.collect(nil) {
		all = append(all, p.tasks...)
	}
	return all
}

// deliver has the shard do what it can do without runs: it decides whose turn it
// is, and builds tasks. What else comes to it is for the test.
func (d *desk) deliver(f func(message)) {
	s := d.eng.shards.get(0)
	for batch := s.inbox.take(nil); len(batch) > 0; batch = s.inbox.take(nil) {
		for _, m := range batch {
			switch {
			case m.turn != nil:
				s.turn(m.turn)
			case m.fetch != nil:
				d.assign(m.fetch, &protocol.Task{TaskID: m.fetch.id, Timeout: time.Minute})
			case f != nil:
				f(m)
			}
		}
	}
}

// next is the one task that would be published now, and its token.
func (d *desk) next(want int64) uint64 {
	d.t.Helper()
	all := d.collected()
	if len(all) != 1 || all[0].id.Ref != want {
		d.t.Fatalf("%d tasks are sent, want task %d alone", len(all), want)
	}
	tokens := all[0].task.Tokens
	if len(tokens) != 1 || tokens[0].Name != serialKey || tokens[0].Token <= firstToken(1) {
		d.t.Fatalf("the task's tokens are %v", tokens)
	}
	return tokens[0].Token
}

func (d *desk) none() {
	d.t.Helper()
	if all := d.collected(); len(all) > 0 {
		d.t.Fatalf("%d tasks are sent", len(all))
	}
}

func (d *desk) answer(worker string, n int64) {
	d.answered([]protocol.Result{{TaskID: task(n), Worker: worker, Outcome: protocol.OutcomeSucceeded}})
}

func TestTheNextTaskOfAKeyGoesWhenTheOneBeforeIsAnswered(t *testing.T) {
	d := newDesk(t)
	d.beat("a", "qa", nil)
	d.beat("b", "qb", nil)
	for n := range int64(4) {
		d.giveSerial(serialKey, n+1)
	}
	d.giveSerial("serial:w/other", 9)
	if all := d.collected(); len(all) != 2 {
		t.Fatalf("%d tasks are sent of two keys", len(all))
	}
	if got := d.queues(); got[0].Waiting != 3 {
		t.Errorf("%d tasks wait", got[0].Waiting)
	}
	before := uint64(0)
	for n := range int64(3) {
		d.answer("a", n+1)
		d.answer("b", n+1)
		token := d.next(n + 2)
		if token <= before {
			t.Errorf("token %d after %d", token, before)
		}
		before = token
	}
	d.answer("a", 4)
	d.answer("b", 4)
	d.answer("a", 9)
	d.answer("b", 9)
	if len(d.leases) != 0 {
		t.Errorf("%d leases are left", len(d.leases))
	}
}

func TestATaskThatMovesKeepsTheLeaseUnderAHigherToken(t *testing.T) {
	d := newDesk(t)
	d.beat("a", "qa", nil)
	d.giveSerial(serialKey, 1)
	d.giveSerial(serialKey, 2)
	first := d.next(1)
	d.beat("b", "qb", nil)
	d.returned("qa", []protocol.TaskID{task(1)})
	if again := d.next(1); again <= first {
		t.Errorf("token %d after %d", again, first)
	}
	d.answer("b", 1)
	d.next(2)
}

func TestALeaseIsOverWhenItsWorkerIsGivenUp(t *testing.T) {
	d := newDesk(t)
	d.beat("a", "qa", nil)
	d.giveSerial(serialKey, 1)
	d.giveSerial(serialKey, 2)
	first := d.next(1)
	d.beat("b", "qb", func(hb *protocol.Heartbeat) { hb.Draining = true })
	d.mu.Lock()
	d.forget(d.peers["a"], "a test")
	d.mu.Unlock()
	d.none() // nobody takes tasks
	d.beat("b", "qb", nil)
	if second := d.next(2); second <= first {
		t.Errorf("token %d after %d", second, first)
	}
}

func TestTakingATaskBackLetsTheNextOfItsKeyGo(t *testing.T) {
	d := newDesk(t)
	for n := range int64(5) {
		d.giveSerial(serialKey, n+1)
	}
	take := func(n int64) { d.cancel(cancelOrder{id: task(n), class: d.class, serial: serialKey}) }
	take(3) // waits for its key
	take(1) // waits for a worker
	d.expire(task(4), d.class, serialKey)
	d.beat("a", "qa", nil)
	d.next(2)
	d.expire(task(2), d.class, serialKey) // its worker has not started it
	d.next(5)
	d.answer("a", 5)
	if len(d.leases) != 0 || d.class.behind != 0 || d.class.whole != 0 {
		t.Errorf("%d leases, %d behind, %d whole", len(d.leases), d.class.behind, d.class.whole)
	}
}

func TestACancelledTaskThatItsWorkerNeverGotGivesItsLeaseBack(t *testing.T) {
	d := newDesk(t)
	d.giveSerial(serialKey, 1)
	d.giveSerial(serialKey, 2)
	d.beat("a", "qa", nil)
	d.next(1)
	d.cancel(cancelOrder{id: task(1), class: d.class, serial: serialKey})
	d.returned("qa", []protocol.TaskID{task(1)})
	d.beat("b", "qb", nil)
	d.next(2)
}

func TestRecoveredTasksHoldTheLeaseOfTheirKey(t *testing.T) {
	d := newDesk(t)
	at := time.UnixMilli(1_700_000_000_000)
	recovered := func(n int64, age time.Duration) limboTask {
		return limboTask{scheduled: at.Add(-age), offer: offer{class: d.class, serial: serialKey, entry: entry{id: task(n)}}}
	}
	d.recovered([]limboTask{recovered(1, time.Second), recovered(2, time.Minute), recovered(3, time.Hour)})
	d.giveSerial(serialKey, 4)
	d.beat("a", "qa", func(hb *protocol.Heartbeat) { hb.Running = []protocol.Held{{TaskID: task(2)}} })
	d.none() // task 2 is at a, and of the others nobody knows
	d.mu.Lock()
	d.release(func(string) bool { return true }, false)
	d.mu.Unlock()
	d.none()
	d.answer("a", 2)
	for _, n := range []int64{3, 1, 4} { // the longest due first, what is new last
		d.next(n)
		d.answer("a", n)
	}
	if len(d.leases) != 0 || d.class.behind != 0 {
		t.Errorf("%d leases, %d behind", len(d.leases), d.class.behind)
	}
}

// TestAtMostOneTaskOfAKey has workers join, drain, die and answer at random: at no
// time are two tasks of a key under way, tokens grow, and all are done in the end.
func TestAtMostOneTaskOfAKey(t *testing.T) {
	for round := range uint64(200) {
		rng := rand.New(rand.NewPCG(round, 7))
		d := newDesk(t)
		keys := []string{"serial:w/a", "serial:w/b"}
		workers := []string{"a", "b", "c"}
		last := map[string]uint64{}
		open := map[int64]string{}
		n := int64(0)
		check := func() {
			for _, s := range d.collected() {
				token := s.task.Tokens[0]
				if token.Token <= last[token.Name] && s.republished == 0 {
					t.Fatalf("round %d: token %d of %s after %d", round, token.Token, token.Name, last[token.Name])
				}
				last[token.Name] = token.Token
			}
			under := map[string]int{}
			for _, p := range d.peers {
				for _, s := range p.out {
					under[s.lease.name]++
				}
			}
			for key, n := range under {
				if n > 1 {
					t.Fatalf("round %d: %d tasks of %s", round, n, key)
				}
			}
		}
		lost := func() {
			d.deliver(func(m message) {
				if _, ok := m.input.(machine.Lost); ok {
					delete(open, m.ref)
				}
			})
		}
		answerOne := func() {
			for _, p := range d.sortedPeers() {
				for id, s := range p.out {
					if s.seq != 0 {
						delete(open, id.Ref)
						d.answer(p.id, id.Ref)
						return
					}
				}
			}
		}
		for range 60 {
			w := workers[rng.IntN(len(workers))]
			switch rng.IntN(8) {
			case 0, 1, 2:
				n++
				key := keys[rng.IntN(len(keys))]
				open[n] = key
				d.giveSerial(key, n)
			case 3:
				d.beat(w, "q"+w, func(hb *protocol.Heartbeat) { hb.Credit = 1 + rng.IntN(3) })
			case 4:
				d.mu.Lock()
				if p := d.peers[w]; p != nil {
					d.forget(p, "a test")
				}
				d.mu.Unlock()
			case 5:
				if ids := slices.Sorted(maps.Keys(open)); len(ids) > 0 {
					id := ids[rng.IntN(len(ids))]
					d.cancel(cancelOrder{id: task(id), class: d.class, serial: open[id], ended: true})
				}
			default:
				answerOne()
			}
			lost()
			check()
		}
		d.beat("z", "qz", func(hb *protocol.Heartbeat) { hb.Credit = 100 })
		for range 200 {
			answerOne()
			lost()
			check()
		}
		if len(d.leases) != 0 || d.class.behind != 0 {
			t.Fatalf("round %d: %d leases are left, %d tasks wait", round, len(d.leases), d.class.behind)
		}
	}
}
