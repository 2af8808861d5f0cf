package worker_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// patience bounds every wait of these tests; it is only ever used up by a
// failure.
const patience = 20 * time.Second

// orchestrator speaks the engine's side of the protocol.
type orchestrator struct {
	t    testing.TB
	id   string
	conn broker.Conn

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced when something arrives
	shards   map[uint32]uint64
	beats    []protocol.Heartbeat
	results  []protocol.Result
	messages int // of results
	returned []broker.Message
	seq      uint64
	consumer broker.Consumer
}

// newOrchestrator has no shards yet; see own.
func newOrchestrator(t testing.TB, b broker.Broker, id string) *orchestrator {
	t.Helper()
	o := &orchestrator{t: t, id: id, changed: make(chan struct{}), shards: map[uint32]uint64{}}
	conn, err := b.Open(t.Context(), broker.Options{Name: id, OnReturn: func(m broker.Message) {
		o.note(func() { o.returned = append(o.returned, m) })
	}})
	if err != nil {
		t.Fatal(err)
	}
	o.conn = conn
	t.Cleanup(func() { conn.Close(context.Background()) })
	heartbeats := broker.Exchange{Name: protocol.HeartbeatsExchange(""), Kind: broker.Fanout}
	exchanges := []broker.Exchange{heartbeats, {Name: protocol.AnnouncementsExchange(""), Kind: broker.Fanout}, o.resultsExchange()}
	if err := conn.Declare(t.Context(), exchanges, []string{protocol.RequestsQueue("")}); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Subscribe(t.Context(), broker.Subscription{
		Queue: id + ".heartbeats", Kind: broker.Exclusive, NoAck: true, Bindings: []broker.Binding{{Exchange: heartbeats}},
		Handler: func(d broker.Delivery) {
			h, err := protocol.DecodeHeartbeat(&d.Message)
			if err != nil {
				t.Errorf("heartbeat: %v", err)
			}
			o.note(func() { o.beats = append(o.beats, h) })
		},
	}); err != nil {
		t.Fatal(err)
	}
	return o
}

func (o *orchestrator) resultsExchange() broker.Exchange {
	return broker.Exchange{Name: protocol.ResultsExchange(""), Kind: broker.Direct}
}

// note changes what is known and wakes those who wait for that.
func (o *orchestrator) note(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
	close(o.changed)
	o.changed = make(chan struct{})
}

// await returns once cond, which runs under the lock, is true.
func (o *orchestrator) await(what string, cond func() bool) {
	o.t.Helper()
	deadline := time.After(patience)
	for {
		o.mu.Lock()
		ok, changed := cond(), o.changed
		o.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			o.mu.Lock()
			defer o.mu.Unlock()
			o.t.Fatalf("waiting for %s; %d heartbeats, %d results; last heartbeat %+v", what, len(o.beats), len(o.results), last(o.beats))
		}
	}
}

func last[T any](list []T) (v T) {
	if len(list) > 0 {
		v = list[len(list)-1]
	}
	return v
}

// own claims shards under an epoch: it consumes their results, and announces it.
func (o *orchestrator) own(epoch uint64, shards ...uint32) {
	o.t.Helper()
	var keys []string
	o.mu.Lock()
	for _, s := range shards {
		o.shards[s] = epoch
	}
	for s := range o.shards {
		keys = append(keys, protocol.ShardKey(s))
	}
	o.mu.Unlock()
	o.deaf()
	c, err := o.conn.Subscribe(o.t.Context(), broker.Subscription{
		Queue: protocol.ResultsQueue("", o.id), Kind: broker.Exclusive, NoAck: true,
		Bindings: []broker.Binding{{Exchange: o.resultsExchange(), Keys: keys}},
		Handler: func(d broker.Delivery) {
			rs, bad, err := protocol.DecodeResults(&d.Message)
			if err != nil || len(bad) > 0 {
				o.t.Errorf("results: %v %v", bad, err)
			}
			o.note(func() { o.results = append(o.results, rs...); o.messages++ })
		},
	})
	if err != nil {
		o.t.Fatal(err)
	}
	o.consumer = c
	o.announce(true, nil)
}

// deaf stops consuming results: they come back to the worker.
func (o *orchestrator) deaf() {
	if o.consumer != nil {
		if err := o.consumer.Stop(o.t.Context()); err != nil {
			o.t.Fatal(err)
		}
		o.consumer = nil
	}
}

func (o *orchestrator) announce(hello bool, durable map[string]uint64) {
	o.t.Helper()
	o.mu.Lock()
	a := protocol.Announcement{Orchestrator: o.id, Hello: hello, Shards: o.shards, Durable: durable}
	m := protocol.EncodeAnnouncement(protocol.AnnouncementsExchange(""), &a)
	o.mu.Unlock()
	if err := o.conn.Publish(o.t.Context(), m); err != nil {
		o.t.Fatal(err)
	}
}

