package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type chargeIn struct {
	Amount int `json:"amount"`
}

type chargeOut struct {
	Receipt string `json:"receipt"`
}

var charge = definitions.NewTask[chargeIn, chargeOut]("svc", "charge")

func TestATypedHandlerAnswersItsTask(t *testing.T) {
	b := newBroker(t)
	o := newOrchestrator(t, b, "o1")
	o.own(3, 0)
	var got worker.TaskInfo
	start(t, b, worker.Config{}, func(w *worker.Worker) {
		worker.Handle(w, charge, func(ctx context.Context, in chargeIn) (chargeOut, error) {
			got = worker.TaskFrom(ctx)
			if deadline, ok := ctx.Deadline(); !ok || !deadline.Equal(got.Deadline) {
				t.Errorf("deadline %v, in the task %v", deadline, got.Deadline)
			}
			return chargeOut{Receipt: fmt.Sprint("r-", in.Amount)}, nil
		})
	})
	h := o.ready()
	task := o.task(7, "charge", `{"amount":12,"other":"fields are for other steps"}`)
	task.Trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	o.send(h, 0, task)
	r := o.result(0)
	if r.Outcome != protocol.OutcomeSucceeded || string(r.Payload) != `{"receipt":"r-12"}` || r.Seq != 1 ||
		r.TaskID != task.TaskID || r.RunID != "run-7" || r.StepName != "step" || r.Worker != h.Worker || r.Trace != task.Trace {
		t.Errorf("result %+v", r)
	}
	if got.IdempotencyKey != "run-7/step/action/1" || got.Worker != h.Worker || got.Attempt != 1 || got.RoutingKey != "key" || got.Epoch != 3 {
		t.Errorf("task %+v", got)
	}
}

func TestAHeartbeatSaysWhatTheWorkerIs(t *testing.T) {
	b := newBroker(t)
	o := newOrchestrator(t, b, "o1")
	start(t, b, worker.Config{Concurrency: 3, Prefetch: 5, Weight: 50, Release: "v1"}, func(w *worker.Worker) {
		withEcho(w)
		worker.Handle(w, charge, func(context.Context, chargeIn) (chargeOut, error) { return chargeOut{}, nil })
	})
	h := o.ready()
	want := protocol.Heartbeat{
		Version: protocol.MinVersion, MaxVersion: protocol.Version, Worker: h.Worker, Name: "w1", Queue: h.Queue, Service: "svc", TaskTypes: []string{"charge", "echo"},
		Capabilities: []string{protocol.CapabilityBatch}, Capacity: 3, Credit: 8, Weight: 50, Release: "v1", IntervalMS: 20, Sequence: 1,
	}
	if fmt.Sprint(h) != fmt.Sprint(want) || !strings.HasPrefix(h.Worker, "w1-") || h.Queue == "" {
		t.Errorf("got  %+v\nwant %+v", h, want)
	}
	before := h.Sequence
	o.beat("the next", func(h protocol.Heartbeat) bool { return h.Sequence > before })
}

func TestHelloIsAnsweredAtOnceWithHeartbeatAndResults(t *testing.T) {
	b := newBroker(t)
	o := newOrchestrator(t, b, "o1")
	o.own(1, 0)
	start(t, b, worker.Config{HeartbeatInterval: time.Minute}, withEcho)
	h := o.ready()
	o.send(h, 0, o.task(1, "echo", `1`))
	o.result(0)
	o.announce(true, nil)
	if again := o.result(1); again.Ref != 1 || again.Seq != 1 {
		t.Errorf("got %+v", again)
	}
	o.beat("the answer", func(h protocol.Heartbeat) bool {
		return h.Received["o1"] == 1 && len(h.Finished) == 1 && h.Finished[0].Ref == 1
	})
}

