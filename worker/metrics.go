package worker

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringmaster-dev/ringmaster/protocol"
)

// Why a task was neither queued nor answered anew; labels of
// ringmaster_worker_refused_total.
const (
	refusedStale      = "stale_epoch"
	refusedDraining   = "draining"
	refusedDuplicate  = "duplicate"
	refusedOverloaded = "overloaded"
)

// metrics are one collector, so that they can be registered and removed whole.
type metrics struct {
	tasks        *prometheus.CounterVec
	seconds      *prometheus.HistogramVec
	panics       *prometheus.CounterVec
	refused      *prometheus.CounterVec
	sent         prometheus.Counter
	resent       prometheus.Counter
	returned     prometheus.Counter
	bad          prometheus.Counter
	incompatible prometheus.Counter
	gauges       []prometheus.Collector
}

type handlerMetrics struct {
	outcomes [protocol.OutcomeReadOnly + 1]prometheus.Counter // by protocol.Outcome
	seconds  prometheus.Observer
	panics   prometheus.Counter
}

func newMetrics() *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ringmaster_worker_" + name, Help: help}, labels)
	}
	return &metrics{
		tasks:  counter("tasks_total", "Tasks answered, by type and outcome.", "type", "outcome"),
		panics: counter("panics_total", "Handlers that panicked.", "type"),
		refused: counter("refused_total",
			"Tasks that were not taken: stale_epoch, draining, duplicate, overloaded.", "reason"),
		sent:         counter("results_sent_total", "Results handed to the broker, repetitions included.").WithLabelValues(),
		resent:       counter("results_resent_total", "Results handed to the broker again.").WithLabelValues(),
		returned:     counter("results_returned_total", "Results that came back unroutable.").WithLabelValues(),
		incompatible: counter("incompatible_total", "Orchestrators heard that speak no protocol version of this worker.").WithLabelValues(),
		bad:          counter("bad_messages_total", "Messages and batch entries that could not be read.").WithLabelValues(),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ringmaster_worker_task_seconds", Help: "How long handlers ran.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
		}, []string{"type"}),
	}
}

func (m *metrics) of(taskType string) handlerMetrics {
	h := handlerMetrics{seconds: m.seconds.WithLabelValues(taskType), panics: m.panics.WithLabelValues(taskType)}
	for o := protocol.OutcomeSucceeded; o <= protocol.OutcomeReadOnly; o++ {
		h.outcomes[o] = m.tasks.WithLabelValues(taskType, o.String())
	}
	return h
}

// unrun counts a task that failed without having run.
func (m *metrics) unrun(t *task) {
	if t.handler != nil {
		t.handler.metrics.outcomes[protocol.OutcomeFailed].Inc()
		return
	}
	// The type is the sender's word; it does not become a label.
	m.tasks.WithLabelValues("unknown", protocol.OutcomeFailed.String()).Inc()
}

// watch adds gauges that read the worker's state when they are collected.
func (m *metrics) watch(w *Worker) {
	gauge := func(name, help string, value func(b *board) float64) {
		m.gauges = append(m.gauges, prometheus.NewGaugeFunc(
			prometheus.GaugeOpts{Name: "ringmaster_worker_" + name, Help: help}, func() float64 {
				w.mu.Lock()
				defer w.mu.Unlock()
				return value(&w.board)
			}))
	}
	gauge("running", "Handlers that run now.", func(b *board) float64 { return float64(b.running) })
	gauge("queued", "Tasks that wait here for a handler.", func(b *board) float64 { return float64(b.queued) })
	gauge("held_results", "Results not yet known to be durable.", func(b *board) float64 { return float64(b.held) })
	gauge("held_bytes", "Bytes of results not yet known to be durable.", func(b *board) float64 { return float64(b.heldBytes) })
}

func (m *metrics) each(f func(prometheus.Collector)) {
	for _, c := range []prometheus.Collector{m.tasks, m.seconds, m.panics, m.refused, m.sent, m.resent, m.returned, m.bad, m.incompatible} {
		f(c)
	}
	for _, c := range m.gauges {
		f(c)
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	m.each(func(c prometheus.Collector) { c.Describe(ch) })
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	m.each(func(c prometheus.Collector) { c.Collect(ch) })
}
