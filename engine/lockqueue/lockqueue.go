package lockqueue

import "slices"

// Entry is a run in a queue.
type Entry struct {
	Ref    int64 // the run's number; entries are told apart by it
	RunID  string
	Shared bool
	Asked  int64  // Unix ms
	Got    int64  // Unix ms: when it got the lock; 0 of a waiter
	Token  uint64 // of a holder; 0 of a waiter
}

// Queue is the queue of one lock. The zero value is a lock that nobody holds. It
// is not safe for concurrent use.
type Queue struct {
	holders []Entry
	waiters []Entry
}

// Answer is what a run that asks is told.
type Answer uint8

// The answers.
const (
	Granted Answer = iota + 1 // the run holds the lock
	Waits                     // it stands in the queue, and will be told when its turn has come
	Full                      // it does not: too many wait
)

// String returns "granted", "waits" or "full".
func (a Answer) String() string {
	switch a {
	case Granted:
		return "granted"
	case Waits:
		return "waits"
	case Full:
		return "full"
	}
	return "none"
}

// Ask has run e ask for the lock. It is granted, under a token from next if it
// begins to be held by that, or the run is put at the end of the queue if fewer
// than limit wait. A run that has asked before is told how things stand. changed
// tells whether the queue is another now.
func (q *Queue) Ask(e Entry, limit int, next func() uint64) (a Answer, token uint64, changed bool) {
	if i := index(q.holders, e.Ref); i >= 0 {
		return Granted, q.holders[i].Token, false
	}
	if index(q.waiters, e.Ref) >= 0 {
		return Waits, 0, false
	}
	if len(q.waiters) == 0 && q.admits(e.Shared) {
		return Granted, q.grant(e, e.Asked, next).Token, true
	}
	if len(q.waiters) >= limit {
		return Full, 0, false
	}
	e.Got, e.Token = 0, 0
	q.waiters = append(q.waiters, e)
	return Waits, 0, true
}

// Release has a run let go of the lock, or of its place in the queue. It returns
// those that hold the lock by that, from now on (Unix ms). changed tells whether
// the queue is another now.
func (q *Queue) Release(ref, now int64, next func() uint64) (granted []Entry, changed bool) {
	if i := index(q.holders, ref); i >= 0 {
		q.holders = slices.Delete(q.holders, i, i+1)
	} else if i := index(q.waiters, ref); i >= 0 {
		q.waiters = slices.Delete(q.waiters, i, i+1)
	} else {
		return nil, false
	}
	n := 0
	for n < len(q.waiters) && q.admits(q.waiters[n].Shared) {
		granted = append(granted, q.grant(q.waiters[n], now, next))
		n++
	}
	q.waiters = slices.Delete(q.waiters, 0, n)
	return granted, true
}

// admits tells whether the lock can be granted, as far as its holders go.
func (q *Queue) admits(shared bool) bool {
	return len(q.holders) == 0 || shared && q.holders[0].Shared
}

// grant makes e a holder.
func (q *Queue) grant(e Entry, now int64, next func() uint64) Entry {
	if e.Got = now; len(q.holders) > 0 {
		e.Token = q.holders[0].Token
	} else {
		e.Token = next()
	}
	q.holders = append(q.holders, e)
	return e
}

func index(list []Entry, ref int64) int {
	return slices.IndexFunc(list, func(e Entry) bool { return e.Ref == ref })
}

// Holders are the runs that hold the lock. The slice is valid until the queue
// changes, and must not be changed.
func (q *Queue) Holders() []Entry { return q.holders }

// Waiters are the runs that wait, the first first. The slice is valid until the
// queue changes, and must not be changed.
func (q *Queue) Waiters() []Entry { return q.waiters }

// Empty tells whether nobody holds the lock; then nobody waits either.
func (q *Queue) Empty() bool { return len(q.holders) == 0 }