func TestANewOwnerGetsTheResultsOfItsShards(t *testing.T) {
	b := newBroker(t)
	o1 := newOrchestrator(t, b, "o1")
	o1.own(1, 0)
	w := start(t, b, worker.Config{}, withEcho)
	h := o1.ready()
	o1.send(h, 0, o1.task(1, "echo", `1`), o1.task(2, "echo", `2`))
	o1.result(1)
	o1.deaf()
	o2 := newOrchestrator(t, b, "o2")
	o2.own(2, 0)
	if a, b := o2.result(0), o2.result(1); a.Seq != 1 || b.Seq != 2 || a.Ref+b.Ref != 3 {
		t.Errorf("got %+v and %+v", a, b)
	}
	o2.beat("the gap in the old numbers", func(h protocol.Heartbeat) bool {
		return h.Floor["o1"] == 3 && h.Floor["o2"] == 1 && len(h.Finished) == 2
	})
	// The old owner's word counts no more: neither its watermark nor its tasks.
	o1.announce(false, map[string]uint64{w.ID(): 2})
	o1.send(h, 0, o1.task(3, "echo", `3`))
	o2.beat("the stale task's arrival", func(h protocol.Heartbeat) bool {
		return h.Received["o1"] == 3 && len(h.Queued) == 0 && len(h.Running) == 0 && len(h.Finished) == 2
	})
	o2.settle(w.Worker)
	o2.beat("nothing held", func(h protocol.Heartbeat) bool { return h.Floor["o2"] == 3 && len(h.Finished) == 0 })
}

func TestResultsComeAgainUntilTheyAreDurable(t *testing.T) {
	b := newBroker(t)
	o := newOrchestrator(t, b, "o1")
	o.own(1, 0)
	w := start(t, b, worker.Config{ResendAfter: 30 * time.Millisecond}, withEcho)
	h := o.ready()
	o.send(h, 0, o.task(1, "echo", `1`))
	for n := range 3 {
		if r := o.result(n); r.Ref != 1 || r.Seq != 1 {
			t.Errorf("got %+v", r)
		}
	}
	// The watermark may come with a task, a control or an announcement.
	o.send(h, 1, o.task(2, "echo", `2`))
	o.beat("the first durable", func(h protocol.Heartbeat) bool { return h.Floor["o1"] == 2 && len(h.Finished) == 1 })
	o.control(h, protocol.Control{Durable: 2})
	o.beat("the second durable", func(h protocol.Heartbeat) bool { return h.Floor["o1"] == 3 && len(h.Finished) == 0 })
	o.send(h, 0, o.task(3, "echo", `3`))
	o.await("the third result", func() bool { return last(o.results).Ref == 3 })
	o.settle(w.Worker)
	o.beat("the third durable", func(h protocol.Heartbeat) bool { return h.Floor["o1"] == 4 && len(h.Finished) == 0 })
}

func TestReturnedResultsAreKeptUntilAnOwnerAnnouncesItself(t *testing.T) {
	b := newBroker(t)
	o := newOrchestrator(t, b, "o1")
	reg := prometheus.NewRegistry()
	start(t, b, worker.Config{Registerer: reg}, withEcho)
	h := o.ready()
	o.send(h, 0, o.task(1, "echo", `1`)) // nobody consumes results
	o.beat("the result", func(h protocol.Heartbeat) bool { return len(h.Finished) == 1 })
	o.own(1, 0)
	if r := o.result(0); r.Ref != 1 {
		t.Errorf("got %+v", r)
	}
}

