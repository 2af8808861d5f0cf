package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/examples/order-flow/flow"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
)

func defaults(t *testing.T) options {
	return options{
		mode: "embedded", deliveries: "http", shoppers: 32, latency: time.Millisecond,
		timeout: 5 * time.Minute, dir: filepath.Join(t.TempDir(), "day"),
	}
}

func TestDayInOneProcess(t *testing.T) {
	if err := run(t.Context(), defaults(t)); err != nil {
		t.Fatal(err)
	}
}

// TestDayInSeparateProcesses is the whole thing: RabbitMQ, every part a process
// of its own, a worker and the orchestrator killed with work in flight.
func TestDayInSeparateProcesses(t *testing.T) {
	o := defaults(t)
	o.mode = "rabbit"
	o.amqpURL = testenv.RabbitMQ(t).URL
	if err := run(t.Context(), o); err != nil {
		logs, _ := filepath.Glob(filepath.Join(o.dir, "logs", "*.log"))
		for _, name := range logs {
			text, _ := os.ReadFile(name)
			t.Logf("%s:\n%s", filepath.Base(name), text)
		}
		t.Fatal(err)
	}
}

// TestStalledRunsAreSettledFromTheBooks has a delivery service that never knows
// whether it has handed a parcel over.
func TestStalledRunsAreSettledFromTheBooks(t *testing.T) {
	o := defaults(t)
	if err := os.Mkdir(o.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d, err := newDay(o)
	if err != nil {
		t.Fatal(err)
	}
	d.orders = d.orders[:40]
	s, err := openShop(t.Context(), o.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.close() }()
	orchestrator, err := startOrchestrator(t.Context(), o.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer orchestrator.stop()
	staff := s.staff()
	staff[2].register = func(_ context.Context, w *worker.Worker) error {
		worker.Handle(w, flow.Ship, func(ctx context.Context, p flow.Parcel) (flow.Shipped, error) {
			if tx, err := s.deliveries.DB().BeginTxx(ctx, nil); err == nil {
				if _, err := s.deliveries.Ship(ctx, tx, p); err != nil {
					_ = tx.Rollback()
				} else {
					_ = tx.Commit()
				}
			}
			return flow.Shipped{}, &worker.Error{Outcome: protocol.OutcomeUnknown, Code: "lost_track"}
		})
		return nil
	}
	workers, err := startWorkers(t.Context(), orchestrator.broker, staff)
	if err != nil {
		t.Fatal(err)
	}
	c, err := newClient(orchestrator.url)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.run(t.Context(), c, s.deliveries), workers.stop()); err != nil {
		t.Fatal(err)
	}
	if err := auditWith(t.Context(), c, d, s); err != nil {
		t.Error(err)
	}
	if d.settled < 20 || d.statuses["succeeded"] < 20 || d.statuses["compensated"] < 1 {
		t.Errorf("%d runs settled, ended %v", d.settled, d.statuses)
	}
}

func TestDayThatCannotEndFails(t *testing.T) {
	o := defaults(t)
	o.timeout = time.Nanosecond
	if err := run(t.Context(), o); !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(errorText(err), "--timeout") {
		t.Errorf("error %v", err)
	}
}

func TestBadOptionsAreNamed(t *testing.T) {
	for _, tt := range []struct {
		change func(*options)
		want   string
	}{
		{func(o *options) { o.mode = "cloud" }, "--mode: must be embedded or rabbit"},
		{func(o *options) { o.deliveries = "pigeon" }, "--deliveries: must be http or worker"},
		{func(o *options) { o.shoppers = 0 }, "--shoppers: must be from 1 to 10000"},
		{func(o *options) { o.timeout = 0 }, "--timeout must be positive"},
		{func(o *options) { o.dir = filepath.Dir(o.dir) }, "--dir: "},
		{func(o *options) { o.orders = "none.jsonl" }, "none.jsonl"},
	} {
		o := defaults(t)
		tt.change(&o)
		if err := run(t.Context(), o); !strings.Contains(errorText(err), tt.want) {
			t.Errorf("error %v, want %q", err, tt.want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
