package machine

import (
	"math"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// nextAttempt is when a task that has just failed is tried again, in ms; not
// ok if its policy has ended. The variation is in [-1, 1].
func nextAttempt(p *definitions.RetryPolicy, t *task, now int64, variation float64) (at int64, ok bool) {
	if p.MaxAttempts > 0 && int64(t.round) >= int64(p.MaxAttempts) {
		return 0, false
	}
	at = min(now+delay(p, t.round, variation), maxMilli)
	if p.MaxElapsed > 0 && at-t.roundAt > p.MaxElapsed.Milliseconds() {
		return 0, false
	}
	return at, true
}

// delay is how long to wait after the n-th failure, in ms: Initial, times
// Multiplier for each failure after the first, varied, and never above Max.
func delay(p *definitions.RetryPolicy, n uint32, variation float64) int64 {
	longest := float64(p.Max.Milliseconds())
	d := float64(p.Initial.Milliseconds())
	if n > 1 {
		d *= math.Pow(p.Multiplier, float64(n-1))
	}
	d = min(d, longest)
	d = min(d*(1+p.Jitter*variation), longest)
	if !(d > 0) {
		return 0
	}
	return int64(d)
}

// jitter is a number in [-1, 1] that depends on the attempt alone.
func (s *State) jitter(e *Event) float64 {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a
	h := uint64(offset)
	for i := range len(s.runID) {
		h = (h ^ uint64(s.runID[i])) * prime
	}
	for _, v := range [...]uint64{uint64(e.Step), uint64(e.Phase), uint64(e.Generation), uint64(e.Attempt)} {
		h = (h ^ v) * prime
	}
	// Finish as splitmix64 does, so that neighbours differ.
	h ^= h >> 30
	h *= 0xbf58476d1ce4e5b9
	h ^= h >> 27
	h *= 0x94d049bb133111eb
	h ^= h >> 31
	return float64(h>>11)/(1<<52) - 1
}
