package rabbit

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are those of one Conn. All Conns of a registerer share the vectors,
// told apart by the label conn, which holds Options.Name.
type metrics struct {
	reconnects  prometheus.Counter
	published   prometheus.Counter
	returned    prometheus.Counter
	delivered   prometheus.Counter
	unconfirmed prometheus.Gauge
	state       prometheus.Gauge
}

func newMetrics(r prometheus.Registerer, name string) (*metrics, error) {
	counter := func(metric, help string) (prometheus.Counter, error) {
		v, err := register(r, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ringmaster_broker_" + metric, Help: help,
		}, []string{"conn"}))
		if err != nil {
			return nil, err
		}
		return v.WithLabelValues(name), nil
	}
	gauge := func(metric, help string) (prometheus.Gauge, error) {
		v, err := register(r, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ringmaster_broker_" + metric, Help: help,
		}, []string{"conn"}))
		if err != nil {
			return nil, err
		}
		return v.WithLabelValues(name), nil
	}
	var m metrics
	var errs [6]error
	m.reconnects, errs[0] = counter("reconnects_total", "Sessions with the broker after the first.")
	m.published, errs[1] = counter("published_total", "Messages handed to the broker's socket.")
	m.returned, errs[2] = counter("returned_total", "Mandatory messages that came back unrouted.")
	m.delivered, errs[3] = counter("delivered_total", "Messages received from the broker.")
	m.unconfirmed, errs[4] = gauge("unconfirmed", "Confirmed publishes that wait for the broker's answer.")
	m.state, errs[5] = gauge("state", "Condition of the connection: 1 connected, 2 disconnected, 3 blocked by the broker.")
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("rabbit: registering metrics: %w", err)
	}
	return &m, nil
}

// register adds a collector, or takes the one that an earlier Conn added.
func register[C prometheus.Collector](r prometheus.Registerer, c C) (C, error) {
	if r == nil {
		return c, nil
	}
	err := r.Register(c)
	var are prometheus.AlreadyRegisteredError
	if errors.As(err, &are) {
		if old, ok := are.ExistingCollector.(C); ok {
			return old, nil
		}
	}
	return c, err
}
