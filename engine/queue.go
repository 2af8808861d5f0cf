package engine

import "github.com/ringmaster-dev/ringmaster/protocol"

// entry is a task that waits in the engine. Its task is nil where the queue is
// long: then it is built again, from the run, when its turn comes.
type entry struct {
	id   protocol.TaskID
	hash uint64 // of the routing key
	task *protocol.Task
	// priority is that of the run, 0 to maxPriority: higher ones go first.
	priority uint8
	// doubtful: an earlier incarnation of this orchestrator may have sent the
	// attempt to a worker that has not said so. That it failed at one worker
	// then does not prove that it had no effect.
	doubtful bool
	// single: a worker has died under it. It travels alone, so that if it is what
	// kills workers, no other task is taken along by it.
	single bool
	lease  *lease // of its routing key, where its workflow is serial
}

const chunkSize = 256

// fifo is a queue of entries that gives memory back as it shrinks.
type fifo struct {
	chunks [][]entry
	head   int // index of the first entry within chunks[0]
	length int
	holes  int // left by remove
}

func (q *fifo) len() int { return q.length }

func (q *fifo) push(e entry) {
	if n := len(q.chunks); n == 0 || len(q.chunks[n-1]) == chunkSize {
		// A first chunk starts small: most queues stay so.
		c := make([]entry, 0, chunkSize)
		if n == 0 {
			c = make([]entry, 0, 4)
		}
		q.chunks = append(q.chunks, c)
	}
	last := &q.chunks[len(q.chunks)-1]
	*last = append(*last, e)
	q.length++
}

// pop takes the first entry; the queue must not be empty.
func (q *fifo) pop() entry {
	for {
		c := q.chunks[0]
		e := c[q.head]
		c[q.head] = entry{}
		if q.head++; q.head == len(c) {
			q.chunks[0], q.head = nil, 0
			if q.chunks = q.chunks[1:]; len(q.chunks) == 0 {
				q.chunks = nil
			}
		}
		if e.id.Attempt != 0 {
			q.length--
			return e
		}
		q.holes--
	}
}

// front is the first entry; the queue must not be empty.
func (q *fifo) front() *entry {
	c, at := 0, q.head
	for {
		if at == len(q.chunks[c]) {
			c, at = c+1, 0
			continue
		}
		if e := &q.chunks[c][at]; e.id.Attempt != 0 {
			return e
		}
		at++
	}
}

// remove takes out the entry of a task, wherever it is in the queue. It costs
// a scan; only cancels and queue timeouts pay it.
func (q *fifo) remove(id protocol.TaskID) (entry, bool) {
	for i, c := range q.chunks {
		from := 0
		if i == 0 {
			from = q.head
		}
		for j := from; j < len(c); j++ {
			if c[j].id == id {
				e := c[j]
				c[j] = entry{}
				q.length--
				if q.holes++; q.holes > q.length+chunkSize || q.length == 0 {
					q.compact()
				}
				return e, true
			}
		}
	}
	return entry{}, false
}

// compact makes the queue anew without holes.
func (q *fifo) compact() {
	old := *q
	*q = fifo{}
	for old.length > 0 {
		q.push(old.pop())
	}
}

// maxPriority is the highest priority of a run.
const maxPriority = 9

// backlog is a queue for each priority; the highest goes first.
type backlog struct {
	levels [maxPriority + 1]*fifo
	length int
}

func (b *backlog) len() int { return b.length }

func (b *backlog) push(e entry) {
	q := b.levels[e.priority]
	if q == nil {
		q = &fifo{}
		b.levels[e.priority] = q
	}
	q.push(e)
	b.length++
}

// pop takes the first entry of the highest priority; there must be one.
func (b *backlog) pop() entry {
	b.length--
	for i := len(b.levels) - 1; ; i-- {
		if q := b.levels[i]; q != nil && q.len() > 0 {
			return q.pop()
		}
	}
}

// front is the entry that pop would take; there must be one.
func (b *backlog) front() *entry {
	for i := len(b.levels) - 1; ; i-- {
		if q := b.levels[i]; q != nil && q.len() > 0 {
			return q.front()
		}
	}
}

func (b *backlog) remove(id protocol.TaskID) (entry, bool) {
	for _, q := range b.levels {
		if q != nil {
			if e, ok := q.remove(id); ok {
				b.length--
				return e, true
			}
		}
	}
	return entry{}, false
}

func (b *backlog) drain(f func(entry)) {
	for b.len() > 0 {
		f(b.pop())
	}
}
