package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

// declare makes what messages are published to.
func (e *Engine) declare(ctx context.Context) error {
	ns := e.cfg.Namespace
	return e.conn.Declare(ctx,
		[]broker.Exchange{
			{Name: protocol.ResultsExchange(ns), Kind: broker.Direct},
			{Name: protocol.HeartbeatsExchange(ns), Kind: broker.Fanout},
			{Name: protocol.ShardsExchange(ns), Kind: broker.Direct},
			{Name: protocol.AnnouncementsExchange(ns), Kind: broker.Fanout},
		},
		[]string{protocol.RequestsQueue(ns), protocol.DeadLettersQueue(ns)})
}

// subscribe starts to listen to workers, to other orchestrators and to requests.
func (e *Engine) subscribe(ctx context.Context) error {
	ns := e.cfg.Namespace
	var mine []string
	for s := range e.shards.all() {
		mine = append(mine, protocol.ShardKey(s.id))
	}
	subscriptions := []broker.Subscription{
		{Queue: ns + ".results." + e.id, Kind: broker.Exclusive, NoAck: true, Handler: e.onResults, Bindings: e.binding(protocol.ResultsExchange(ns), mine...)},
		{
			Queue: ns + ".heartbeats." + e.id, Kind: broker.Exclusive, NoAck: true, Handler: e.onHeartbeat,
			OnDeclared: func(queue string) { e.ownHeartbeats.Store(&queue) },
			Bindings:   []broker.Binding{{Exchange: broker.Exchange{Name: protocol.HeartbeatsExchange(ns), Kind: broker.Fanout}}},
		},
		{
			Queue: ns + ".announcements." + e.id, Kind: broker.Exclusive, NoAck: true, Handler: e.onAnnouncement,
			Bindings: []broker.Binding{{Exchange: broker.Exchange{Name: protocol.AnnouncementsExchange(ns), Kind: broker.Fanout}}},
		},
	}
	if e.cfg.Leases != nil {
		subscriptions = append(subscriptions, broker.Subscription{
			Queue: protocol.MailQueue(ns, e.id), Kind: broker.Exclusive, NoAck: true, Handler: e.onMail,
			Bindings: e.binding(protocol.ShardsExchange(ns), protocol.NodeKey(e.id)),
		})
	}
	// Last, since a request may need all of the above.
	subscriptions = append(subscriptions, broker.Subscription{Queue: protocol.RequestsQueue(ns), Kind: broker.Shared, Prefetch: 256, Handler: e.onRequest})
	for _, s := range subscriptions {
		c, err := e.conn.Subscribe(ctx, s)
		if err != nil {
			return err
		}
		e.consumers = append(e.consumers, c)
	}
	return nil
}

// binding binds keys of a direct exchange; none where there are no keys.
func (e *Engine) binding(exchange string, keys ...string) []broker.Binding {
	if len(keys) == 0 {
		return nil
	}
	return []broker.Binding{{Exchange: broker.Exchange{Name: exchange, Kind: broker.Direct}, Keys: keys}}
}

// Places of consumers in Engine.consumers.
const (
	consumerResults = 0
	consumerMail    = 3
)

// listen has what is sent to a shard come here.
func (e *Engine) listen(ctx context.Context, shard uint32) {
	for i, exchange := range shardExchanges(e.cfg.Namespace) {
		b := e.binding(exchange, protocol.ShardKey(shard))[0]
		if err := e.consumers[i].Bind(ctx, b); err != nil && ctx.Err() == nil {
			e.log.Error("what is sent to a shard does not come here", "shard", shard, "exchange", exchange, "error", err)
		}
	}
}

// unlisten undoes listen.
func (e *Engine) unlisten(shard uint32) {
	ctx, cancel := context.WithTimeout(e.background, e.cfg.LeaseTime)
	defer cancel()
	for i, exchange := range shardExchanges(e.cfg.Namespace) {
		b := e.binding(exchange, protocol.ShardKey(shard))[0]
		if err := e.consumers[i].Unbind(ctx, b); err != nil {
			e.log.Warn("what is sent to a shard still comes here", "shard", shard, "exchange", exchange, "error", err)
		}
	}
}

// shardExchanges are what a shard is reached by, and the consumers of each.
func shardExchanges(ns string) map[int]string {
	return map[int]string{consumerResults: protocol.ResultsExchange(ns), consumerMail: protocol.ShardsExchange(ns)}
}

