package worker

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/protocol"
)

// desk drives a board as a worker does, with a clock of its own.
type desk struct {
	t *testing.T
	board
	now  time.Time
	pack packer
	seq  map[string]uint64
}

func newDesk(t *testing.T, c Config) *desk {
	c = c.withDefaults()
	return &desk{t: t, board: newBoard("w", &c), now: time.Unix(1_000, 0), seq: map[string]uint64{}}
}

// task n is of shard n%4.
func (d *desk) task(owner string, epoch uint64, n int) protocol.Task {
	d.seq[owner]++
	return protocol.Task{
		TaskID: protocol.TaskID{Ref: int64(n), Phase: protocol.PhaseAction, Generation: 1, Attempt: 1},
		RunID:  fmt.Sprint("run-", n), StepName: "s", Service: "svc", Type: "noop", Shard: uint32(n % 4), Epoch: epoch,
		Owner: owner, Seq: d.seq[owner], Timeout: time.Minute,
	}
}

func (d *desk) deliver(owner string, epoch uint64, ns ...int) intake {
	var msgs []protocol.Task
	for _, n := range ns {
		msgs = append(msgs, d.task(owner, epoch, n))
	}
	return d.accept(msgs, protocol.Version, "svc", nil, d.now)
}

// perform runs everything that may run and returns the task numbers.
func (d *desk) perform() (ns []int) {
	for t := d.next(context.Background(), d.now); t != nil; t = d.next(context.Background(), d.now) {
		ns = append(ns, int(t.msg.Ref))
		t.answer(verdict{outcome: protocol.OutcomeSucceeded}, "", null, 0)
		d.finish(t)
	}
	return ns
}

// sent empties the outbox and tells what went where: "owner:seq=task".
func (d *desk) sent() (out []string) {
	d.pack.pack(&d.board, d.now, false)
	for _, p := range d.pack.parcels {
		for _, r := range p.results {
			out = append(out, fmt.Sprintf("%s:%d=%d", p.to.id, r.Seq, r.Ref))
		}
	}
	return out
}

func (d *desk) announces(owner string, hello bool, epoch, durable uint64, shards ...uint32) {
	a := protocol.Announcement{Orchestrator: owner, Hello: hello, Shards: map[uint32]uint64{}, Durable: map[string]uint64{"w": durable}}
	for _, s := range shards {
		a.Shards[s] = epoch
	}
	d.announce(&a, d.now)
}

func (d *desk) expect(what string, got any, want string) {
	d.t.Helper()
	if s := fmt.Sprint(got); s != want {
		d.t.Errorf("%s: got %s, want %s", what, s, want)
	}
}

func TestResultsAreNumberedByOwnerAndForgottenOnceDurable(t *testing.T) {
	d := newDesk(t, Config{})
	d.deliver("a", 1, 1, 2)
	d.deliver("b", 1, 3)
	d.expect("performed", d.perform(), "[1 2 3]")
	d.expect("sent", d.sent(), "[a:1=1 a:2=2 b:1=3]")
	d.expect("sent twice", d.sent(), "[]")
	d.settle(d.peers["a"], 1)
	d.expect("held", d.held, "2")
	d.expect("floor", []uint64{d.peers["a"].floor(), d.peers["b"].floor()}, "[2 1]")
	d.announces("b", false, 1, 1)
	d.settle(d.peers["a"], 2)
	d.expect("held", d.held, "0")
	d.expect("known", len(d.tasks), "0")
	d.expect("floor", []uint64{d.peers["a"].floor(), d.peers["b"].floor()}, "[3 2]")
}

func TestATaskBelowTheHighestEpochOfItsShardIsRefused(t *testing.T) {
	d := newDesk(t, Config{})
	d.deliver("a", 5, 1)
	in := d.deliver("old", 4, 5) // shard 1 as well
	d.expect("stale", in.stale, "1")
	in = d.deliver("old", 4, 2)
	d.expect("another shard", in.queued, "1")
	d.announces("b", false, 6, 0, 2)
	in = d.deliver("old", 4, 6)
	d.expect("announced", in.stale, "1")
	d.expect("received all the same", d.peers["old"].received, "3")
	d.expect("performed", d.perform(), "[1 2]")
	// The owner of shard 2 is b by now, whoever sent the task.
	d.expect("sent", d.sent(), "[a:1=1 b:1=2]")
}