func TestADuplicateIsNotPerformedTwice(t *testing.T) {
	b := newBroker(t)
	o := newOrchestrator(t, b, "o1")
	o.own(1, 0)
	var calls atomic.Int32
	entered, proceed := make(chan struct{}, 9), make(chan struct{})
	start(t, b, worker.Config{Concurrency: 2}, func(w *worker.Worker) {
		w.HandleFunc("once", func(context.Context, []byte) ([]byte, error) {
			calls.Add(1)
			entered <- struct{}{}
			<-proceed
			return nil, nil
		})
	})
	h := o.ready()
	o.send(h, 0, o.task(1, "once", ``))
	<-entered
	o.send(h, 0, o.task(1, "once", ``)) // while it runs
	o.beat("the duplicate", func(h protocol.Heartbeat) bool {
		return h.Received["o1"] == 2 && len(h.Running) == 1 && len(h.Queued) == 0
	})
	close(proceed)
	if r := o.result(0); string(r.Payload) != "null" {
		t.Errorf("no output became %s", r.Payload)
	}
	o.send(h, 0, o.task(1, "once", ``)) // while its result is held
	if r := o.result(1); r.Ref != 1 || r.Seq != 1 {
		t.Errorf("got %+v", r)
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("performed %d times", n)
	}
}

func TestWhatBecomesOfTasksThatDoNotSucceed(t *testing.T) {
	b := newBroker(t)
	o := newOrchestrator(t, b, "o1")
	o.own(1, 0)
	untilTheEnd := func(end func(ctx context.Context) ([]byte, error)) worker.HandlerFunc {
		return func(ctx context.Context, _ []byte) ([]byte, error) { <-ctx.Done(); return end(ctx) }
	}
	start(t, b, worker.Config{MaxPayloadBytes: 100}, func(w *worker.Worker) {
		withEcho(w)
		w.HandleFunc("plain", func(context.Context, []byte) ([]byte, error) { return nil, errors.New("no luck") })
		w.HandleFunc("final", func(context.Context, []byte) ([]byte, error) {
			return nil, worker.Final("declined", errors.New("no money"))
		})
		w.HandleFunc("panic", func(context.Context, []byte) ([]byte, error) { panic("boom") })
		w.HandleFunc("goexit", func(context.Context, []byte) ([]byte, error) { runtime.Goexit(); return nil, nil })
		w.HandleFunc("slow", untilTheEnd(func(ctx context.Context) ([]byte, error) { return nil, ctx.Err() }))
		w.HandleFunc("late", untilTheEnd(func(context.Context) ([]byte, error) { return []byte("1"), nil }))
		w.HandleFunc("undone", untilTheEnd(func(ctx context.Context) ([]byte, error) { return nil, worker.NoEffect(ctx.Err()) }))
		w.HandleFunc("no-json", func(context.Context, []byte) ([]byte, error) { return []byte("{"), nil })
		w.HandleFunc("large", func(context.Context, []byte) ([]byte, error) { return make([]byte, 101), nil })
		worker.Handle(w, charge, func(context.Context, chargeIn) (chargeOut, error) { return chargeOut{}, nil })
		worker.Handle(w, definitions.NewTask[int, any]("svc", "unencodable"), func(context.Context, int) (any, error) { return func() {}, nil })
	})
	cases := []struct {
		name, taskType, payload string
		change                  func(*protocol.Task)
		want                    string // outcome, retryable, code
		message                 string
	}{
		{name: "plain error", taskType: "plain", want: "failed true error", message: "no luck"},
		{name: "final failure", taskType: "final", want: "failed false declined", message: "no money"},
		{name: "panic", taskType: "panic", want: "unknown true panic", message: "panic: boom"},
		{name: "goroutine ended", taskType: "goexit", want: "unknown true panic", message: "Goexit"},
		{name: "out of time", taskType: "slow", want: "unknown true timeout", message: "deadline exceeded"},
		{name: "success out of time", taskType: "late", want: "succeeded false "},
		{name: "out of time, rolled back", taskType: "undone", want: "failed true timeout", message: "deadline exceeded"},
		{name: "output is not JSON", taskType: "no-json", want: "unknown false bad_output", message: "not valid JSON"},
		{name: "output too large", taskType: "large", want: "unknown false bad_output", message: "101 bytes"},
		{name: "output cannot be encoded", taskType: "unencodable", want: "unknown false bad_output", message: "func()"},
		{name: "payload of another type", taskType: "charge", payload: `{"amount":"much"}`, want: "failed false bad_payload", message: "amount"},
		{name: "type without a handler", taskType: "nobody", want: "failed true unknown_type", message: `"nobody"`},
		{name: "another version", taskType: "charge@2", want: "failed true unknown_type", message: `"charge@2" of service "svc" here; there is one for "charge"`},
		{name: "another service", taskType: "echo", change: func(t *protocol.Task) { t.Service = "other" }, want: "failed true unknown_type", message: `"other"`},
		{name: "after its time", taskType: "echo", change: func(t *protocol.Task) { t.NotAfter = time.Now().Add(-time.Second) },
			want: "failed true not_after", message: "after its time"},
		{name: "in time", taskType: "echo", payload: "1", change: func(t *protocol.Task) { t.NotAfter = time.Now().Add(time.Hour) }, want: "succeeded false "},
	}
	h := o.ready()
	for i, c := range cases {
		task := o.task(i, c.taskType, c.payload)
		switch c.taskType {
		case "slow", "late", "undone":
			task.Timeout = 5 * time.Millisecond
		}
		if c.change != nil {
			c.change(&task)
		}
		o.send(h, 0, task)
		r := o.result(i)
		if got := fmt.Sprint(r.Outcome, r.Retryable, " ", r.Code); got != c.want || !strings.Contains(r.Message, c.message) {
			t.Errorf("%s: got %q, want %q; message %q", c.name, got, c.want, r.Message)
		}
		if stack := strings.Contains(c.want, "panic"); stack != (r.Stack != "") || len(r.Stack) > 8<<10 {
			t.Errorf("%s: stack %q", c.name, r.Stack)
		}
	}
}

