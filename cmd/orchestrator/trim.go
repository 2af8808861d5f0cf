package main

import (
	"context"
	"os"
	"runtime/debug"
	"time"
)

// gcPercent is how much may be allocated, in proportion to what lives, before
// the garbage is collected. What lives here is small and what is allocated
// under load is much, so that the runtime's 100 would collect all the time.
const gcPercent = 300

// tuneMemory sets gcPercent unless GOGC says otherwise.
func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// trimAfter is how long there must have been nothing to do before memory is
// given back.
const trimAfter = 2 * time.Second

// trimWhenIdle gives memory that a burst of work has left behind back to the
// system, once after each burst. The runtime would do so too, minutes later.
func trimWhenIdle(ctx context.Context, commits func() uint64) {
	tick := time.NewTicker(trimAfter)
	defer tick.Stop()
	last, trimmed := commits(), true
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		switch n := commits(); {
		case n != last:
			last, trimmed = n, false
		case !trimmed:
			debug.FreeOSMemory()
			trimmed = true
		}
	}
}
