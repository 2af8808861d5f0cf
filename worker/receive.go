package worker

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

// onDeclared learns the name of a new task queue. What was on the connection
// before may be lost: the heartbeat says what did arrive, and results go again.
func (w *Worker) onDeclared(queue string) {
	w.mu.Lock()
	again := w.queue != ""
	w.queue = queue
	if again {
		w.board.repostAll()
	}
	w.mu.Unlock()
	if again {
		w.log.Info("reconnected", slog.String("queue", queue))
	}
	w.questions.again()
	kick(w.news)
	kick(w.post)
}

func (w *Worker) onState(s broker.State) {
	switch s {
	case broker.StateConnected:
		w.mu.Lock()
		w.board.repostAll()
		w.mu.Unlock()
		kick(w.news)
		kick(w.post)
	case broker.StateBlocked:
		w.log.Warn("the broker takes no messages at present")
	case broker.StateDisconnected:
		w.log.Warn("broker connection lost")
	}
}

// onMessage handles what comes to the worker's own queue.
func (w *Worker) onMessage(d broker.Delivery) {
	switch protocol.Kind(d.Type) {
	case protocol.KindControl:
		c, err := protocol.DecodeControl(&d.Message)
		if err != nil {
			w.bury(&d.Message, err)
			return
		}
		w.control(&c)
		return
	case protocol.KindDecision:
		a, err := protocol.DecodeAnswer(&d.Message)
		if err != nil {
			w.bury(&d.Message, err)
			return
		}
		w.questions.answered(a)
		return
	}
	tasks, durable, bad, err := protocol.DecodeTasks(&d.Message)
	if err != nil {
		w.bury(&d.Message, err)
		return
	}
	for _, e := range bad {
		w.metrics.bad.Inc()
		w.log.Error("unreadable task in a batch", slog.Int("index", e.Index), slog.Any("error", e.Err))
		w.publishDead(protocol.DeadLetterEntry(protocol.DeadLettersQueue(w.cfg.Namespace), &d.Message, w.id, e))
	}
	if len(tasks) > 0 {
		w.accept(tasks, protocol.MessageVersion(&d.Message), durable)
	}
}

func (w *Worker) accept(tasks []protocol.Task, version int, durable uint64) {
	now := time.Now()
	w.mu.Lock()
	if durable > 0 {
		w.settled(w.board.peer(tasks[0].Owner, now), durable)
	}
	in := w.board.accept(tasks, version, w.cfg.Service, w.handlers, now)
	post := len(w.board.outbox) > 0
	for range min(in.queued, w.idle) {
		w.work.Signal()
	}
	w.mu.Unlock()
	if post {
		kick(w.post)
	}
	if in.queued < len(tasks) {
		w.refused(&in)
	}
}

// refused counts and tells of tasks that were not queued. The owner learns of
// it from the next heartbeat, which does not list them.
func (w *Worker) refused(in *intake) {
	count := func(reason string, n int) {
		if n > 0 {
			w.metrics.refused.WithLabelValues(reason).Add(float64(n))
		}
	}
	count(refusedStale, in.stale)
	count(refusedDuplicate, in.duplicate)
	count(refusedDraining, in.dropped)
	count(refusedOverloaded, in.overloaded)
	if in.stale > 0 {
		w.log.Warn("tasks of a superseded owner refused", slog.Int("tasks", in.stale), slog.Uint64("epoch_seen", in.epoch.epoch),
			slog.String("hint", "if the store was made anew, restart this worker"))
	}
	if in.stale+in.dropped+in.overloaded > 0 {
		kick(w.news)
	}
}

// settled forgets durable results, which may make room for tasks.
func (w *Worker) settled(p *peer, mark uint64) {
	before := w.board.held
	w.board.settle(p, mark)
	w.roomMade(before)
}

// roomMade wakes whoever waits for held results to become durable.
func (w *Worker) roomMade(heldBefore int) {
	if w.board.held == heldBefore {
		return
	}
	if w.board.queued > 0 && w.idle > 0 {
		w.work.Broadcast()
	}
	if w.board.draining && w.board.held == 0 {
		kick(w.quiet)
	}
}

func (w *Worker) control(c *protocol.Control) {
	w.mu.Lock()
	p := w.board.peer(c.Orchestrator, time.Now())
	if c.Durable > 0 {
		w.settled(p, c.Durable)
	}
	if len(c.Cancel) > 0 {
		w.board.cancel(c.Cancel)
	}
	w.mu.Unlock()
	if len(c.Cancel) > 0 {
		kick(w.post)
	}
	if c.Drain {
		kick(w.drain)
	}
	if c.Refused != "" {
		w.log.Error("an orchestrator sends this worker no tasks", slog.String("orchestrator", c.Orchestrator), slog.String("reason", c.Refused))
	}
}

func (w *Worker) onAnnouncement(d broker.Delivery) {
	a, err := protocol.DecodeAnnouncement(&d.Message)
	if fault, ok := errors.AsType[*protocol.VersionError](err); ok {
		w.estranged(&a, fault)
		return
	}
	if err != nil {
		w.metrics.bad.Inc()
		w.log.Warn("unreadable announcement", slog.Any("error", err))
		return
	}
	w.mu.Lock()
	before := w.board.held
	now := time.Now()
	w.strangers.familiar = now
	w.board.announce(&a, now)
	w.roomMade(before)
	divided := w.board.sharers(time.Now()) != w.sharers
	w.mu.Unlock()
	if a.Hello || divided {
		kick(w.news)
	}
	kick(w.post)
}

// bury hands a message that cannot be read to the dead letters.
func (w *Worker) bury(m *broker.Message, reason error) {
	w.metrics.bad.Inc()
	w.log.Error("unreadable message", slog.String("type", m.Type), slog.Any("error", reason))
	w.publishDead(protocol.DeadLetter(protocol.DeadLettersQueue(w.cfg.Namespace), m, w.id, reason))
}

func (w *Worker) publishDead(m broker.Message) {
	if err := w.conn.Publish(context.Background(), m); err != nil {
		w.log.Error("dead letter not kept", slog.Any("error", err))
	}
}