func TestCancelEndsRunningTasksAndAnswersQueuedOnes(t *testing.T) {
	b := newBroker(t)
	o := newOrchestrator(t, b, "o1")
	o.own(1, 0)
	entered := make(chan struct{})
	start(t, b, worker.Config{Concurrency: 1}, func(w *worker.Worker) {
		withEcho(w)
		w.HandleFunc("wait", func(ctx context.Context, _ []byte) ([]byte, error) {
			close(entered)
			<-ctx.Done()
			return nil, ctx.Err()
		})
	})
	h := o.ready()
	running, queued, kept := o.task(1, "wait", ``), o.task(2, "echo", `2`), o.task(3, "echo", `3`)
	o.send(h, 0, running, queued, kept)
	<-entered
	o.beat("its queue", func(h protocol.Heartbeat) bool { return len(h.Running) == 1 && len(h.Queued) == 2 })
	o.control(h, protocol.Control{Cancel: []protocol.TaskID{running.TaskID, queued.TaskID}})
	o.result(2)
	got := map[int64]string{}
	for _, r := range o.results {
		got[r.Ref] = fmt.Sprint(r.Outcome, " ", r.Code)
	}
	if s := fmt.Sprint(got); s != "map[1:unknown cancelled 2:failed cancelled 3:succeeded ]" {
		t.Error(s)
	}
}

func TestASupersededOwnersTasksAreRefused(t *testing.T) {
	b := newBroker(t)
	o := newOrchestrator(t, b, "o1")
	o.own(5, 0)
	reg := prometheus.NewRegistry()
	start(t, b, worker.Config{Registerer: reg}, withEcho)
	h := o.ready()
	stale := o.task(1, "echo", `1`)
	stale.Epoch = 4
	o.send(h, 0, o.task(2, "echo", `2`), stale, o.task(3, "echo", `3`))
	o.beat("all three", func(h protocol.Heartbeat) bool { return h.Received["o1"] == 3 && len(h.Finished) == 2 })
	if o.result(0).Ref == 1 || o.result(1).Ref == 1 {
		t.Error("the stale task was answered")
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(`
		# HELP ringmaster_worker_refused_total Tasks that were not taken: stale_epoch, draining, duplicate, overloaded.
		# TYPE ringmaster_worker_refused_total counter
		ringmaster_worker_refused_total{reason="stale_epoch",service="svc",worker="w1"} 1
		# HELP ringmaster_worker_tasks_total Tasks answered, by type and outcome.
		# TYPE ringmaster_worker_tasks_total counter
		ringmaster_worker_tasks_total{outcome="failed",service="svc",type="echo",worker="w1"} 0
		ringmaster_worker_tasks_total{outcome="read-only",service="svc",type="echo",worker="w1"} 0
		ringmaster_worker_tasks_total{outcome="succeeded",service="svc",type="echo",worker="w1"} 2
		ringmaster_worker_tasks_total{outcome="unknown",service="svc",type="echo",worker="w1"} 0
	`), "ringmaster_worker_refused_total", "ringmaster_worker_tasks_total"); err != nil {
		t.Error(err)
	}
}

