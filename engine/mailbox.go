package engine

import "sync"

// mailbox hands items from many goroutines to one, in batches: the reader
// takes all that gathered while it was busy.
type mailbox[T any] struct {
	mu    sync.Mutex
	items []T
	wake  chan struct{} // holds a token while items may be there
}

func newMailbox[T any]() *mailbox[T] {
	return &mailbox[T]{wake: make(chan struct{}, 1)}
}

// put adds items and never blocks; what bounds the mailbox is the limit on what
// may be under way (starts, credit).
func (m *mailbox[T]) put(items ...T) {
	m.mu.Lock()
	m.items = append(m.items, items...)
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// take returns what is there, leaving buf's memory for the next items.
func (m *mailbox[T]) take(buf []T) []T {
	clear(buf)
	m.mu.Lock()
	items := m.items
	m.items = buf[:0]
	m.mu.Unlock()
	return items
}
