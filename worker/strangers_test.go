package worker_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/internal/dialect"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// lines is a log that a test can read while it grows.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), what)
}

// A worker that hears only orchestrators of other versions says so, once in its
// log and as long as it lasts in Err; it serves the others when they come.
func TestAWorkerThatNoOrchestratorUnderstandsSaysSo(t *testing.T) {
	b := newBroker(t)
	beyond := protocol.Versions{Min: protocol.Version + 1, Max: protocol.Version + 2}
	future := newOrchestrator(t, b, "future")
	conn, err := dialect.Broker(b, beyond, t.Errorf).Open(t.Context(), broker.Options{Name: "future"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	future.conn = conn
	var log lines
	reg := prometheus.NewRegistry()
	j := start(t, b, worker.Config{Logger: slog.New(slog.NewTextHandler(&log, nil)), Registerer: reg}, withEcho)
	future.ready()
	if err := j.Err(); err != nil {
		t.Errorf("with nobody there: %v", err)
	}
	future.announce(false, nil)
	future.announce(true, nil)
	h := future.ready()
	reason := fmt.Sprintf(`orchestrator "future" speaks protocol version %v, this side speaks version %v`, beyond, protocol.Spoken())
	future.await("the worker says so", func() bool { err := j.Err(); return err != nil })
	if err := j.Err(); !errors.Is(err, protocol.ErrVersion) || !strings.Contains(err.Error(), reason) {
		t.Errorf("%v, want %s", err, reason)
	}
	if n := log.count("no protocol version of this worker"); n != 1 {
		t.Errorf("said %d times in the log", n)
	}
	if n, err := testutil.GatherAndCount(reg, "ringmaster_worker_incompatible_total"); n != 1 || err != nil {
		t.Error(n, err)
	}

	o := newOrchestrator(t, b, "o1")
	o.control(h, protocol.Control{Refused: "you speak in riddles"})
	o.await("the reason is in the log", func() bool { return log.count("you speak in riddles") == 1 })
	o.own(1, 0)
	o.send(h, 0, o.task(1, "echo", `1`))
	if r := o.result(0); r.Outcome != protocol.OutcomeSucceeded || j.Err() != nil {
		t.Errorf("%+v, %v", r, j.Err())
	}
}

// Results are written for whom they go to: a new owner of their shard may speak
// another version than the one before.
func TestResultsAreWrittenInTheVersionOfTheirOwner(t *testing.T) {
	b := newBroker(t)
	var mu sync.Mutex
	var wrong []string
	old := dialect.Broker(b, protocol.Versions{Min: protocol.MinVersion, Max: protocol.MinVersion}, func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		wrong = append(wrong, fmt.Sprintf(format, args...))
	})
	for _, batch := range []bool{true, false} {
		o := newOrchestrator(t, b, fmt.Sprint("new-", batch))
		o.own(1, 0)
		j := start(t, b, worker.Config{DisableBatch: !batch}, withEcho)
		o.send(o.ready(), 0, o.task(1, "echo", `1`))
		o.result(0)
		o.deaf()
		before := newOrchestrator(t, old, fmt.Sprint("old-", batch))
		before.own(2, 0) // it gets the result, which is not settled
		before.result(0)
		before.settle(j.Worker)
		before.await("the result is settled", func() bool {
			h := last(before.beats)
			return len(h.Finished) == 0 && h.Floor[before.id] == 2
		})
		before.deaf()
		j.stop()
		if err := j.wait(t); err != nil {
			t.Error(err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(wrong) > 0 {
		t.Error(wrong)
	}
}
