package worker

import (
	"context"
	"log/slog"
	"runtime"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

// Bounds of one message of results. A single result may be larger.
const (
	maxBatchResults = 1_000
	maxBatchBytes   = 1 << 20
)

// parcel is results for one orchestrator.
type parcel struct {
	to      *peer
	version int // to write in
	results []*protocol.Result
	bytes   int
}

// sendResults sends what is in the outbox whenever something is. It never
// waits for more.
func (w *Worker) sendResults(ctx context.Context) {
	var p packer
	for {
		select {
		case <-w.post:
		case <-ctx.Done():
			return
		}
		// Executors that are about to finish do so first, and share the message;
		// where there are none this takes no time.
		runtime.Gosched()
		w.sendOutbox(ctx, &p)
	}
}

func (w *Worker) sendOutbox(ctx context.Context, p *packer) {
	w.mu.Lock()
	p.pack(&w.board, time.Now(), w.cfg.DisableBatch)
	w.mu.Unlock()
	if len(p.tasks) == 0 {
		return
	}
	exchange := protocol.ResultsExchange(w.cfg.Namespace)
	msgs := p.msgs[:0]
	for i := range p.parcels {
		v := p.parcels[i].version
		if rs := p.parcels[i].results; w.cfg.DisableBatch {
			msgs = append(msgs, protocol.EncodeResult(v, exchange, rs[0]))
		} else {
			msgs = append(msgs, protocol.EncodeResults(v, exchange, rs))
		}
	}
	w.metrics.sent.Add(float64(len(p.tasks)))
	w.metrics.resent.Add(float64(p.again))
	if err := w.conn.Publish(ctx, msgs...); err != nil {
		// They go again when there is a connection, or when they are overdue.
		w.mu.Lock()
		for _, t := range p.tasks {
			t.sent = time.Time{}
		}
		w.mu.Unlock()
		w.log.Debug("results not sent", slog.Int("results", len(p.tasks)), slog.Any("error", err))
	}
	clear(msgs)
	p.msgs = msgs[:0]
}

// packer takes the outbox apart by addressee. Its memory is used again.
type packer struct {
	parcels []parcel
	tasks   []*task
	again   int // of tasks: had been sent before
	msgs    []broker.Message
}

func (p *packer) pack(b *board, now time.Time, single bool) {
	for i := range p.parcels {
		clear(p.parcels[i].results)
	}
	clear(p.tasks)
	p.parcels, p.tasks, p.again = p.parcels[:0], p.tasks[:0], 0
	for _, t := range b.outbox {
		t.inBox = false
		if t.state != finished || t.to.unfit {
			continue // durable meanwhile; or its owner is not to be reached now
		}
		if !t.sent.IsZero() {
			p.again++
		}
		t.sent = now
		p.tasks = append(p.tasks, t)
		p.add(t, single)
	}
	clear(b.outbox)
	b.outbox = b.outbox[:0]
}

func (p *packer) add(t *task, single bool) {
	size := t.result.Size()
	// The last parcel for an orchestrator is the one that may have room; there
	// are hardly ever two orchestrators.
	for i := len(p.parcels) - 1; i >= 0 && !single; i-- {
		c := &p.parcels[i]
		if c.to != t.to {
			continue
		}
		if len(c.results) == maxBatchResults || c.bytes+size > maxBatchBytes {
			break
		}
		c.results = append(c.results, t.result)
		c.bytes += size
		return
	}
	if len(p.parcels) < cap(p.parcels) {
		p.parcels = p.parcels[:len(p.parcels)+1]
	} else {
		p.parcels = append(p.parcels, parcel{})
	}
	c := &p.parcels[len(p.parcels)-1]
	c.to, c.version, c.bytes = t.to, t.to.version, size
	c.results = append(c.results[:0], t.result)
}

// onReturn learns that results found no queue: their owner is gone, or not
// connected. They are kept and go again once it, or another owner, announces
// itself.
func (w *Worker) onReturn(m broker.Message) {
	if m.Type != string(protocol.KindResult) {
		w.log.Warn("message returned", slog.String("key", m.Key), slog.String("type", m.Type))
		return
	}
	results, _, err := protocol.DecodeResults(&m)
	if err != nil {
		w.log.Error("own results came back unreadable", slog.Any("error", err))
		return
	}
	w.metrics.returned.Add(float64(len(results)))
	w.mu.Lock()
	w.board.returned(results)
	w.mu.Unlock()
}
