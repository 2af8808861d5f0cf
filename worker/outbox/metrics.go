package outbox

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringmaster-dev/ringmaster/protocol"
)

// collectTimeout bounds the query that a collection makes.
const collectTimeout = 5 * time.Second

// metrics are what the relays of an outbox value count.
type metrics struct {
	delivered *prometheus.CounterVec
	setAside  prometheus.Counter
	failures  prometheus.Counter
	leads     prometheus.Gauge
}

func newMetrics(table string) *metrics {
	labels := prometheus.Labels{"table": table}
	m := &metrics{
		delivered: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ringmaster_outbox_delivered_total",
			Help: "Requests that the broker has confirmed, by kind, repetitions included.", ConstLabels: labels}, []string{"kind"}),
		setAside: prometheus.NewCounter(prometheus.CounterOpts{Name: "ringmaster_outbox_set_aside_total",
			Help: "Rows that can never be sent and were set aside.", ConstLabels: labels}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "ringmaster_outbox_failures_total",
			Help: "Turns of relays that failed: the broker or the database was away.", ConstLabels: labels}),
		leads: prometheus.NewGauge(prometheus.GaugeOpts{Name: "ringmaster_outbox_leads",
			Help: "1 while a relay of this process leads.", ConstLabels: labels}),
	}
	for _, k := range []protocol.RequestType{protocol.RequestStart, protocol.RequestCancel, protocol.RequestSignal} {
		m.delivered.WithLabelValues(string(k))
	}
	return m
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.delivered, m.setAside, m.failures, m.leads}
}

// collector adds to the metrics what is asked of the database.
type collector struct {
	box             *Outbox
	waiting, oldest *prometheus.Desc
}

// Collector returns the metrics of the outbox and of the relays that work on
// this value, for a [prometheus.Registerer]. A collection makes one query: how
// many rows wait, and for how long.
func (b *Outbox) Collector() prometheus.Collector {
	labels := prometheus.Labels{"table": b.opts.Table}
	return &collector{
		box:     b,
		waiting: prometheus.NewDesc("ringmaster_outbox_rows_waiting", "Rows that wait to be sent.", nil, labels),
		oldest:  prometheus.NewDesc("ringmaster_outbox_oldest_seconds", "For how long the oldest of them has waited.", nil, labels),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range c.box.metrics.all() {
		m.Describe(ch)
	}
	ch <- c.waiting
	ch <- c.oldest
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	for _, m := range c.box.metrics.all() {
		m.Collect(ch)
	}
	ctx, cancel := context.WithTimeout(context.Background(), collectTimeout)
	defer cancel()
	rows, oldest, err := c.box.Pending(c.box.dbContext(ctx))
	if err != nil {
		// The rest is shown: that is when it is wanted most.
		c.box.opts.Logger.Warn("outbox rows not counted", "error", err)
		return
	}
	ch <- prometheus.MustNewConstMetric(c.waiting, prometheus.GaugeValue, float64(rows))
	ch <- prometheus.MustNewConstMetric(c.oldest, prometheus.GaugeValue, oldest.Seconds())
}
