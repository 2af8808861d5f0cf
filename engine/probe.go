package engine

import (
	"context"
	"strconv"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
)

// kindProbe is the type of a message that an orchestrator sends, once an interval,
// to the queue on which it gets heartbeats, and that nobody else sees. When it comes
// back, whatever the broker had before it has been read: who has not been heard of
// for three intervals before it was sent is silent. By the clock alone, heartbeats
// that wait to be read, since this process or the broker has more to do than it
// can, would be taken for those of dead workers, whose tasks are then sent again
// and make matters worse.
const kindProbe = "probe"

// probe sends a probe. Without a connection there is none, and nobody is silent.
func (e *Engine) probe(ctx context.Context) {
	queue := e.ownHeartbeats.Load()
	if queue == nil {
		return
	}
	// One that is lost is followed by the next.
	_ = e.conn.Publish(ctx, broker.Message{Key: *queue, Type: kindProbe, ID: strconv.FormatInt(int64(e.clock.since()), 10)})
}

func (e *Engine) probed(m *broker.Message) {
	sent, err := strconv.ParseInt(m.ID, 10, 64)
	if err != nil {
		e.metrics.poison.Inc() // it is not ours
		return
	}
	e.dispatcher.silence(time.Duration(sent))
}

// silence looks for workers that have not been heard of for three intervals before
// now, by the engine's clock.
func (d *dispatcher) silence(now time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.connected {
		return
	}
	for _, p := range d.sortedPeers() {
		if now > p.graceUntil && now-p.seen > silentAfter*max(p.interval, d.eng.cfg.HeartbeatInterval) {
			d.forget(p, "silent")
		}
	}
	d.wakeSender()
}
