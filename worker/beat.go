package worker

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/ringmaster-dev/ringmaster/protocol"
)

// beatGap is the shortest time between two heartbeats, whatever happens.
const beatGap = 10 * time.Millisecond

// beat publishes heartbeats: at every interval, and at once when there is news
// that orchestrators should not wait for.
func (w *Worker) beat(ctx context.Context) {
	tick := time.NewTicker(w.cfg.HeartbeatInterval)
	defer tick.Stop()
	gap := time.NewTimer(0)
	defer gap.Stop()
	for {
		select {
		case <-gap.C:
		case <-ctx.Done():
			return
		}
		select {
		case <-tick.C:
			w.housekeep()
		case <-w.news:
		case <-ctx.Done():
			return
		}
		w.publishHeartbeat(ctx, false)
		gap.Reset(beatGap)
	}
}

// housekeep does what is due at every interval.
func (w *Worker) housekeep() {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.board.overdue(now)
	w.board.prune(now)
	kick(w.post)
}

func (w *Worker) publishHeartbeat(ctx context.Context, leaving bool) {
	h, ok := w.heartbeat(leaving)
	if !ok {
		return
	}
	m := protocol.EncodeHeartbeat(protocol.HeartbeatsExchange(w.cfg.Namespace), &h)
	if err := w.conn.Publish(ctx, m); err != nil {
		w.log.Debug("heartbeat not sent", slog.Any("error", err))
	}
}

// heartbeat is made under the lock, so that it is a true picture of one
// moment: whatever it counts as received it lists, unless it is done with it.
// ok is false as long as there is no queue to name.
func (w *Worker) heartbeat(leaving bool) (h protocol.Heartbeat, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.queue == "" {
		return h, false
	}
	w.beats++
	now := time.Now()
	w.sharers = w.board.sharers(now)
	h = protocol.Heartbeat{
		Worker: w.id, Name: w.cfg.Name, Queue: w.queue, Service: w.cfg.Service,
		TaskTypes: w.types, Capacity: w.cfg.Concurrency, Credit: w.credit(),
		Weight: w.cfg.Weight, Release: w.cfg.Release, Leaving: leaving,
		IntervalMS: w.cfg.HeartbeatInterval.Milliseconds(), Sequence: w.beats,
	}
	if !w.cfg.DisableBatch {
		h.Capabilities = []string{protocol.CapabilityBatch}
	}
	w.board.list(&h, now)
	return h, true
}

// SetWeight changes the worker's share of the ring, 1 to 1,000, and tells the
// orchestrators at once: keys move to or from this worker, in proportion to the
// difference, and none between others. Tasks that are here stay. It may be called
// at any time, by any goroutine; its error names the range.
func (w *Worker) SetWeight(weight int) error {
	if err := checkWeight(weight); err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	w.mu.Lock()
	w.cfg.Weight = weight
	w.mu.Unlock()
	kick(w.news)
	return nil
}

// TaskTypes are the task types that handlers were registered for, with their
// versions, in order.
func (w *Worker) TaskTypes() []string {
	types := make([]string, 0, len(w.handlers))
	for t := range w.handlers {
		types = append(types, t)
	}
	slices.Sort(types)
	return types
}

// kick puts a token into a channel that holds one.
func kick(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