func TestAStaleAnnouncementTakesNothingBack(t *testing.T) {
	d := newDesk(t, Config{})
	d.announces("b", false, 7, 0, 1)
	d.announces("a", false, 6, 0, 1)
	d.expect("owner", d.shards[1].owner.id, "b")
}

func TestResultsFollowTheirShardToANewOwner(t *testing.T) {
	d := newDesk(t, Config{})
	d.deliver("a", 1, 1, 2, 5)
	d.perform()
	d.sent()
	d.announces("b", true, 2, 0, 1) // takes shard 1: tasks 1 and 5
	again := d.sent()
	slices.Sort(again)
	if s := fmt.Sprint(again); s != "[b:1=1 b:2=5]" && s != "[b:1=5 b:2=1]" {
		t.Errorf("sent again: %s", s)
	}
	d.expect("floor of a", d.peers["a"].floor(), "2")
	// Numbers 1 and 3 of a's are void: its watermark frees its own only.
	d.settle(d.peers["a"], 3)
	d.expect("held", d.held, "2")
	d.settle(d.peers["b"], 2)
	d.expect("held", d.held, "0")
}

func TestResultsAreSentAgainUntilTheyAreDurable(t *testing.T) {
	d := newDesk(t, Config{ResendAfter: 5 * time.Second})
	d.deliver("a", 1, 1, 2)
	d.perform()
	d.expect("first", d.sent(), "[a:1=1 a:2=2]")
	d.settle(d.peers["a"], 1)

	d.now = d.now.Add(4 * time.Second)
	d.overdue(d.now)
	d.expect("too early", d.sent(), "[]")
	d.now = d.now.Add(time.Second)
	d.overdue(d.now)
	d.expect("overdue", d.sent(), "[a:2=2]")
	d.announces("a", true, 1, 0, 0, 1, 2, 3)
	d.expect("hello", d.sent(), "[a:2=2]")
	d.repostAll()
	d.expect("reconnected", d.sent(), "[a:2=2]")
	d.deliver("a", 1, 2)
	d.expect("duplicate", d.sent(), "[a:2=2]")
	d.expect("not performed again", d.perform(), "[]")
}

func TestAReturnedResultWaitsForAnAnnouncement(t *testing.T) {
	d := newDesk(t, Config{})
	d.deliver("a", 1, 1)
	d.perform()
	d.sent()
	d.returned([]protocol.Result{*d.peers["a"].numbered.front().task.result})
	d.deliver("a", 1, 2)
	d.perform()
	d.now = d.now.Add(time.Minute)
	d.overdue(d.now)
	d.expect("while unreachable", d.sent(), "[]")
	d.announces("a", false, 1, 0, 1, 2)
	d.expect("announced", d.sent(), "[a:1=1 a:2=2]")

	d.announce(&protocol.Announcement{Orchestrator: "a", Leaving: true}, d.now)
	d.deliver("a", 1, 3)
	d.perform()
	d.expect("after it left", d.sent(), "[]")
	d.announces("b", false, 2, 0, 1, 2, 3)
	d.expect("to the next", len(d.sent()), "3")
}

func TestNoTaskStartsWhileTooManyResultsAreHeld(t *testing.T) {
	for name, c := range map[string]Config{"results": {MaxHeldResults: 2}, "bytes": {MaxHeldBytes: 8}} {
		d := newDesk(t, c)
		d.deliver("a", 1, 1, 2, 3, 4)
		d.expect(name, d.perform(), "[1 2]")
		d.settle(d.peers["a"], 1)
		d.expect(name+" with room", d.perform(), "[3]")
		var h protocol.Heartbeat
		d.list(&h, d.now)
		d.expect(name+" listed", []int{len(h.Queued), len(h.Running), len(h.Finished)}, "[1 0 2]")
	}
}

func TestTasksBeyondTheCreditAreAnsweredAtOnce(t *testing.T) {
	d := newDesk(t, Config{Concurrency: 1, Prefetch: -1})
	var ns []int
	for n := range 1_030 {
		ns = append(ns, n)
	}
	in := d.deliver("a", 1, ns...)
	d.expect("queued and answered", []int{in.queued, in.overloaded, d.held}, "[1024 6 6]")
	d.expect("code", d.outbox[0].result.Code, CodeOverloaded)
}

