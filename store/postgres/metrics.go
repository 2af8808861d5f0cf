package postgres

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringmaster-dev/ringmaster/store"
)

// metrics are the store's measurements.
type metrics struct {
	commits  prometheus.Histogram
	rows     prometheus.Counter
	refused  prometheus.Counter
	failures prometheus.Counter
	retries  prometheus.Counter
	found    prometheus.Counter

	to prometheus.Registerer
}

func newMetrics(to prometheus.Registerer) *metrics {
	buckets := prometheus.ExponentialBuckets(0.0001, 2, 16)
	m := &metrics{
		to: to,
		commits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "ringmaster_store_commit_seconds", Help: "Time of a commit until it was durable.", Buckets: buckets}),
		rows: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ringmaster_store_rows_total", Help: "Rows of runs and history that were committed."}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ringmaster_store_refused_parts_total", Help: "Parts left out of a commit: stale epoch, duplicate."}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ringmaster_store_failures_total", Help: "Failed commits. After one the store writes no more."}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ringmaster_store_retries_total", Help: "Further attempts at commits, after the server was lost or had no room."}),
		found: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ringmaster_store_found_commits_total", Help: "Commits whose answer was lost and that had been written."}),
	}
	if to != nil {
		to.MustRegister(m.all()...)
	}
	return m
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.commits, m.rows, m.refused, m.failures, m.retries, m.found}
}

func (m *metrics) unregister() {
	if m.to == nil {
		return
	}
	for _, c := range m.all() {
		m.to.Unregister(c)
	}
}

func (m *metrics) commit(took time.Duration, parts []store.Part, errs []error) {
	m.commits.Observe(took.Seconds())
	rows := 0
	for i := range parts {
		if errs != nil && errs[i] != nil {
			m.refused.Inc()
			continue
		}
		rows += parts[i].Rows()
	}
	m.rows.Add(float64(rows))
}