// onResults hands workers' answers to the shards of their runs.
func (e *Engine) onResults(dl broker.Delivery) {
	results, bad, err := protocol.DecodeResults(&dl.Message)
	if err != nil {
		e.deadLetter(&dl.Message, dl.Exchange, err)
		return
	}
	for _, b := range bad {
		e.keepLetter(protocol.DeadLetterEntry(protocol.DeadLettersQueue(e.cfg.Namespace), &dl.Message, dl.Exchange, b), b.Err)
	}
	e.metrics.resultBatch.Observe(float64(len(results)))
	dropped, stray := e.dispatcher.answered(results)
	for i := range results {
		r := &results[i]
		settled := settledResult{worker: r.Worker, seq: r.Seq}
		if r.Owner != e.id {
			settled.seq = 0 // in the numbering of an orchestrator that was here before
		}
		if r.Ref <= 0 || shardIndex(r.Ref) >= e.shards.count() || dropped[i] {
			e.dispatcher.settled([]settledResult{settled})
			continue
		}
		e.checkOutput(r)
		e.metrics.result(r)
		// If the shard has gone, the worker keeps the result for its new owner.
		e.tell(r.Ref, message{ref: r.Ref, runID: r.RunID, stray: stray[i], settled: settled, input: machine.Result{
			Step: int(r.Step), Phase: machine.Phase(r.Phase), Generation: r.Generation, Attempt: r.Attempt,
			Outcome: machine.Outcome(r.Outcome), Retryable: r.Retryable, Code: r.Code, Message: r.Message,
			Stack: r.Stack, Worker: r.Worker, Output: r.Payload,
		}})
	}
}

// checkOutput turns a success whose output cannot be kept into an outcome that
// is unknown: its effect has happened. Of another outcome it drops progress that
// cannot be kept.
func (e *Engine) checkOutput(r *protocol.Result) {
	switch {
	case len(r.Payload) == 0:
		return
	case r.Outcome != protocol.OutcomeSucceeded && r.Outcome != protocol.OutcomeReadOnly:
		if len(r.Payload) > protocol.MaxProgressBytes || !json.Valid(r.Payload) {
			r.Payload = nil // no progress to keep
		}
		return
	case len(r.Payload) > e.cfg.Limits.MaxPayloadBytes:
		r.Message = fmt.Sprintf("the output is %d bytes long; at most %d", len(r.Payload), e.cfg.Limits.MaxPayloadBytes)
	case !json.Valid(r.Payload):
		r.Message = "the output is not JSON"
	default:
		return
	}
	r.Outcome, r.Retryable, r.Code, r.Payload = protocol.OutcomeUnknown, false, "bad_output", nil
}

// answered takes the answered tasks off their workers. It turns a failure into
// an unknown outcome where another worker may have had the attempt before,
// and marks as dropped the failures of attempts that another worker has now, as
// stray what was at no worker (it may wait to be sent again).
func (d *dispatcher) answered(results []protocol.Result) (dropped, stray map[int]bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var refill []*peer
	for i := range results {
		r := &results[i]
		p := d.peers[r.Worker]
		var s *sent
		if p != nil {
			s = p.out[r.TaskID]
		}
		switch l := d.limbo[r.TaskID]; {
		case s != nil:
			delete(p.out, r.TaskID)
			s.dropped = true
			d.left(&s.entry)
			if len(refill) == 0 || refill[len(refill)-1] != p {
				refill = append(refill, p)
			}
		case l != nil:
			delete(d.limbo, r.TaskID)
			d.left(&l.entry)
		case r.Outcome == protocol.OutcomeFailed && d.elsewhere(r.TaskID):
			if dropped == nil {
				dropped = map[int]bool{}
			}
			dropped[i] = true
		default:
			if stray == nil {
				stray = map[int]bool{}
			}
			stray[i] = true
		}
		if r.Resent && r.Outcome == protocol.OutcomeFailed {
			r.Outcome = protocol.OutcomeUnknown
		}
	}
	for _, p := range refill {
		d.refill(p)
	}
	d.wakeSender()
	return dropped, stray
}