func TestDrainingDropsWhatHasNotStarted(t *testing.T) {
	d := newDesk(t, Config{})
	d.deliver("a", 1, 1, 2, 3)
	running := d.next(context.Background(), d.now)
	d.expect("dropped", d.drain(), "2")
	d.expect("later", d.deliver("a", 1, 4).dropped, "1")
	var h protocol.Heartbeat
	d.list(&h, d.now.Add(1500*time.Millisecond))
	d.expect("listed", []any{h.Draining, len(h.Queued), len(h.Running), h.Running[0].AgeMS, h.Received["a"]}, "[true 0 1 1500 4]")
	running.answer(verdict{outcome: protocol.OutcomeSucceeded}, "", null, 0)
	d.finish(running)
	d.expect("nothing starts", d.perform(), "[]")
	d.expect("sent", d.sent(), "[a:1=1]")
}

func TestCancelAnswersQueuedTasksWithoutRunningThem(t *testing.T) {
	d := newDesk(t, Config{})
	d.deliver("a", 1, 1, 2)
	running := d.next(context.Background(), d.now)
	d.cancel([]protocol.TaskID{running.msg.TaskID, d.task("a", 1, 2).TaskID, d.task("a", 1, 9).TaskID})
	d.expect("running", running.cancelled, "true")
	r := d.outbox[0].result
	d.expect("queued", []any{r.Outcome, r.Code, r.Ref}, "[failed cancelled 2]")
	d.expect("nothing left", d.perform(), "[]")
}

func TestAWatermarkFromBeforeAForgottenTimeFreesNothing(t *testing.T) {
	d := newDesk(t, Config{})
	d.deliver("a", 1, 1)
	d.perform()
	d.expect("first", d.sent(), "[a:1=1]")
	d.announces("a", false, 1, 500)
	d.expect("held", d.held, "1")
	d.expect("renumbered", d.sent(), "[a:501=1]")
	d.settle(d.peers["a"], 501)
	d.expect("held", d.held, "0")
}

func TestLongSilentOrchestratorsAreForgotten(t *testing.T) {
	d := newDesk(t, Config{})
	d.deliver("a", 1, 1)
	d.deliver("b", 1, 2)
	d.deliver("c", 1, 3)
	d.perform()
	for _, id := range []string{"a", "b"} {
		d.settle(d.peers[id], 1)
	}
	d.announces("d", false, 2, 0, 1) // takes a's shard
	d.now = d.now.Add(2 * peerMemory)
	d.prune(d.now)
	_, a := d.peers["a"] // nothing left
	_, b := d.peers["b"] // owns a shard
	_, c := d.peers["c"] // awaits a result
	d.expect("known", []bool{a, b, c}, "[false true true]")
}

func TestAPackerSplitsByOwnerCountAndSize(t *testing.T) {
	d := newDesk(t, Config{MaxHeldResults: 5_000, Prefetch: 5_000})
	var ns []int
	for n := range 2_500 {
		ns = append(ns, n)
	}
	d.deliver("a", 1, ns...)
	d.announces("b", false, 1, 0, 3) // a quarter is b's
	d.perform()
	d.sent()
	got := map[string]int{}
	for _, p := range d.pack.parcels {
		got[fmt.Sprint(p.to.id, len(p.results))]++
	}
	d.expect("parcels", got, "map[a1000:1 a875:1 b625:1]")

	for _, task := range d.pack.tasks[:3] {
		task.result.Payload = make([]byte, maxBatchBytes*2/5)
		d.post(task)
	}
	d.sent()
	d.expect("by size", len(d.pack.parcels), "2")
	d.pack.pack(&d.board, d.now, true)
	d.expect("nothing left", len(d.pack.tasks), "0")
}

func TestAFifoKeepsOrderAndMemory(t *testing.T) {
	var q fifo[int]
	next, want := 0, 0
	for range 1_000 {
		for range 3 {
			q.push(next)
			next++
		}
		for range 2 {
			if got := q.pop(); got != want {
				t.Fatalf("got %d, want %d", got, want)
			}
			want++
		}
		if q.len() > 100 {
			for q.len() > 0 {
				if got := q.pop(); got != want {
					t.Fatalf("got %d, want %d", got, want)
				}
				want++
			}
		}
	}
	if cap(q.items) > 1_000 {
		t.Errorf("it grew to %d", cap(q.items))
	}
}

