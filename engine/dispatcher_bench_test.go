package engine

import (
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/protocol"
)

// BenchmarkDispatch takes tasks through the dispatcher: offered, placed on one of
// eight workers, taken for publishing, answered.
func BenchmarkDispatch(b *testing.B) {
	d := newDesk(b)
	workers := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	for _, w := range workers {
		d.beat(w, "q"+w, func(hb *protocol.Heartbeat) { hb.Credit = 100 })
	}
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
}
