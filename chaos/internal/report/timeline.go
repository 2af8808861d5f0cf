package report

import (
	"slices"
	"time"
)

// Bucket is the width of the intervals in which ends are counted.
const Bucket = 250 * time.Millisecond

// smooth is over how many buckets the throughput is averaged before it is said to
// be back.
const smooth = 3

// Run is when a run began and ended; a zero End is none.
type Run struct{ Began, Ended time.Time }

// Timeline is when runs began and ended.
type Timeline struct {
	begins, ends []time.Time // sorted
}

// NewTimeline returns the timeline of runs.
func NewTimeline(runs []Run) *Timeline {
	t := &Timeline{}
	for _, r := range runs {
		t.begins = append(t.begins, r.Began)
		if !r.Ended.IsZero() {
			t.ends = append(t.ends, r.Ended)
		}
	}
	slices.SortFunc(t.begins, time.Time.Compare)
	slices.SortFunc(t.ends, time.Time.Compare)
	return t
}

// before is how many of the sorted times are before at.
func before(times []time.Time, at time.Time) int {
	n, _ := slices.BinarySearchFunc(times, at, time.Time.Compare)
	return n
}

// Ends is how many runs ended in [from, to).
func (t *Timeline) Ends(from, to time.Time) int { return before(t.ends, to) - before(t.ends, from) }

// Median is the median of the ends per bucket in [from, to).
func (t *Timeline) Median(from, to time.Time) float64 {
	var counts []int
	for at := from; !at.Add(Bucket).After(to); at = at.Add(Bucket) {
		counts = append(counts, t.Ends(at, at.Add(Bucket)))
	}
	if len(counts) == 0 {
		return 0
	}
	slices.Sort(counts)
	middle := len(counts) / 2
	if len(counts)%2 == 1 {
		return float64(counts[middle])
	}
	return float64(counts[middle-1]+counts[middle]) / 2
}

// Back is how long after struck the throughput was back to half of the median
// that it had had: zero if it never fell below within [struck, until), false if
// it did not come back.
func (t *Timeline) Back(struck, until time.Time, median float64) (time.Duration, bool) {
	low := func(at time.Time) bool {
		return float64(t.Ends(at, at.Add(smooth*Bucket))) < smooth*median/2
	}
	at := struck
	for ; !at.Add(smooth * Bucket).After(until); at = at.Add(Bucket) {
		if low(at) {
			break
		}
	}
	if at.Add(smooth * Bucket).After(until) {
		return 0, true
	}
	for ; !at.Add(smooth * Bucket).After(until); at = at.Add(Bucket) {
		if !low(at) {
			return at.Sub(struck), true
		}
	}
	return until.Sub(struck), false
}

// Gap is the longest time in [from, to) in which no run ended though some were
// under way, and when it began.
func (t *Timeline) Gap(from, to time.Time) (longest time.Duration, at time.Time) {
	first := before(t.ends, from)
	for i := first - 1; i < len(t.ends); i++ {
		begin, end := from, to
		if i >= first {
			begin = t.ends[i]
		}
		if i+1 < len(t.ends) {
			end = minTime(end, t.ends[i+1])
		}
		if !begin.Before(to) {
			break
		}
		// Nothing ends in between; so something is under way from when the
		// first run begins of those that are more than have ended.
		if started := i + 1; started >= len(t.begins) {
			continue
		} else if t.begins[started].After(begin) {
			begin = t.begins[started]
		}
		if gap := end.Sub(begin); gap > longest {
			longest, at = gap, begin
		}
	}
	return longest, at
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