func TestCommitsAndAbortsGoFirst(t *testing.T) {
	d := newDesk(t, Config{})
	d.announces("A", true, 1, 0, 0, 1, 2, 3)
	msgs := []protocol.Task{d.task("A", 1, 1), d.task("A", 1, 2), d.task("A", 1, 3), d.task("A", 1, 4)}
	msgs[0].Phase, msgs[1].Phase, msgs[2].Phase, msgs[3].Phase = protocol.PhasePrepare, protocol.PhaseCommit, protocol.PhasePrepare, protocol.PhaseAbort
	d.accept(msgs, protocol.Version, "svc", nil, d.now)
	d.expect("the order", fmt.Sprint(d.perform()), "[2 4 1 3]")
}

func TestRoomIsDividedAmongOrchestratorsThatOwnShards(t *testing.T) {
	d := newDesk(t, Config{})
	step := func(what string, want int, change func()) {
		t.Helper()
		if change(); d.sharers(d.now) != want {
			t.Errorf("%s: the room is divided by %d, not %d", what, d.sharers(d.now), want)
		}
	}
	every := func(owner string, epoch uint64, shards ...uint32) *protocol.Announcement {
		a := &protocol.Announcement{Orchestrator: owner, IntervalMS: 2000, Shards: map[uint32]uint64{}}
		for _, s := range shards {
			a.Shards[s] = epoch
		}
		return a
	}
	pass := func(t time.Duration) { d.now = d.now.Add(t) }
	step("nobody is there", 1, func() {})
	step("one comes", 1, func() { d.announce(every("a", 1, 0, 1, 2, 3), d.now) })
	step("one comes that owns nothing", 1, func() { d.announce(every("b", 1), d.now) })
	step("it takes a shard", 2, func() { d.announce(every("b", 2, 3), d.now) })
	step("a third takes one, and says nothing of its interval", 3, func() { d.announces("c", false, 2, 0, 2) })
	step("one takes the other's last shard", 2, func() { d.announce(every("b", 3, 2, 3), d.now) })
	step("one leaves", 1, func() { a := every("b", 3, 2, 3); a.Leaving = true; d.announce(a, d.now) })
	step("it is back", 2, func() { d.announce(every("b", 3, 2, 3), d.now) })
	step("one is silent for two intervals", 2, func() { pass(4 * time.Second); d.announce(every("a", 1, 0, 1), d.now) })
	step("and for three", 1, func() { pass(2 * time.Second) })
	step("it sends a task", 2, func() { d.deliver("b", 3, 2) })
	step("all are silent", 1, func() { pass(time.Hour) })
	step("the other takes everything", 1, func() { d.announce(every("a", 9, 0, 1, 2, 3), d.now) })
	d.expect("shards", []int{d.peers["a"].shards, d.peers["b"].shards, d.peers["c"].shards}, "[4 0 0]")
}

func TestPartsOfTheRoomAreRoundedUp(t *testing.T) {
	for _, c := range []struct{ concurrency, prefetch, sharers, want int }{
		{16, 256, 1, 272}, {16, 256, 2, 136}, {16, 256, 3, 92}, {1, 0, 3, 1}, {5, 1, 2, 4}, {10, 0, 10, 1},
	} {
		w := Worker{cfg: Config{Concurrency: c.concurrency, Prefetch: c.prefetch}, sharers: c.sharers}
		if got := w.credit(); got != c.want || got*c.sharers > c.concurrency+c.prefetch+2*(c.sharers-1) {
			t.Errorf("%+v: each of them gets %d", c, got)
		}
	}
}

func TestSilentOrchestratorsAreNotListedUntilTheyAreHeardOfAgain(t *testing.T) {
	d := newDesk(t, Config{})
	listed := func() string {
		var h protocol.Heartbeat
		d.list(&h, d.now)
		return fmt.Sprint(h.Received, h.Floor)
	}
	d.deliver("a", 1, 1)
	d.perform()
	d.settle(d.peers["a"], 1)
	for range 50 { // restarts
		d.now = d.now.Add(10 * time.Second)
		d.deliver(fmt.Sprint("b", d.now.Unix()), 2, 2, 3)
	}
	var h protocol.Heartbeat
	if d.list(&h, d.now); len(h.Received) > 7 {
		t.Errorf("%d orchestrators are listed", len(h.Received))
	}
	d.now = d.now.Add(time.Hour / 2)
	d.expect("after half an hour", listed(), "map[] map[]")
	d.announces("a", true, 1, 0, 1)
	d.expect("when one is back", listed(), "map[a:1] map[a:2]")
}
