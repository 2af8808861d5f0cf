package memory

import (
	"context"
	"fmt"
	"sync"

	"github.com/ringmaster-dev/ringmaster/broker"
)

// item is a message in a queue.
type item struct {
	msg         *broker.Message // shared by all queues it went to; never changed
	redelivered bool
}

// queue holds messages until a consumer takes them.
type queue struct {
	name      string
	exclusive bool
	maxCount  int
	maxBytes  int64

	mu      sync.Mutex
	ready   sync.Cond // a message came, a consumer ended, or settled
	back    []item    // given back, in the order of delivery, ahead of the rest
	items   []item    // items[head:] wait
	head    int
	bytes   int64
	deleted bool
	full    chan struct{} // closed when there may be room; nil if nobody waits
}

func newQueue(name string, cfg Config) *queue {
	q := &queue{name: name, maxCount: cfg.QueueMessages, maxBytes: cfg.QueueBytes}
	q.ready.L = &q.mu
	return q
}

func (q *queue) size() int { return len(q.items) - q.head }

// push adds a message. It waits for room until ctx ends. A deleted queue
// takes nothing and says false.
func (q *queue) push(ctx context.Context, m *broker.Message) (bool, error) {
	n := int64(len(m.Body))
	q.mu.Lock()
	for !q.deleted && q.size() > 0 && (q.size() >= q.maxCount || q.bytes+n > q.maxBytes) {
		if q.full == nil {
			q.full = make(chan struct{})
		}
		full := q.full
		q.mu.Unlock()
		select {
		case <-full:
		case <-ctx.Done():
			return false, fmt.Errorf("%w: queue %s is full: %w", broker.ErrUnavailable, q.name, context.Cause(ctx))
		}
		q.mu.Lock()
	}
	defer q.mu.Unlock()
	if q.deleted {
		return false, nil
	}
	q.items = append(q.items, item{msg: m})
	q.bytes += n
	if q.exclusive {
		q.ready.Signal()
	} else {
		// Signal could wake a consumer whose prefetch is used up.
		q.ready.Broadcast()
	}
	return true, nil
}

// pop takes the next message. q.mu is held and there is one.
func (q *queue) pop() item {
	if len(q.back) > 0 {
		it := q.back[0]
		q.back[0] = item{}
		q.back = q.back[1:]
		return it
	}
	it := q.items[q.head]
	q.items[q.head] = item{}
	q.head++
	q.bytes -= int64(len(it.msg.Body))
	switch {
	case q.head == len(q.items):
		q.items, q.head = q.items[:0], 0
		if cap(q.items) > 4096 {
			q.items = nil
		}
	case q.head >= 1024 && q.head >= len(q.items)/2:
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	if q.full != nil {
		close(q.full)
		q.full = nil
	}
	return it
}

// giveBack has messages delivered again, ahead of the others. q.mu is held.
func (q *queue) giveBack(its ...item) {
	for i := range its {
		its[i].redelivered = true
	}
	q.back = append(its, q.back...)
	q.ready.Broadcast()
}

// delete empties the queue for good.
func (q *queue) delete() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.deleted = true
	q.items, q.back, q.head, q.bytes = nil, nil, 0, 0
	if q.full != nil {
		close(q.full)
		q.full = nil
	}
	q.ready.Broadcast()
}
