package engine

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringmaster-dev/ringmaster/broker/memory"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
)

// idleEngine is an engine that was not started, for its parts.
func idleEngine(t *testing.T, reg prometheus.Registerer) *Engine {
	t.Helper()
	b, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	st, err := sqlite.Open(context.Background(), sqlite.Config{Path: t.TempDir() + "/x.db", Shards: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	e, err := New(Config{Store: st, Broker: b, Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	adopt(e, newShard(e, 0, 1, 0))
	return e
}

func beatOf(id, queue string, seq uint64) *protocol.Heartbeat {
	return &protocol.Heartbeat{
		Version: 1, Worker: id, Name: id, Queue: queue, Service: "s", TaskTypes: []string{"t"},
		Capabilities: []string{"batch"}, Capacity: 1, Credit: 100, Weight: 100, IntervalMS: 1000, Sequence: seq,
	}
}

// join has a worker come and be noted.
func join(d *dispatcher, hb *protocol.Heartbeat) {
	d.heard(hb)
	d.noted(map[string]string{hb.Worker: hb.Service})
}

func offerOf(c *class, ref int64) offer {
	id := protocol.TaskID{Ref: ref, Phase: protocol.PhaseAction, Generation: 1, Attempt: 1}
	return offer{class: c, entry: entry{id: id, hash: uint64(ref), task: &protocol.Task{TaskID: id, Timeout: time.Minute}}}
}

func classOf(e *Engine, p definitions.Placement) *class {
	return e.dispatcher.class(&definitions.Step{Service: "s", Action: "t", Placement: p}, machine.Action)
}

func TestFarDeadlineDoesNotSpinTheShard(t *testing.T) {
	s := idleEngine(t, nil).shards.get(0)
	s.alarms.set(alarm{at: time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC).UnixMilli(), key: tickOf(1)})
	if w := s.nextAlarm(); w <= 0 {
		t.Errorf("the shard sleeps for %v until an alarm in the year 9999: it spins", w)
	}
}

func TestQueueGivesBackWhatWasTakenOut(t *testing.T) {
	var q fifo
	id := func(n int) protocol.TaskID { return protocol.TaskID{Ref: int64(n), Attempt: 1} }
	q.push(entry{id: id(0)})
	const n = 20_000
	for i := 1; i <= n; i++ { // one waits all the time; each other is taken out
		q.push(entry{id: id(i)})
		q.remove(id(i - 1))
	}
	if q.len() != 1 || len(q.chunks) > 4 {
		t.Errorf("a queue of %d holds %d chunks of %d entries", q.len(), len(q.chunks), chunkSize)
	}
}

func TestTaskOfUnreachableWorkerGoesOutWhenItIsBack(t *testing.T) {
	e := idleEngine(t, nil)
	d := e.dispatcher
	c := classOf(e, definitions.Bounded)
	join(d, beatOf("a", "q1", 1))
	d.offer([]offer{offerOf(c, 1)}) // given to a, not yet collected
	d.returned("q1", nil)           // an earlier message to a came back
	d.collect(nil)                  // the sender passes over it
	d.heard(beatOf("a", "q2", 2))   // a is back
	d.heard(beatOf("a", "q2", 3))
	if len(d.peers["a"].out) != 1 {
		t.Fatal("the task is not at a")
	}
	n := 0
	for _, p := range d.collect(nil) {
		n += len(p.tasks)
	}
	if n != 1 {
		t.Errorf("%d tasks go out after the worker is back, not 1; outstanding at it: %d", n, len(d.peers["a"].out))
	}
}

func TestCancelledTaskIsNotGivenToAnotherWorker(t *testing.T) {
	e := idleEngine(t, nil)
	d := e.dispatcher
	c := classOf(e, definitions.Bounded)
	join(d, beatOf("a", "qa", 1))
	o := offerOf(c, 1)
	d.offer([]offer{o})
	d.collect(nil)                            // published to a
	join(d, beatOf("b", "qb", 1))             // another worker
	d.cancel(cancelOrder{id: o.id, class: c}) // the run has turned back
	hb := beatOf("a", "qa", 2)                // a drains: it dropped what it had not started
	hb.Draining, hb.Received = true, map[string]uint64{e.id: 1}
	d.heard(hb)
	for _, p := range d.collect(nil) {
		if len(p.tasks) > 0 {
			t.Errorf("the cancelled action is sent to %s after the turn to backward recovery", p.peer.id)
		}
	}
}

func TestPauseOfTheOrchestratorDoesNotKillItsWorkers(t *testing.T) {
	e := idleEngine(t, nil)
	d := e.dispatcher
	c := classOf(e, definitions.Bounded)
	d.sweep()
	join(d, beatOf("a", "qa", 1))
	d.offer([]offer{offerOf(c, 1)})
	d.collect(nil)
	hb := beatOf("a", "qa", 2)
	hb.Received = map[string]uint64{e.id: 1}
	hb.Running = []protocol.Held{{TaskID: offerOf(c, 1).id}}
	d.heard(hb)
	// The process stands still for 5 s (SIGSTOP, a VM that moves): the worker's
	// heartbeats wait in the queue while the sweep's tick is due.
	e.clock.start = e.clock.start.Add(-5 * time.Second)
	d.sweep()
	d.silence(e.clock.since())
	if d.peers["a"] == nil {
		t.Errorf("the worker counts as dead; told to the run: %+v", e.shards.get(0).inbox.items)
	}
}

func TestHeartbeatsThatWaitToBeReadAreNoSilence(t *testing.T) {
	e := idleEngine(t, nil)
	d := e.dispatcher
	d.sweep()
	join(d, beatOf("a", "qa", 1))
	sent := e.clock.since()
	for range 10 { // as many seconds behind
		e.clock.start = e.clock.start.Add(-time.Second)
		d.sweep()
	}
	d.silence(sent + time.Second)
	if d.peers["a"] == nil {
		t.Fatal("a worker is dead whose heartbeats may wait to be read")
	}
	d.silence(e.clock.since())
	if d.peers["a"] != nil {
		t.Error("a worker is alive that has been silent for ten intervals")
	}
}

func TestTaskSentTwiceBecauseOfALostConnectionIsFlagged(t *testing.T) {
	e := idleEngine(t, nil)
	d := e.dispatcher
	c := classOf(e, definitions.Bounded)
	join(d, beatOf("a", "q1", 1))
	d.offer([]offer{offerOf(c, 1)})
	first := d.collect(nil) // published; the broker took it, a has it, then the connection broke
	d.unsent(&first[0])     // Publish said ErrUnavailable: a prefix may have gone out
	d.collect(nil)          // published again, to the queue that went with a's connection
	join(d, beatOf("b", "qb", 1))
	d.returned("q1", []protocol.TaskID{offerOf(c, 1).id}) // and it came back
	for _, p := range d.collect(nil) {
		for _, s := range p.tasks {
			if !s.task.Resent {
				t.Errorf("sent to %s as if nobody had it; a runs it", p.peer.id)
			}
		}
	}
}

func TestMovedTaskDoesNotRaceWithItsSender(t *testing.T) {
	e := idleEngine(t, nil)
	d := e.dispatcher
	c := classOf(e, definitions.Bounded)
	join(d, beatOf("a", "q1", 1))
	d.offer([]offer{offerOf(c, 1)})
	parcels := d.collect(nil)
	var wg sync.WaitGroup
	wg.Go(func() { e.pack(nil, &parcels[0]) })
	wg.Go(func() { d.heard(beatOf("a", "q2", 2)) })
	wg.Wait()
}

func TestTwoEnginesMayHaveOneRegistererInTurn(t *testing.T) {
	defer func() {
		if v := recover(); v != nil {
			t.Errorf("New panics: %v", v)
		}
	}()
	reg := prometheus.NewRegistry()
	e := idleEngine(t, reg)
	if err := e.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	idleEngine(t, reg)
}

func TestStartIsRememberedUntilItIsDurable(t *testing.T) {
	r := newRecentStarts()
	at := func(d time.Duration) time.Duration { return 100*lookupValid + d }
	r.add("slow", 7, at(0), 1, 0)
	for i := range 10 { // the commit of "slow" takes for ever
		r.add(fmt.Sprint("other-", i), int64(i), at(time.Duration(i+1)*2*lookupValid), uint64(i+2), 0)
	}
	if ref, ok := r.find("slow"); !ok || ref != 7 {
		t.Error("a start that is not durable yet is forgotten: a repetition would start a second run")
	}
	// Somebody may have looked just before the commit could be seen, and is good for a second.
	done := 22 * lookupValid
	for _, d := range []time.Duration{done, done + lookupValid/2, done + lookupValid} {
		if r.turn(at(d), 1); d == done {
			r.turn(at(d), 50)
		}
		if ref, ok := r.find("slow"); !ok || ref != 7 {
			t.Errorf("%v after it was durable, a start is forgotten", d-done)
		}
	}
	for i := range 3 {
		r.add(fmt.Sprint("later-", i), int64(i), at(time.Duration(i+20)*2*lookupValid), uint64(i+20), 50)
	}
	if _, ok := r.find("slow"); ok {
		t.Error("a start that has long been durable is remembered for ever")
	}
}

// A store that was restored from a copy may hear of an attempt's success before it
// has come to ask for the attempt: that is when it asks. In one batch, what ends the
// attempts that nobody asks for must not end this one.
func TestAnAnswerAheadOfItsQuestionDoesNotEndIt(t *testing.T) {
	e := idleEngine(t, nil)
	b := definitions.Saga("two").Service("s")
	b.Step("first").Action("t").Compensation("u")
	b.Step("second").Action("t").Compensation("u")
	ctx := t.Context()
	if _, err := e.RegisterWorkflow(ctx, b.MustBuild().JSON()); err != nil {
		t.Fatal(err)
	}
	wf, err := e.workflows.current(ctx, "two")
	if err != nil {
		t.Fatal(err)
	}
	s := e.shards.get(0)
	if err := s.start(&startOrder{wf: wf, id: "r", fresh: true, reply: func(rest.Started, error) {}}); err != nil {
		t.Fatal(err)
	}
	ref := s.part.Create[0].Ref
	s.part, s.effects = store.Part{}, effects{}
	answer := func(step int, stray bool) {
		m := message{ref: ref, runID: "r", stray: stray, input: machine.Result{
			Step: step, Phase: machine.Action, Generation: 1, Attempt: 1, Outcome: machine.OutcomeSucceeded, Worker: "w",
		}}
		if err := s.handle(&m); err != nil {
			t.Fatal(err)
		}
	}
	answer(1, true)
	answer(0, false)
	if len(s.effects.dispatch) != 1 || s.effects.dispatch[0].id.Step != 1 {
		t.Fatalf("%d tasks are sent", len(s.effects.dispatch))
	}
	if len(s.effects.cancel) != 0 {
		t.Errorf("the task is taken back: %+v", s.effects.cancel)
	}
}
