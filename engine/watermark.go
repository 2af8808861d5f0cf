package engine

import "time"

// watermarkKept is how long a worker that is silent may come back and find its
// sequence where it was.
const watermarkKept = 24 * time.Hour

// watermark finds up to where a sequence is complete, when its numbers (from
// 1, without gaps) come in any order.
//
// Its worker is told where it is with the next tasks, or else once an interval,
// until it moves again. Should it miss that, it sends its results again, and is
// told again.
type watermark struct {
	used  time.Duration // when it last moved, by the engine's clock
	low   uint64        // all up to here are done
	above map[uint64]struct{}
	due   bool // the worker has to be told
	again bool // what it was told before has not come to it
}

func (w *watermark) done(n uint64) {
	switch {
	case n <= w.low:
	case n == w.low+1:
		w.low = n
		for len(w.above) > 0 {
			if _, ok := w.above[w.low+1]; !ok {
				return
			}
			w.low++
			delete(w.above, w.low)
		}
	default:
		if w.above == nil {
			w.above = map[uint64]struct{}{}
		}
		w.above[n] = struct{}{}
	}
}

// raise counts all below floor as done: nothing will come under these numbers.
func (w *watermark) raise(floor uint64) {
	if floor <= w.low+1 {
		return
	}
	for n := range w.above {
		if n < floor {
			delete(w.above, n)
		}
	}
	w.low = floor - 2
	w.done(floor - 1)
}

// maxAnnounced is how many watermarks an announcement has. It goes to every worker,
// so with many each is told by a control of its own.
const maxAnnounced = 64

// settled moves the watermarks of workers' results that are durable.
func (d *dispatcher) settled(results []settledResult) {
	if len(results) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.eng.clock.since()
	for _, r := range results {
		m := d.markOf(r.worker)
		m.used = now
		if r.seq > 0 {
			m.due, m.again = true, m.again || r.seq <= m.low
		}
		m.done(r.seq)
	}
}

func (d *dispatcher) markOf(worker string) *watermark {
	m := d.marks[worker]
	if m == nil {
		m = &watermark{}
		d.marks[worker] = m
	}
	return m
}

// raiseFloor takes in that a worker will not use the numbers below floor for
// this orchestrator any more.
func (d *dispatcher) raiseFloor(worker string, floor uint64) {
	if floor <= 1 {
		return
	}
	m := d.markOf(worker)
	m.used = d.eng.clock.since()
	before := m.low
	m.raise(floor)
	m.due = m.due || m.low > before
}

// tellMarks returns the watermarks for an announcement, and has the others that are
// due told by controls.
func (d *dispatcher) tellMarks() map[string]uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	marks := map[string]uint64{}
	for worker, m := range d.marks {
		if m.due && m.low > 0 {
			marks[worker] = m.low
		}
	}
	for worker := range marks {
		m, p := d.marks[worker], d.peers[worker]
		if len(marks) > maxAnnounced && p != nil && !m.again { // else it may be one that does not look at controls
			p.tell = true
			d.mark(p)
			delete(marks, worker)
			continue
		}
		m.due, m.again = false, false
	}
	d.wakeSender()
	return marks
}

// untold takes in that an announcement with these watermarks was not sent.
func (d *dispatcher) untold(marks map[string]uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for worker := range marks {
		if m := d.marks[worker]; m != nil {
			m.due = true
		}
	}
}
