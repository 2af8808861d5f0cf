package engine

import (
	"sync/atomic"
	"time"
)

// maxSlew is how far each adjustment of the clock may move it.
const maxSlew = 100 * time.Millisecond

// clock is the engine's time: the wall clock read once, advanced by the
// monotonic clock, so that a jump of the wall clock expires nothing in bulk.
// What the two differ by is made good in small steps.
type clock struct {
	start  time.Time
	offset *atomic.Int64 // ns
}

func newClock() clock { return clock{start: time.Now(), offset: &atomic.Int64{}} }

// since is the monotonic time since the engine was made.
func (c clock) since() time.Duration { return time.Since(c.start) }

// now is the time of day, with ms precision.
func (c clock) now() time.Time {
	return c.start.Add(c.since() + time.Duration(c.offset.Load())).Round(0).Truncate(time.Millisecond)
}

// follow moves the clock towards the wall clock.
func (c clock) follow() {
	drift := time.Now().Round(0).Sub(c.now())
	if drift.Abs() >= time.Millisecond {
		c.offset.Add(int64(min(max(drift, -maxSlew), maxSlew)))
	}
}
