package engine

import "time"

// clock is the engine's time: the wall clock read once, advanced by the
// monotonic clock, so that a jump of the wall clock expires nothing in bulk.
type clock struct{ start time.Time }

func newClock() clock { return clock{start: time.Now()} }

// since is the monotonic time since the engine was made.
func (c clock) since() time.Duration { return time.Since(c.start) }

// now is the time of day, with ms precision.
func (c clock) now() time.Time {
	return c.start.Add(c.since()).Round(0).Truncate(time.Millisecond)
}
