package worker

import "iter"

// fifo is a queue in a slice.
type fifo[T any] struct {
	items []T
	head  int
}

func (q *fifo[T]) len() int { return len(q.items) - q.head }

func (q *fifo[T]) push(v T) {
	if q.head > 0 && len(q.items) == cap(q.items) && q.head >= len(q.items)/2 {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, v)
}

// front returns the oldest item; there must be one.
func (q *fifo[T]) front() T { return q.items[q.head] }

// pop removes and returns the oldest item; there must be one.
func (q *fifo[T]) pop() T {
	var zero T
	v := q.items[q.head]
	q.items[q.head] = zero
	q.head++
	if q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
	return v
}

// all yields the items from the oldest on.
func (q *fifo[T]) all() iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, v := range q.items[q.head:] {
			if !yield(v) {
				return
			}
		}
	}
}
