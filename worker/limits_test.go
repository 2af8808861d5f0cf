package worker

import (
	"testing"

	"github.com/ringmaster-dev/ringmaster/protocol"
)

// The largest configuration that Config.validate allows: Concurrency 10,000,
// Prefetch 20,000, MaxHeldResults 20,000.
func TestHeartbeatOfTheLargestWorkerIsReadable(t *testing.T) {
	c := Config{Concurrency: 10_000, Prefetch: 20_000, MaxHeldResults: 20_000}
	held := func(n int) []protocol.Held {
		out := make([]protocol.Held, n)
		for i := range out {
			out[i] = protocol.Held{TaskID: protocol.TaskID{Ref: 7<<40 + int64(i), Step: 1, Phase: protocol.PhaseAction, Generation: 1, Attempt: 1}, Shard: 7}
		}
		return out
	}
	h := protocol.Heartbeat{
		Worker: "a", Name: "a", Queue: "q", Service: "s", Capacity: c.Concurrency, Credit: c.Concurrency + c.Prefetch, Weight: 100,
		IntervalMS: 1000, Sequence: 1, Queued: held(c.Prefetch), Finished: held(c.MaxHeldResults),
	}
	m := protocol.EncodeHeartbeat("x", &h)
	if _, err := protocol.DecodeHeartbeat(&m); err != nil {
		t.Errorf("orchestrators cannot read it, and count the worker as dead: %v", err)
	}
}