// leave announces that it goes.
func (o *orchestrator) leave() {
	o.t.Helper()
	o.mu.Lock()
	a := protocol.Announcement{Orchestrator: o.id, Leaving: true, Shards: o.shards}
	o.mu.Unlock()
	if err := o.conn.Publish(o.t.Context(), protocol.EncodeAnnouncement(protocol.AnnouncementsExchange(""), &a)); err != nil {
		o.t.Fatal(err)
	}
}

// beat waits for a heartbeat, also an earlier one, that cond is true of.
func (o *orchestrator) beat(what string, cond func(protocol.Heartbeat) bool) (h protocol.Heartbeat) {
	o.t.Helper()
	next := 0
	o.await(what, func() bool {
		for ; next < len(o.beats); next++ {
			if h = o.beats[next]; cond(h) {
				return true
			}
		}
		return false
	})
	return h
}

// ready waits for the first heartbeat.
func (o *orchestrator) ready() protocol.Heartbeat {
	o.t.Helper()
	return o.beat("the first heartbeat", func(protocol.Heartbeat) bool { return true })
}

// task n is of run-n; its shard is 0, its epoch that of the shard.
func (o *orchestrator) task(n int, taskType string, payload string) protocol.Task {
	o.mu.Lock()
	defer o.mu.Unlock()
	return protocol.Task{
		TaskID: protocol.TaskID{Ref: int64(n), Phase: protocol.PhaseAction, Generation: 1, Attempt: 1},
		RunID:  fmt.Sprint("run-", n), Workflow: "flow", StepName: "step", Service: "svc", Type: taskType,
		RoutingKey: "key", Epoch: max(o.shards[0], 1), Owner: o.id, Timeout: time.Minute, Payload: []byte(payload),
	}
}

// send gives the tasks their numbers and sends them as one message.
func (o *orchestrator) send(to protocol.Heartbeat, durable uint64, tasks ...protocol.Task) {
	o.t.Helper()
	var ptrs []*protocol.Task
	for i := range tasks {
		o.seq++
		tasks[i].Seq = o.seq
		ptrs = append(ptrs, &tasks[i])
	}
	if err := o.conn.Publish(o.t.Context(), protocol.EncodeTasks(protocol.Version, to.Queue, o.id, durable, ptrs)); err != nil {
		o.t.Fatal(err)
	}
}

func (o *orchestrator) control(to protocol.Heartbeat, c protocol.Control) {
	o.t.Helper()
	c.Orchestrator = o.id
	if err := o.conn.Publish(o.t.Context(), protocol.EncodeControl(protocol.Version, to.Queue, &c)); err != nil {
		o.t.Fatal(err)
	}
}

// result waits for the nth result that arrived, from 0.
func (o *orchestrator) result(n int) (r protocol.Result) {
	o.t.Helper()
	o.await(fmt.Sprintf("result %d", n), func() bool {
		if len(o.results) <= n {
			return false
		}
		r = o.results[n]
		return true
	})
	return r
}

// settle tells the worker up to where its results are durable.
func (o *orchestrator) settle(w *worker.Worker) {
	o.t.Helper()
	o.mu.Lock()
	mark := contiguous(o.results)
	o.mu.Unlock()
	o.announce(false, map[string]uint64{w.ID(): mark})
}

// contiguous is the highest number up to which all results are there.
func contiguous(results []protocol.Result) (mark uint64) {
	seen := make(map[uint64]bool, len(results))
	for _, r := range results {
		seen[r.Seq] = true
	}
	for seen[mark+1] {
		mark++
	}
	return mark
}

// job is a worker that runs.
type job struct {
	*worker.Worker
	stop context.CancelFunc
	done chan error
}

// start runs a worker of service svc. Its heartbeats are quick, so that what is
// to be noticed at an interval is noticed soon.
func start(t testing.TB, b broker.Broker, c worker.Config, handlers func(w *worker.Worker)) *job {
	t.Helper()
	c.Broker, c.Name, c.Service = b, "w1", "svc"
	if c.HeartbeatInterval == 0 {
		c.HeartbeatInterval = 20 * time.Millisecond
	}
	if c.SettleTimeout == 0 {
		c.SettleTimeout = time.Millisecond // most tests leave results unsettled
	}
	w, err := worker.New(c)
	if err != nil {
		t.Fatal(err)
	}
	handlers(w)
	ctx, cancel := context.WithCancel(context.Background())
	j := &job{w, cancel, make(chan error, 1)}
	go func() { j.done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-j.done:
		case <-time.After(patience):
			t.Error("the worker did not leave")
		}
	})
	return j
}

// wait returns Run's error.
func (j *job) wait(t testing.TB) error {
	t.Helper()
	select {
	case err := <-j.done:
		j.done <- err
		return err
	case <-time.After(patience):
		t.Fatal("the worker did not leave")
		return nil
	}
}

func echo(_ context.Context, payload []byte) ([]byte, error) { return payload, nil }

func withEcho(w *worker.Worker) { w.HandleFunc("echo", echo) }
