package engine

import "sync"

// mailbox hands items from many goroutines to one, in batches: the reader
// takes all that gathered while it was busy.
type mailbox[T any] struct {
	mu     sync.Mutex
	items  []T
	closed bool
	wake   chan struct{} // holds a token while items may be there
}

func newMailbox[T any]() *mailbox[T] {
	return &mailbox[T]{wake: make(chan struct{}, 1)}
}

// put adds items and never blocks; what bounds the mailbox is the limit on what
// may be under way (starts, credit). It returns false, and adds nothing, once the
// mailbox is closed.
func (m *mailbox[T]) put(items ...T) bool {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return false
	}
	m.items = append(m.items, items...)
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
	return true
}

// close has put refuse what comes. What is there can still be taken.
func (m *mailbox[T]) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
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
