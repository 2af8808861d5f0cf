package worker

import "time"

const (
	// An orchestrator that has been silent for silentAnnouncements of its
	// intervals, but no less than minSilence, needs no room here any more.
	silentAnnouncements = 3
	minSilence          = 3 * time.Second
	// silence is the same of one that does not tell its interval.
	silence = 10 * time.Second
)

// credit is how many tasks each orchestrator may have here: an equal part of the
// worker's room.
func (w *Worker) credit() int {
	return part(w.cfg.Concurrency, w.sharers) + part(w.cfg.Prefetch, w.sharers)
}

// part is an n-th of whole, rounded up so that nobody gets nothing.
func part(whole, n int) int { return (whole + n - 1) / n }

// sharers is among how many orchestrators the worker's room is divided: those
// that own shards and live, and at least one.
func (b *board) sharers(now time.Time) int {
	n := 0
	for _, p := range b.peers {
		if p.shards > 0 && p.lives(now) {
			n++
		}
	}
	return max(n, 1)
}

// lives tells whether an orchestrator can be expected to send tasks.
func (p *peer) lives(now time.Time) bool {
	patience := silence
	if p.interval > 0 {
		patience = max(silentAnnouncements*p.interval, minSilence)
	}
	return !p.unfit && now.Sub(p.seen) < patience
}
