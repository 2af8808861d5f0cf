package engine

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol"
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
