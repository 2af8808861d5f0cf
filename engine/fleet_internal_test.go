package engine

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/ring"
)

func TestRingsOfManyWorkersAreMadeAtIntervals(t *testing.T) {
	d := newDesk(t)
	strict := d.dispatcher.class(&definitions.Step{Service: "shop", Action: "pay", Placement: definitions.Ring}, machine.Action)
	const workers = 400
	d.populate(workers)
	if n := testutil.ToFloat64(d.eng.metrics.ringRebuilds); n > workers/2+eagerWorkers {
		t.Errorf("rings were made %v times while %d workers joined", n, workers)
	}
	if len(d.class.members) != workers || d.class.ring != strict.ring || d.class.ring.Len() != workers {
		t.Errorf("%d of %d workers are on the ring", len(d.class.members), workers)
	}
	// The rings may be behind when a worker drains; it gets nothing all the same.
	d.beat("w7", "q7", func(hb *protocol.Heartbeat) { hb.Credit, hb.Draining = 100, true })
	d.beat("w8", "q8", func(hb *protocol.Heartbeat) { hb.Leaving = true })
	for n := range int64(3 * workers) {
		class := d.class
		if n%2 == 1 {
			class = strict
		}
		o := offerOf(class, n+1)
		o.hash = uint64(n) * 0x9e3779b97f4a7c15
		d.offer([]offer{o})
	}
	d.caughtUp()
	sent := d.sent()
	total := 0
	for _, tasks := range sent {
		total += len(tasks)
	}
	if len(sent["q7"])+len(sent["q8"]) > 0 || total != 3*workers {
		t.Errorf("%d of %d tasks were sent, %d of them to a worker that drains and %d to one that has left",
			total, 3*workers, len(sent["q7"]), len(sent["q8"]))
	}
	if len(d.class.members) != workers-2 {
		t.Errorf("%d workers are on the ring", len(d.class.members))
	}
}

func TestTheFrontOfAQueueIsWhatItGivesNext(t *testing.T) {
	var q backlog
	id := func(n int) protocol.TaskID { return protocol.TaskID{Ref: int64(n), Attempt: 1} }
	const n = 3 * chunkSize
	for i := range n {
		q.push(entry{id: id(i), priority: uint8(i % 2)})
	}
	for i := 0; i < n; i += 3 {
		q.remove(id(i))
	}
	for q.len() > 0 {
		if front, next := q.front().id, q.len(); front != q.pop().id || q.len() != next-1 {
			t.Fatalf("the front of %d entries was %v", next, front)
		}
	}
}

// TestAWorkerGetsTasksByItsWeight offers tasks with keys of their own, while few
// and while many are in flight, and counts who gets them.
func TestAWorkerGetsTasksByItsWeight(t *testing.T) {
	for _, place := range []definitions.Placement{definitions.Bounded, definitions.Ring, definitions.LeastLoaded} {
		for _, inFlight := range []int{1, 40, 2000} {
			t.Run(fmt.Sprintf("%s/%d in flight", place, inFlight), func(t *testing.T) {
				d := newDesk(t)
				d.class = d.dispatcher.class(&definitions.Step{Service: "shop", Action: "pay", Placement: place}, machine.Action)
				beat := func(worker string, weight int) {
					d.beat(worker, worker, func(hb *protocol.Heartbeat) { hb.Credit, hb.Weight = 10_000, weight })
				}
				beat("heavy", 300)
				beat("b", 100)
				beat("c", 100)
				// The ring's shares deviate by a tenth or so from the weights.
				within := func(what string, got int, fair float64) {
					t.Helper()
					if f := float64(got); f < 0.75*fair || f > 1.25*fair {
						t.Errorf("%s: got %d tasks, where %.0f would be fair", what, got, fair)
					}
				}
				const tasks = 4000
				got := d.flow(tasks, inFlight)
				within("of weight 300", got["heavy"], tasks*3/5)
				within("of weight 100", got["b"], tasks/5)
				within("of weight 100", got["c"], tasks/5)
				beat("heavy", 50)
				got = d.flow(tasks, inFlight)
				within("now of weight 50", got["heavy"], tasks/5)
				within("of weight 100 beside 50", got["b"], tasks*2/5)
			})
		}
	}
}

// flow sends tasks with keys of their own, of which so many are in flight at a
// time, and returns how many each worker has got. None is left.
func (d *desk) flow(tasks, inFlight int) map[string]int {
	got := map[string]int{}
	var there []protocol.Result
	answer := func(n int) {
		d.answered(there[:n])
		there = there[n:]
	}
	for range tasks {
		d.given++
		o := offerOf(d.class, d.given)
		o.hash = ring.Hash(fmt.Sprint("key ", d.given))
		d.offer([]offer{o})
		for _, p := range d.collect(nil) {
			for _, s := range p.tasks {
				got[p.peer.id]++
				there = append(there, protocol.Result{TaskID: s.id, Worker: p.peer.id, Outcome: protocol.OutcomeSucceeded})
			}
		}
		if len(there) == inFlight {
			answer(1 + inFlight/10)
		}
	}
	answer(len(there))
	return got
}
