package engine

import (
	"testing"

	"github.com/ringmaster-dev/ringmaster/broker/memory"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/store/storetest"
)

// desk is a dispatcher without the engine around it: what it would publish is
// collected by the test.
type desk struct {
	*dispatcher
	t     testing.TB
	class *class
	beats uint64
	given int64 // the last task of flow
}

func newDesk(t testing.TB) *desk {
	t.Helper()
	b, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := New(Config{Store: storetest.NewModel(1), Broker: b})
	if err != nil {
		t.Fatal(err)
	}
	adopt(e, newShard(e, 0, 1, 0))
	saga := definitions.Saga("s").Service("shop")
	saga.Step("pay").Action("pay").NoCompensation("a test")
	return &desk{dispatcher: e.dispatcher, t: t, class: e.dispatcher.class(saga.MustBuild().Step(0), machine.Action)}
}

func (d *desk) beat(worker, queue string, change func(*protocol.Heartbeat)) {
	d.beats++
	hb := protocol.Heartbeat{
		Worker: worker, Name: worker, Queue: queue, Service: "shop", TaskTypes: []string{"pay"},
		Credit: 10, Weight: 100, IntervalMS: 1000, Sequence: d.beats,
	}
	if change != nil {
		change(&hb)
	}
	d.heard(&hb)
	d.noted(d.known.now)
}

func task(n int64) protocol.TaskID {
	return protocol.TaskID{Ref: n, Phase: protocol.PhaseAction, Generation: 1, Attempt: 1}
}

func (d *desk) give(n int64) {
	id := task(n)
	d.offer([]offer{{class: d.class, entry: entry{id: id, task: &protocol.Task{TaskID: id}}}})
}

// sent is what would be published now: task numbers by queue.
func (d *desk) sent() map[string][]int64 {
	out := map[string][]int64{}
	for _, p := range d.collect(nil) {
		for _, s := range p.tasks {
			out[p.queue] = append(out[p.queue], s.id.Ref)
		}
	}
	return out
}

func (d *desk) expect(what string, want map[string]int) {
	d.t.Helper()
	got := d.sent()
	for queue, n := range want {
		if len(got[queue]) != n {
			d.t.Errorf("%s: %v was sent, not %v", what, got, want)
			return
		}
	}
	if len(got) != len(want) {
		d.t.Errorf("%s: %v was sent, not %v", what, got, want)
	}
}

func TestTaskForAWorkerThatBecameUnreachableIsSentWhenItIsBack(t *testing.T) {
	d := newDesk(t)
	d.beat("a", "q1", nil)
	d.give(1)
	d.returned("q1", nil) // by an earlier message, before task 1 was published
	d.expect("while it is unreachable", map[string]int{})
	d.beat("a", "q2", nil)
	d.expect("when it is back", map[string]int{"q2": 1})
}

func TestTaskThatCameBackGoesElsewhere(t *testing.T) {
	d := newDesk(t)
	d.beat("a", "q1", nil)
	d.give(1)
	d.expect("at first", map[string]int{"q1": 1})
	d.beat("b", "q2", nil)
	d.returned("q1", []protocol.TaskID{task(1)})
	d.expect("after it came back", map[string]int{"q2": 1})
}

func TestTasksOfAnOldQueueThatWereNotReceivedAreSentAgain(t *testing.T) {
	d := newDesk(t)
	d.beat("a", "q1", nil)
	d.give(1)
	d.give(2)
	d.expect("at first", map[string]int{"q1": 2})
	d.beat("a", "q2", func(hb *protocol.Heartbeat) {
		hb.Received = map[string]uint64{d.eng.id: 1}
		hb.Queued = []protocol.Held{{TaskID: task(1)}}
	})
	d.expect("after the queue changed", map[string]int{"q2": 1})
}

func TestTaskThatIsNotListedTwiceIsLost(t *testing.T) {
	d := newDesk(t)
	d.beat("a", "q1", nil)
	d.give(1)
	d.expect("at first", map[string]int{"q1": 1})
	received := func(hb *protocol.Heartbeat) { hb.Received = map[string]uint64{d.eng.id: 1} }
	d.beat("a", "q1", received)
	if n := len(d.eng.shards.get(0).inbox.take(nil)); n != 0 {
		t.Errorf("given up after one heartbeat")
	}
	d.beat("a", "q1", received)
	got := d.eng.shards.get(0).inbox.take(nil)
	if len(got) != 1 {
		t.Fatalf("%d messages to the run, not 1", len(got))
	}
	if l, ok := got[0].input.(machine.Lost); !ok || l.Reason != machine.LostVanished {
		t.Errorf("the run hears %+v", got[0].input)
	}
}

// A worker that was silent for a while still counts what it received before.
func TestTaskOnItsWayToAWorkerThatCameBackIsNotLost(t *testing.T) {
	d := newDesk(t)
	d.beat("a", "q1", nil)
	d.give(1)
	d.give(2)
	d.expect("at first", map[string]int{"q1": 2})
	d.forget(d.peers["a"], "silent")
	d.eng.shards.get(0).inbox.take(nil)
	received := func(hb *protocol.Heartbeat) { hb.Received = map[string]uint64{d.eng.id: 2} }
	d.beat("a", "q1", received)
	d.give(3)
	d.expect("when it is back", map[string]int{"q1": 1})
	for range 3 {
		d.beat("a", "q1", received)
	}
	if got := d.eng.shards.get(0).inbox.take(nil); len(got) != 0 {
		t.Errorf("the run hears %+v of a task that is on its way", got[0].input)
	}
}

func TestUnpublishedParcelGoesOutLater(t *testing.T) {
	d := newDesk(t)
	d.beat("a", "q1", nil)
	d.give(1)
	parcels := d.collect(nil)
	if len(parcels) != 1 {
		t.Fatalf("%d parcels", len(parcels))
	}
	d.unsent(&parcels[0])
	d.expect("when the broker is back", map[string]int{"q1": 1})
}

func TestRecoveredTasksWaitForAllWorkersOfTheirService(t *testing.T) {
	d := newDesk(t)
	d.known.now = map[string]string{"a": "shop", "b": "shop"}
	d.known.waiting["shop"] = map[string]*report{"a": {left: reports}, "b": {left: reports}}
	limbo := func(n int64) limboTask {
		return limboTask{offer: offer{class: d.class, entry: entry{id: task(n), task: &protocol.Task{TaskID: task(n)}}}}
	}
	d.recovered([]limboTask{limbo(1), limbo(2)})
	holds := func(hb *protocol.Heartbeat) { hb.Running = []protocol.Held{{TaskID: task(1)}} }
	later := func() { d.eng.clock.start = d.eng.clock.start.Add(-reportGap) }
	d.beat("a", "q1", holds)
	later()
	d.beat("a", "q1", holds)
	d.beat("b", "q2", nil)
	d.expect("before b has reported twice", map[string]int{})
	d.beat("b", "q2", nil)
	d.expect("when b's reports are of one moment", map[string]int{})
	later()
	d.beat("b", "q2", nil)
	got := d.sent()
	if len(got["q1"])+len(got["q2"]) != 1 {
		t.Errorf("after all reported, %v is sent, not task 2 alone", got)
	}
	for _, p := range d.peers {
		if s := p.out[task(2)]; s != nil && s.doubtful {
			t.Error("task 2 is doubtful though nobody can have had it")
		}
	}
}

// adopt makes a shard one of the engine's, without a goroutine.
func adopt(e *Engine, s *shard) {
	e.shards.add(s)
	e.dispatcher.own(s.id, s.epoch)
	e.dispatcher.serve(s.id, nil)
}
