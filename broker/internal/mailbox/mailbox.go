// Package mailbox hands values from goroutines that must not wait to one that
// may.
package mailbox

import "sync"

// Mailbox is an unbounded queue whose values are handed, in order, to one
// function in a goroutine of its own. Use [New].
type Mailbox[T any] struct {
	mu     sync.Mutex
	cond   sync.Cond
	queue  []T
	closed bool
	done   chan struct{}
}

// New starts a mailbox that calls f for every value.
func New[T any](f func(T)) *Mailbox[T] {
	m := &Mailbox[T]{done: make(chan struct{})}
	m.cond.L = &m.mu
	go m.run(f)
	return m
}

// Put adds a value; it never blocks. After Close it does nothing.
func (m *Mailbox[T]) Put(v T) {
	m.mu.Lock()
	if !m.closed {
		m.queue = append(m.queue, v)
		m.cond.Signal()
	}
	m.mu.Unlock()
}

// Close has the goroutine end after the values that are there. Done tells when.
func (m *Mailbox[T]) Close() {
	m.mu.Lock()
	m.closed = true
	m.cond.Signal()
	m.mu.Unlock()
}

// Done is closed when the goroutine has ended.
func (m *Mailbox[T]) Done() <-chan struct{} { return m.done }

func (m *Mailbox[T]) run(f func(T)) {
	defer close(m.done)
	var batch []T
	for {
		m.mu.Lock()
		for len(m.queue) == 0 && !m.closed {
			m.cond.Wait()
		}
		batch, m.queue = m.queue, batch[:0]
		m.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		for _, v := range batch {
			f(v)
		}
		clear(batch)
	}
}
