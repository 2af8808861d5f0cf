package relay

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// Options are settings that a Relay works without.
type Options struct {
	// Registerer takes the relay's metrics; nil keeps none.
	Registerer prometheus.Registerer
}

type metrics struct {
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ringmaster_relay_calls_total",
			Help: "Calls to HTTP endpoints, by task type and what they came to: succeeded, retryable, final or unknown.",
		}, []string{"type", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "ringmaster_relay_call_seconds",
			Help:    "How long calls to HTTP endpoints took, until the answer was read.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 12), // 1 ms to 24 s
		}, []string{"type"}),
	}
	if r != nil {
		r.MustRegister(m.calls, m.seconds)
	}
	return m
}

func (m *metrics) observe(taskType string, err error, took time.Duration) {
	m.calls.WithLabelValues(taskType, outcome(err)).Inc()
	m.seconds.WithLabelValues(taskType).Observe(took.Seconds())
}

func outcome(err error) string {
	var e *worker.Error
	switch {
	case err == nil:
		return "succeeded"
	case !errors.As(err, &e) || e.Outcome == protocol.OutcomeUnknown:
		return "unknown"
	case e.Retryable:
		return "retryable"
	default:
		return "final"
	}
}
