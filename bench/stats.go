package main

import (
	"math"
	"slices"
	"time"
)

// latencies are samples of one kind of latency.
type latencies []time.Duration

// quantile returns the smallest sample that the part q (0 to 1) of all samples
// does not exceed, in milliseconds; 0 where there is none.
func (l latencies) quantile(q float64) float64 {
	if len(l) == 0 {
		return 0
	}
	s := slices.Clone(l)
	slices.Sort(s)
	i := int(math.Ceil(q*float64(len(s)))) - 1
	return ms(s[max(0, min(i, len(s)-1))])
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// perSecond is a rate.
func perSecond(n int64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}
