package engine

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/ringmaster-dev/ringmaster/store"
)

// submission is what a shard hands to the committer: a part, and what may be
// done once it is durable.
type submission struct {
	part    store.Part
	effects effects
	at      time.Duration // when it was handed over, by the engine's clock
	lost    error         // the part was not written, since the shard has another owner
}

// effects are done after the commit that calls for them, in this order.
type effects struct {
	shard    *shard
	number   uint64 // of the shard's submission
	settled  []settledResult
	dispatch []offer
	cancel   []cancelOrder
	locks    []lockMessage
	children []childRequest
	answers  []message   // to parents
	changed  []store.Run // rows whose status is another
	replies  []func(lost error)
}

func (fx *effects) empty() bool {
	return len(fx.settled)+len(fx.dispatch)+len(fx.cancel)+len(fx.locks)+len(fx.children)+len(fx.answers)+len(fx.changed)+len(fx.replies) == 0
}

// settledResult is a worker's result that is durable (or changes nothing).
type settledResult struct {
	worker string
	seq    uint64
}

// committer makes one transaction of whatever the shards handed over during
// the last one (group commit).
type committer struct {
	eng     *Engine
	commits atomic.Uint64
	queue   *mailbox[submission]
	done    chan []submission

	parts []store.Part // of the batch at hand
	of    []int        // whose they are
}

func newCommitter(e *Engine) *committer {
	return &committer{eng: e, queue: newMailbox[submission](), done: make(chan []submission, 1)}
}

// run commits until ctx ends and everything handed over by then is durable.
func (c *committer) run(ctx context.Context) error {
	defer close(c.done)
	for {
		stopping := false
		select {
		case <-c.queue.wake:
		case <-ctx.Done():
			stopping = true
		}
		for {
			batch := c.queue.take(nil)
			if len(batch) == 0 {
				break
			}
			if err := c.commit(batch); err != nil {
				return err
			}
			c.done <- batch
		}
		if stopping {
			return nil
		}
	}
}

func (c *committer) commit(batch []submission) error {
	c.parts, c.of = c.parts[:0], c.of[:0]
	for i := range batch {
		switch s := batch[i].effects.shard; {
		case s.void:
			batch[i].lost = errMoved()
		case batch[i].part.Rows() > 0:
			c.parts, c.of = append(c.parts, batch[i].part), append(c.of, i)
		}
	}
	defer func() { clear(c.parts) }()
	if len(c.parts) == 0 {
		return nil
	}
	m := c.eng.metrics
	began := time.Now()
	errs, err := c.eng.cfg.Store.Commit(c.parts)
	if err != nil {
		m.storeErrors.Inc()
		return fmt.Errorf("commit: %w", err)
	}
	c.commits.Add(1)
	records := 0
	for i := range c.parts {
		records += len(c.parts[i].Append)
	}
	m.commitSeconds.Observe(time.Since(began).Seconds())
	m.commitRecords.Observe(float64(records))
	for i, err := range errs {
		if err == nil {
			continue
		}
		m.storeErrors.Inc()
		switch s := batch[c.of[i]].effects.shard; {
		case !errors.Is(err, store.ErrStaleEpoch):
			return fmt.Errorf("commit of shard %d: %w", s.id, err)
		case c.eng.cfg.Leases == nil:
			return fmt.Errorf("shard %d is owned by another orchestrator: %w", s.id, err)
		default:
			batch[c.of[i]].lost = errMoved()
			s.void = true
			s.supersede()
		}
	}
	return nil
}

// perform does the effects of durable submissions, in order.
func (c *committer) perform() {
	e := c.eng
	for batch := range c.done {
		now := e.clock.since()
		for i := range batch {
			fx := &batch[i].effects
			if batch[i].lost != nil {
				for _, reply := range fx.replies {
					reply(batch[i].lost)
				}
				continue
			}
			e.metrics.durableSeconds.Observe((now - batch[i].at).Seconds())
			e.dispatcher.settled(fx.settled)
			e.dispatcher.offer(fx.dispatch)
			for _, o := range fx.cancel {
				e.dispatcher.cancel(o)
			}
			for j := range fx.children {
				q := &fx.children[j]
				e.send(e.shardOf(q.id), message{child: q})
			}
			for _, m := range fx.answers {
				e.send(shardIndex(m.ref), m)
			}
			for _, m := range fx.locks {
				e.passOn(m)
			}
			for _, r := range fx.changed {
				e.runChanged(r)
			}
			for _, reply := range fx.replies {
				reply(nil)
			}
			fx.shard.durable.Store(fx.number)
		}
		e.dispatcher.flush()
	}
}
