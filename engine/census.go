package engine

import (
	"sync/atomic"

	"github.com/ringmaster-dev/ringmaster/store"
)

// census is how many runs of a shard have not ended, by workflow and status: its
// part of what the engine's limits and metrics count.
type census struct {
	metrics *metrics
	total   *atomic.Int64 // of the engine
	counts  map[*workflowSeries]*[store.StatusSucceeded]int64
}

// begin counts what the store has.
func (c *census) begin(counts store.Counts) {
	for name, by := range counts {
		series := c.metrics.workflow(name)
		for status, n := range by {
			c.add(series, status, n)
		}
	}
}

// end takes the shard out of what is counted.
func (c *census) end() {
	for series, by := range c.counts {
		for status, n := range by {
			if n != 0 {
				c.add(series, store.Status(status), -n)
			}
		}
	}
}

// transition counts a run that goes from one status (0: new) to another.
func (c *census) transition(series *workflowSeries, from, to store.Status) {
	if from != 0 {
		c.add(series, from, -1)
	}
	c.add(series, to, 1)
	series.total[to].Inc()
}

func (c *census) add(series *workflowSeries, status store.Status, n int64) {
	if status == 0 || status.Final() {
		return
	}
	by := c.counts[series]
	if by == nil {
		by = &[store.StatusSucceeded]int64{}
		c.counts[series] = by
	}
	by[status] += n
	c.total.Add(n)
	series.runs[status].Add(float64(n))
}
