package engine

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

// BenchmarkDispatch takes tasks through the dispatcher: offered, placed on one of
// the workers, taken for publishing, answered.
func BenchmarkDispatch(b *testing.B) {
	for _, workers := range []int{8, 1000} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) { benchDispatch(b, workers) })
	}
}

func benchDispatch(b *testing.B, workers int) {
	d := newDesk(b)
	d.populate(workers)
	const batch = 100
	b.ReportAllocs()
	b.ResetTimer()
	for n := int64(0); b.Loop(); n += batch {
		offers := make([]offer, batch)
		for i := range offers {
			id := task(n + int64(i) + 1)
			offers[i] = offer{class: d.class, entry: entry{id: id, hash: uint64(id.Ref) * 0x9e3779b97f4a7c15, task: &protocol.Task{TaskID: id, Timeout: time.Minute}}}
		}
		d.offer(offers)
		var results []protocol.Result
		for _, p := range d.collect(nil) {
			for _, s := range p.tasks {
				results = append(results, protocol.Result{TaskID: s.id, Worker: p.peer.id, Outcome: protocol.OutcomeSucceeded})
			}
		}
		if len(results) != batch {
			b.Fatalf("%d of %d tasks are sent", len(results), batch)
		}
		d.answered(results)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch), "ns/task")
}

// populate has workers join, one after the other, with ids that are in use all
// over the alphabet.
func (d *desk) populate(workers int) {
	for i := range workers {
		d.beat(fmt.Sprintf("w%d", i), fmt.Sprintf("q%d", i), func(hb *protocol.Heartbeat) { hb.Credit = 100 })
	}
	d.caughtUp()
}

// caughtUp waits until no ring is behind.
func (d *desk) caughtUp() {
	for behind := true; behind; {
		d.mu.Lock()
		behind = false
		for _, f := range d.fleets {
			behind = behind || f.behind
		}
		d.mu.Unlock()
		runtime.Gosched()
	}
}

// BenchmarkJoin has 1,000 workers join one after the other, of a service with ten
// classes, and waits until all have their places.
func BenchmarkJoin(b *testing.B) {
	for b.Loop() {
		d := newDesk(b)
		for i := range 10 {
			d.dispatcher.class(&definitions.Step{Service: "shop", Action: "pay", Placement: definitions.Placement(i % 3)}, machine.Action)
			d.dispatcher.class(&definitions.Step{Service: "shop", Action: fmt.Sprintf("pay@%d", i)}, machine.Action)
		}
		d.populate(1000)
		if n := len(d.class.members); n != 1000 {
			b.Fatalf("%d workers are on the ring", n)
		}
	}
}

// BenchmarkHeartbeat reads a heartbeat of one of 1,000 workers, with some tasks in
// it, and takes it in.
func BenchmarkHeartbeat(b *testing.B) {
	d := newDesk(b)
	d.populate(1000)
	hb := protocol.Heartbeat{
		Worker: "w500", Name: "w500", Queue: "q500", Service: "shop", TaskTypes: []string{"pay"},
		Capacity: 10, Credit: 100, Weight: 100, IntervalMS: 1000, Received: map[string]uint64{d.eng.id: 1},
	}
	for i := range 8 {
		hb.Running = append(hb.Running, protocol.Held{TaskID: task(int64(i + 1))})
	}
	b.ReportAllocs()
	for n := uint64(1_000_000); b.Loop(); n++ {
		hb.Sequence = n
		m := protocol.EncodeHeartbeat("x", &hb)
		b.SetBytes(int64(len(m.Body)))
		h, err := protocol.DecodeHeartbeat(&m)
		if err != nil {
			b.Fatal(err)
		}
		d.heard(&h)
	}
}
