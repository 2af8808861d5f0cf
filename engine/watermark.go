package engine

import "time"

// watermarkKept is how long a worker that is silent may come back and find its
// sequence where it was.
const watermarkKept = 24 * time.Hour

// watermark finds up to where a sequence is complete, when its numbers (from
// 1, without gaps) come in any order.
type watermark struct {
	used  time.Duration // when it last moved, by the engine's clock
	low   uint64        // all up to here are done
	above map[uint64]struct{}
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
