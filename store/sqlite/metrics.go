package sqlite

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringmaster-dev/ringmaster/store"
)

// metrics are the store's measurements.
type metrics struct {
	commits     prometheus.Histogram
	rows        prometheus.Counter
	refused     prometheus.Counter
	failures    prometheus.Counter
	checkpoints prometheus.Histogram
	logPages    prometheus.Gauge

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
		checkpoints: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "ringmaster_store_checkpoint_pause_seconds", Help: "Time for which a checkpoint held up commits.", Buckets: buckets}),
		logPages: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ringmaster_store_log_pages", Help: "Pages of 4 KiB in the write-ahead log, when last looked at."}),
	}
	if to != nil {
		to.MustRegister(m.all()...)
	}
	return m
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.commits, m.rows, m.refused, m.failures, m.checkpoints, m.logPages}
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