func TestNoTaskStartsWhileTooManyResultsAreHeld(t *testing.T) {
	b := newBroker(t)
	o := newOrchestrator(t, b, "o1")
	o.own(1, 0)
	w := start(t, b, worker.Config{MaxHeldResults: 3}, withEcho)
	h := o.ready()
	var tasks []protocol.Task
	for n := range 10 {
		tasks = append(tasks, o.task(n, "echo", `1`))
	}
	o.send(h, 0, tasks...)
	o.beat("the bound", func(h protocol.Heartbeat) bool { return len(h.Finished) == 3 && len(h.Queued) == 7 })
	for n := 3; n <= 12; n += 3 {
		o.result(min(n, 10) - 1)
		o.settle(w.Worker)
	}
	o.beat("the end", func(h protocol.Heartbeat) bool { return h.Floor["o1"] == 11 })
	if n := len(o.results); n != 10 {
		t.Errorf("%d results", n)
	}
}

// Many tasks from two orchestrators, with owners that change, results that
// come back and watermarks that lag: every task is performed once and every
// result arrives at an owner of its shard.
func TestManyTasksFromTwoOrchestrators(t *testing.T) {
	const tasks = 4_000
	b := newBroker(t)
	os := []*orchestrator{newOrchestrator(t, b, "o1"), newOrchestrator(t, b, "o2")}
	var calls [tasks]atomic.Int32
	w := start(t, b, worker.Config{MaxHeldResults: 500}, func(w *worker.Worker) {
		w.HandleFunc("count", func(ctx context.Context, payload []byte) ([]byte, error) {
			var n int
			if err := json.Unmarshal(payload, &n); err != nil {
				return nil, err
			}
			calls[n].Add(1)
			return payload, nil
		})
	})
	h := os[0].ready()
	var wg sync.WaitGroup
	for i, o := range os {
		o.own(1, uint32(i))
		wg.Go(func() {
			for n := i; n < tasks; n += 2 * 50 {
				var batch []protocol.Task
				for k := range 50 {
					task := o.task(n+2*k, "count", fmt.Sprint(n+2*k))
					task.Shard = uint32(i)
					batch = append(batch, task)
				}
				o.mu.Lock()
				mark := contiguous(o.results)
				o.mu.Unlock()
				o.send(h, mark, batch...)
			}
			arrived := func() int {
				seen := map[int64]bool{}
				for _, r := range o.results {
					seen[r.Ref] = true
				}
				return len(seen)
			}
			for n := 0; n < tasks/2; {
				o.await("more results", func() bool { defer func() { n = arrived() }(); return arrived() > n })
				o.settle(w.Worker)
			}
		})
	}
	wg.Wait()
	for n := range calls {
		if c := calls[n].Load(); c != 1 {
			t.Fatalf("task %d was performed %d times", n, c)
		}
	}
	os[0].beat("nothing held", func(h protocol.Heartbeat) bool {
		return h.Floor["o1"] == tasks/2+1 && h.Floor["o2"] == tasks/2+1 && len(h.Finished) == 0
	})
}
