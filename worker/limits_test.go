package worker

import (
	"context"
	"fmt"
	"testing"

	"github.com/ringmaster-dev/ringmaster/broker"
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

// A worker that is stopped while it has no connection has nothing to drain.
func TestStopBeforeTheFirstConnectionIsClean(t *testing.T) {
	w, err := New(Config{Broker: unreachable{}, Service: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	w.HandleFunc("pay", func(context.Context, []byte) ([]byte, error) { return nil, nil })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := w.Run(ctx); err != nil {
		t.Error(err)
	}
}

// unreachable is a broker that nobody can connect to.
type unreachable struct{}

func (unreachable) Open(ctx context.Context, _ broker.Options) (broker.Conn, error) {
	<-ctx.Done()
	return nil, broker.ErrUnavailable
}

func TestReadOnlyIsAVoteOfPrepareAlone(t *testing.T) {
	err := fmt.Errorf("nothing to change: %w", ErrReadOnly)
	if v := judge(err, nil, false, protocol.PhasePrepare); v.outcome != protocol.OutcomeReadOnly {
		t.Errorf("a prepare answers %v", v.outcome)
	}
	if v := judge(err, nil, false, protocol.PhaseAction); v.outcome != protocol.OutcomeFailed {
		t.Errorf("an action answers %v", v.outcome)
	}
	h := newMetrics().of("pay")
	h.outcomes[protocol.OutcomeReadOnly].Inc() // every outcome has its counter
}