// elsewhere tells whether some worker has the attempt.
func (d *dispatcher) elsewhere(id protocol.TaskID) bool {
	for _, p := range d.peers {
		if p.out[id] != nil {
			return true
		}
	}
	return false
}

func (e *Engine) onHeartbeat(dl broker.Delivery) {
	if dl.Type == kindProbe {
		e.probed(&dl.Message)
		return
	}
	hb, err := protocol.DecodeHeartbeat(&dl.Message)
	if fault, ok := errors.AsType[*protocol.VersionError](err); ok {
		e.strangers.worker(&hb, fault)
		return
	}
	if err != nil {
		e.metrics.poison.Inc()
		e.log.Warn("heartbeat refused", "error", err)
		return
	}
	e.dispatcher.heard(&hb)
}

// onReturn takes in that a message to a worker came back.
func (e *Engine) onReturn(m broker.Message) {
	if m.Type == string(protocol.KindErrand) {
		e.errands.answered(m.CorrelationID, reply{})
		return
	}
	var ids []protocol.TaskID
	if m.Type == string(protocol.KindTask) {
		tasks, _, _, err := protocol.DecodeTasks(&m)
		if err != nil {
			e.log.Error("a task of ours came back unreadable", "queue", m.Key, "error", err)
		}
		for i := range tasks {
			ids = append(ids, tasks[i].TaskID)
		}
	}
	e.dispatcher.returned(m.Key, ids)
}

// announceLoop tells workers who owns which shard and which results are
// durable, and checks for lost tasks, once an interval.
func (e *Engine) announceLoop(ctx context.Context) {
	tick := time.NewTicker(e.cfg.HeartbeatInterval)
	defer tick.Stop()
	again := time.NewTimer(secondHello)
	defer again.Stop()
	for {
		select {
		case <-tick.C:
		case <-e.news:
			e.announce(ctx, protocol.Announcement{})
			continue
		case <-e.hello:
			e.announce(ctx, protocol.Announcement{Hello: true})
			again.Reset(secondHello)
			continue
		case <-again.C:
			e.announce(ctx, protocol.Announcement{Hello: true})
			continue
		case <-ctx.Done():
			return
		}
		e.announce(ctx, protocol.Announcement{})
		e.clock.follow()
		e.dispatcher.sweep()
		e.strangers.sweep()
		e.probe(ctx)
	}
}

// announce publishes an announcement; what it says of shards and watermarks is
// filled in. A failure is made good by the next one.
func (e *Engine) announce(ctx context.Context, a protocol.Announcement) {
	a.Orchestrator = e.id
	a.Seq = e.announced.Add(1) // before it says which shards are owned
	a.IntervalMS = e.cfg.HeartbeatInterval.Milliseconds()
	a.Shards = map[uint32]uint64{}
	for s := range e.shards.all() {
		a.Shards[s.id] = s.epoch
	}
	a.Leaving = e.leaving.Load()
	a.Standby = e.cfg.Leases != nil && e.ownership.standby()
	a.Durable = e.dispatcher.tellMarks()
	if err := e.conn.Publish(ctx, protocol.EncodeAnnouncement(protocol.AnnouncementsExchange(e.cfg.Namespace), &a)); err != nil {
		e.dispatcher.untold(a.Durable)
	}
}

// deadLetter keeps a message that cannot be understood where an operator can
// look at it.
func (e *Engine) deadLetter(m *broker.Message, source string, reason error) {
	e.keepLetter(protocol.DeadLetter(protocol.DeadLettersQueue(e.cfg.Namespace), m, source, reason), reason)
}

func (e *Engine) keepLetter(letter broker.Message, reason error) {
	e.metrics.poison.Inc()
	e.log.Warn("poison message", "reason", reason)
	// Not in the way of good messages; but not without bound either.
	select {
	case e.letters <- struct{}{}:
	case <-e.requests.Done(): // stopping: no time to wait for the broker's word
		if err := e.conn.Publish(e.background, letter); err != nil {
			e.log.Error("poison message not kept", "error", err)
		}
		return
	}
	e.tasks.Go(func() {
		defer func() { <-e.letters }()
		ctx, cancel := context.WithTimeout(e.background, 5*time.Second)
		defer cancel()
		if err := e.conn.PublishConfirmed(ctx, letter); err != nil {
			e.log.Error("poison message not kept", "error", err)
		}
	})
}
