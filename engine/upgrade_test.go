package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/internal/dialect"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/worker"
)

var (
	before = protocol.Versions{Min: protocol.MinVersion, Max: protocol.MinVersion} // one version older than this code
	after  = protocol.Versions{Min: protocol.Version, Max: protocol.Version + 1}   // one newer
	beyond = protocol.Versions{Min: protocol.Version + 1, Max: protocol.Version + 2}
)

// speaking is the world's broker for a peer of other versions.
func (w *world) speaking(v protocol.Versions) broker.Broker {
	return dialect.Broker(w.broker, v, w.t.Errorf)
}

// A worker that speaks no version of ours is sent nothing but the reason, and
// everybody can see why tasks wait.
func TestWorkerOfAnIncompatibleVersionIsRefusedVisibly(t *testing.T) {
	w := newWorld(t, nil)
	reg := prometheus.NewRegistry()
	w.tune = func(c *engine.Config) { c.Registerer = reg }
	e := w.start()
	w.register(payOnly(nil))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()

	conn, err := w.speaking(beyond).Open(ctx, broker.Options{Name: "from-the-future"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	queue, told := make(chan string, 1), make(chan broker.Message, 10)
	if _, err := conn.Subscribe(ctx, broker.Subscription{
		Queue: protocol.WorkerQueue("", "future-1"), Kind: broker.Exclusive, NoAck: true,
		OnDeclared: func(q string) { queue <- q }, Handler: func(d broker.Delivery) { told <- d.Message },
	}); err != nil {
		t.Fatal(err)
	}
	hb := protocol.Heartbeat{
		Worker: "future-1-ab", Name: "future-1", Queue: <-queue, Service: "shop", TaskTypes: []string{"pay"},
		Capacity: 1, Credit: 1, Weight: 100, IntervalMS: 50, Sequence: 1,
	}
	for range 2 {
		if err := conn.Publish(ctx, protocol.EncodeHeartbeat(protocol.HeartbeatsExchange(""), &hb)); err != nil {
			t.Fatal(err)
		}
		hb.Sequence++
	}
	reason := fmt.Sprintf(`worker "future-1-ab" speaks protocol version %v, this side speaks version %v`, beyond, protocol.Spoken())
	m := <-told
	var c protocol.Control
	if err := json.Unmarshal(m.Body, &c); err != nil || m.Type != string(protocol.KindControl) || c.Drain || !strings.Contains(c.Refused, reason) {
		t.Errorf("it is told %+v: %s (%v)", m, m.Body, err)
	}
	list, err := e.Workers(ctx)
	if err != nil || len(list) != 1 || list[0].State != "incompatible" || list[0].Protocol != beyond.String() ||
		list[0].Name != "future-1" || !strings.Contains(list[0].Problem, reason) {
		t.Errorf("workers: %+v, %v", list, err)
	}
	id := w.run(rest.Start{Workflow: "one"})
	w.eventually("the run says what it waits for", func() bool {
		d, err := e.Run(ctx, id)
		return err == nil && strings.Contains(d.Steps[0].Waiting, fmt.Sprintf("none is connected; worker future-1 speaks protocol version %v, this orchestrator %v", beyond, protocol.Spoken()))
	})
	want := "# HELP ringmaster_incompatible_total Workers and orchestrators heard that speak no protocol version of this orchestrator, by side.\n" +
		"# TYPE ringmaster_incompatible_total counter\nringmaster_incompatible_total{side=\"worker\"} 1\n"
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "ringmaster_incompatible_total"); err != nil {
		t.Error(err)
	}
	w.workerOn(w.speaking(before), "old", shop(newLedger())) // which speaks a version that is understood
	w.wait(id, "succeeded")
	list, err = e.Workers(ctx)
	if err != nil || len(list) != 2 || list[0].Protocol != before.String() {
		t.Errorf("workers: %+v, %v", list, err)
	}
	hb.Leaving = true
	if err := conn.Publish(ctx, protocol.EncodeHeartbeat(protocol.HeartbeatsExchange(""), &hb)); err != nil {
		t.Fatal(err)
	}
	w.eventually("it has left", func() bool { list, err := e.Workers(ctx); return err == nil && len(list) == 1 })
	if len(told) > 0 {
		t.Errorf("it is told more: %+v", <-told)
	}
}

func TestOrchestratorOfAnIncompatibleVersionIsAFaultWhileItIsThere(t *testing.T) {
	w := newWorld(t, nil)
	e := w.start()
	other := newWorld(t, nil)
	other.broker = w.speaking(beyond)
	other.start()
	w.eventually("the other is noticed", func() bool {
		return strings.Contains(e.Health(context.Background()).Checks["engine"], fmt.Sprintf("speaks protocol version %v, this side speaks version %v", beyond, protocol.Spoken()))
	})
	other.stop()
	w.eventually("it has left", func() bool { return e.Health(context.Background()).Status == "ok" })
}

// Orchestrators one version apart share shards and runs. One that is further from
// any of them does not join, and says why.
func TestOrchestratorsJoinThoseOneVersionApart(t *testing.T) {
	tm := newTeam(t, 6)
	speaking := func(v protocol.Versions) func(*engine.Config) {
		return func(c *engine.Config) { c.Broker = tm.speaking(v) }
	}
	a, b := tm.join(nil), tm.join(speaking(after))
	tm.spread(3, 3)
	tm.engine, tm.world.store = a.Engine, a.store
	tm.register(order())
	l := newLedger()
	tm.worker("w", shop(l))
	for i, m := range []*member{a, b} { // each starts a run of the other's
		id := []*member{b, a}[i].idOf(i)
		if _, err := m.StartRun(context.Background(), rest.Start{Workflow: "order", ID: id, Input: orderInput}); err != nil {
			t.Fatal(err)
		}
		tm.wait(id, "succeeded")
	}
	c, err := tm.tryToJoin(speaking(beyond))
	if want := fmt.Sprintf("join the orchestrators of namespace ringmaster, which are upgraded one version at a time: unsupported protocol version: orchestrator %q speaks", a.ID()); !errors.Is(err, protocol.ErrVersion) || !strings.Contains(err.Error(), want) {
		t.Errorf("it joins: %v, want %s", err, want)
	}
	if len(c.Shards()) > 0 {
		t.Errorf("it owns shards %v", c.Shards())
	}
	tm.engine, tm.world.store = nil, nil
}

// rolling is a service whose workers and whose orchestrator are replaced while
// runs are under way.
type rolling struct {
	*world
	l *ledger
}

// join starts a worker that speaks v. The function returned drains it.
func (r rolling) join(name string, v protocol.Versions, single bool) (leave func()) {
	r.t.Helper()
	sdk, err := worker.New(worker.Config{
		Broker: dialect.Broker(r.broker, v, r.t.Errorf), Name: name, Service: "shop", HeartbeatInterval: 50 * time.Millisecond,
		Logger: r.logger(), Prefetch: 8, DisableBatch: single, DrainTimeout: patience, SettleTimeout: patience,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	for typ, f := range shop(r.l) {
		sdk.HandleFunc(typ, f)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sdk.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("worker %s: %v", name, err)
		}
	}
}

// orchestrator starts an orchestrator that speaks v, in the place of the one
// before.
func (r rolling) orchestrator(b broker.Broker, v protocol.Versions) {
	r.stop()
	r.broker = dialect.Broker(b, v, r.t.Errorf)
	r.start()
	r.broker = b
}

func (r rolling) load(name string, n int) (ids []string) {
	starts := make([]rest.Start, n)
	for i := range starts {
		starts[i] = rest.Start{Workflow: "order", ID: fmt.Sprintf("%s-%d", name, i), Input: orderInput}
		ids = append(ids, starts[i].ID)
	}
	for _, o := range r.engine.StartRuns(context.Background(), starts) {
		if o.Error != nil {
			r.t.Fatal(o.Error)
		}
	}
	return ids
}

// ended checks that all runs succeed, and that each of their effects happened
// once.
func (r rolling) ended(ids []string) {
	r.t.Helper()
	for _, id := range ids {
		r.wait(id, "succeeded")
		for _, step := range []string{"create", "pay", "deliver"} {
			if n := r.l.count(id + "/" + step + "/action/1"); n != 1 {
				r.t.Errorf("%s of run %s happened %d times", step, id, n)
			}
		}
	}
}

// TestFleetsOfTwoVersionsWorkTogether has workers and orchestrators one version
// apart work over RabbitMQ, and replaces all of them, one after the other, while
// runs are under way.
func TestFleetsOfTwoVersionsWorkTogether(t *testing.T) {
	now := protocol.Spoken()
	for _, c := range []struct {
		name         string
		old, current protocol.Versions
	}{
		{"from the version before", before, now},
		{"to the next version", now, after},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := rolling{newWorld(t, func(e *engine.Config) { e.RecoveryGrace = 2 * time.Second }), newLedger()}
			b := rabbitBroker(t, testenv.RabbitMQ(t))
			r.broker = b
			const each = 60
			r.orchestrator(b, c.old)
			r.register(order())
			leave1, leave2 := r.join("w1", c.old, false), r.join("w2", c.old, true)
			r.ended(r.load("old-fleet", each))
			all := r.load("orchestrator-replaced", each)
			r.orchestrator(b, c.current)
			r.ended(append(all, r.load("orchestrator-new", each)...))
			all = r.load("half-the-workers", each)
			leave3 := r.join("w3", c.current, false)
			leave1()
			r.ended(all)
			all = r.load("last-worker-replaced", each)
			leave4 := r.join("w4", c.current, true)
			leave2()
			r.ended(all)
			all = r.load("orchestrator-put-back", each)
			r.orchestrator(b, c.old)
			r.ended(append(all, r.load("orchestrator-old", each)...))
			leave3()
			leave4()
		})
	}
}
