package outbox_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/worker/outbox"
)

// metric is the value of a metric, summed over its labels; -1 if it is not shown.
func metric(t *testing.T, reg prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		sum := 0.0
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
		return sum
	}
	return -1
}

func TestMetricsShowTheLagAndWhatRelaysDo(t *testing.T) {
	onEach(t, outbox.Options{Poll: time.Hour, MaxBackoff: time.Millisecond}, func(t *testing.T, b bench) {
		reg := prometheus.NewPedanticRegistry()
		reg.MustRegister(b.box.Collector())
		shows := func(name string, want float64) {
			t.Helper()
			if got := metric(t, reg, name); got != want {
				t.Errorf("%s is %v, not %v", name, got, want)
			}
		}
		shows("ringmaster_outbox_rows_waiting", 0)
		shows("ringmaster_outbox_leads", 0)
		if err := b.order(t.Context(), "o"); err != nil {
			t.Fatal(err)
		}
		err := b.box.Do(t.Context(), func(ctx context.Context, tx *sqlx.Tx) error {
			return b.box.Signal(ctx, tx, "o", "paid", rest.Signal{})
		})
		if err != nil {
			t.Fatal(err)
		}
		b.db.MustExec(`INSERT INTO ringmaster_outbox (` + b.key() + `, kind, body, created) VALUES ('bad', 'run.fly', '{}', 0)`)
		shows("ringmaster_outbox_rows_waiting", 3)
		if age := metric(t, reg, "ringmaster_outbox_oldest_seconds"); age < 3600 {
			t.Errorf("a row of 1970 waits for %v s", age)
		}
		var away atomic.Bool
		away.Store(true)
		stop := b.relay(t, fickle{inProcess(t), func(ctx context.Context, c broker.Conn, m broker.Message) error {
			if away.Swap(false) {
				return errors.New("away")
			}
			return c.PublishConfirmed(ctx, m)
		}})
		b.drained(t)
		eventually(t, "all is counted", func() bool { return metric(t, reg, "ringmaster_outbox_delivered_total") == 2 })
		shows("ringmaster_outbox_set_aside_total", 1)
		shows("ringmaster_outbox_failures_total", 1)
		shows("ringmaster_outbox_leads", 1)
		stop()
		shows("ringmaster_outbox_leads", 0)
	})
}
