package engine

import (
	"context"
	"errors"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

const (
	// A message holds at most this many tasks, and about so many bytes.
	maxBatchTasks = 512
	maxBatchBytes = 1 << 20
)

// parcel is what goes to one worker in one go.
type parcel struct {
	peer    *peer // nil: one that is sent no tasks
	queue   string
	version int // of the protocol, to write in
	batches bool
	tasks   []*sent
	bodies  []*protocol.Task // of the tasks, as they are now
	cancels []protocol.TaskID
	drain   bool
	refused string // why it gets no tasks
	durable uint64
	tell    bool // of durable
}

// sendLoop publishes what the dispatcher placed. While it is busy with one
// round the next gathers, so that load makes messages larger, not more.
func (e *Engine) sendLoop(ctx context.Context) {
	var parcels []parcel
	var msgs []broker.Message
	for {
		select {
		case <-e.dispatcher.kick:
		case <-ctx.Done():
			return
		}
		parcels = e.dispatcher.collect(parcels[:0])
		for i := range parcels {
			msgs = e.pack(msgs[:0], &parcels[i])
			if err := e.conn.Publish(ctx, msgs...); err != nil {
				if !errors.Is(err, broker.ErrUnavailable) && ctx.Err() == nil {
					e.log.Warn("tasks not published", "queue", parcels[i].queue, "error", err)
				}
				e.dispatcher.unsent(&parcels[i])
			}
		}
		clear(msgs)
		clear(parcels)
	}
}

// collect takes what is to be published, by worker.
func (d *dispatcher) collect(buf []parcel) []parcel {
	d.mu.Lock()
	defer d.mu.Unlock()
	notAfter := time.Now().Add(d.eng.cfg.TaskLifetime) // the worker compares it with its own wall clock
	for _, p := range d.dirty {
		p.dirty = false
		if p.unreachable {
			continue // its tasks move when it is heard of again, or forgotten
		}
		pc := parcel{peer: p, queue: p.queue, version: p.version, batches: p.batches, cancels: p.cancels, drain: p.drain}
		for _, s := range p.pending {
			if s.dropped {
				continue
			}
			if s.seq == 0 {
				p.seq++
				s.seq = p.seq
				s.task.Seq = s.seq
			}
			s.queue, s.session = p.queue, d.session
			s.task.NotAfter = notAfter
			pc.tasks, pc.bodies = append(pc.tasks, s), append(pc.bodies, s.task)
		}
		if m := d.marks[p.id]; m != nil {
			pc.durable, pc.tell = m.low, p.tell && m.due
			m.due = m.due && !pc.tell && len(pc.tasks)+len(pc.cancels) == 0
		}
		p.pending, p.cancels, p.drain, p.tell = nil, nil, false, false
		buf = append(buf, pc)
	}
	d.dirty = d.dirty[:0]
	buf = append(buf, d.notices...)
	d.notices = nil
	return buf
}

// unsent takes back a parcel that the broker did not take; it goes out when
// the broker is back. A worker that did get a part of it knows its tasks.
func (d *dispatcher) unsent(pc *parcel) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := pc.peer
	if p == nil {
		d.notices = append(d.notices, *pc)
		return
	}
	for _, s := range pc.tasks {
		s.unsure = true
	}
	p.pending = append(pc.tasks, p.pending...)
	p.cancels = append(pc.cancels, p.cancels...)
	p.drain = p.drain || pc.drain
	if m := d.marks[p.id]; m != nil {
		m.due = true
	}
	d.mark(p)
}

// pack encodes a parcel.
func (e *Engine) pack(msgs []broker.Message, pc *parcel) []broker.Message {
	if len(pc.cancels) > 0 || pc.drain || pc.refused != "" || pc.tell && len(pc.tasks) == 0 {
		msgs = append(msgs, protocol.EncodeControl(pc.version, pc.queue, &protocol.Control{
			Orchestrator: e.id, Cancel: pc.cancels, Drain: pc.drain, Durable: pc.durable, Refused: pc.refused,
		}))
	}
	if n := len(pc.tasks); n > 0 {
		e.metrics.sentTasks.Add(float64(n))
		e.metrics.taskBatch.Observe(float64(n))
	}
	var batch []*protocol.Task
	size := 0
	flush := func() {
		if len(batch) > 0 {
			msgs = append(msgs, protocol.EncodeTasks(pc.version, pc.queue, e.id, pc.durable, batch))
			batch, size = batch[:0], 0
		}
	}
	for i, task := range pc.bodies {
		if !pc.batches || pc.tasks[i].single {
			flush() // in the order of their numbers
			m := protocol.EncodeTask(pc.version, pc.queue, task)
			protocol.SetDurable(&m, pc.durable)
			msgs = append(msgs, m)
			continue
		}
		if len(batch) == maxBatchTasks || size > 0 && size+task.Size() > maxBatchBytes {
			flush()
		}
		batch = append(batch, task)
		size += task.Size()
	}
	flush()
	return msgs
}
