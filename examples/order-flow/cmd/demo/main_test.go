package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
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
