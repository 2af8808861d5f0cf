package engine_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/broker/rabbit"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

func rabbitBroker(t *testing.T, r *testenv.Rabbit) broker.Broker {
	t.Helper()
	b, err := rabbit.New(rabbit.Config{URLs: []string{r.URL}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRunsSurviveTheLossOfTheBroker starts runs over a real RabbitMQ, cuts its
// connections and restarts it in the middle: every run ends, each effect has
// happened once, although handlers may have been called again.
func TestRunsSurviveTheLossOfTheBroker(t *testing.T) {
	node := testenv.PrivateRabbitMQ(t)
	w, l := newWorld(t, nil), newLedger()
	w.broker = rabbitBroker(t, node)
	e := w.start()
	w.register(order())
	h := shop(l)
	var paid atomic.Int32
	halfway, goOn := make(chan struct{}), make(chan struct{})
	h["pay"] = func(ctx context.Context, in []byte) ([]byte, error) {
		if paid.Add(1) == 100 {
			close(halfway)
			<-goOn
		}
		return ok(l, `{"amount":12}`)(ctx, in)
	}
	for i := range 3 {
		w.worker(fmt.Sprintf("w%d", i), h)
	}
	const runs = 300
	starts := make([]rest.Start, runs)
	for i := range starts {
		starts[i] = rest.Start{Workflow: "order", ID: fmt.Sprintf("o-%d", i), Input: orderInput}
	}
	for _, o := range e.StartRuns(context.Background(), starts) {
		if o.Error != nil {
			t.Fatal(o.Error)
		}
	}
	<-halfway
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if n, err := node.KillConnections(ctx, ""); err != nil || n == 0 {
		t.Fatalf("%d connections were killed: %v", n, err)
	}
	if err := node.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	close(goOn)
	for i := range starts {
		w.wait(starts[i].ID, "succeeded")
	}
}

// TestLongTaskSurvivesOrchestratorAndBroker restarts both under a handler: it
// is called once.
func TestLongTaskSurvivesOrchestratorAndBroker(t *testing.T) {
	node := testenv.PrivateRabbitMQ(t)
	w, l := newWorld(t, func(c *engine.Config) { c.RecoveryGrace, c.ReconnectGrace = patience, patience }), newLedger()
	w.broker = rabbitBroker(t, node)
	w.start()
	w.register(order())
	h := shop(l)
	started, finish := make(chan struct{}, 10), make(chan struct{})
	h["pay"] = func(ctx context.Context, in []byte) ([]byte, error) {
		started <- struct{}{}
		<-finish
		return ok(l, `{"amount":12}`)(ctx, in)
	}
	w.worker("a", h)
	w.worker("b", h)
	id := w.run(rest.Start{Workflow: "order", Input: orderInput})
	<-started
	w.stop()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := node.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	e := w.start()
	w.eventually("the task is adopted", func() bool {
		d, err := e.Run(context.Background(), id)
		return err == nil && d.Steps[1].State == "running"
	})
	close(finish)
	w.wait(id, "succeeded")
	if len(started) != 0 || l.count(id+"/pay/action/1") != 1 {
		t.Errorf("pay was started %d times more", len(started))
	}
}

// TestPoisonIsKeptAndCounted sends what nobody can understand.
func TestPoisonIsKeptAndCounted(t *testing.T) {
	w := newWorld(t, nil)
	w.broker = rabbitBroker(t, testenv.RabbitMQ(t))
	reg := prometheus.NewRegistry()
	w.tune = func(c *engine.Config) { c.Registerer = reg }
	w.start()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := w.broker.Open(ctx, broker.Options{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	letters := make(chan broker.Delivery, 100)
	if _, err := conn.Subscribe(ctx, broker.Subscription{
		Queue: protocol.DeadLettersQueue(""), Kind: broker.Shared, Handler: func(d broker.Delivery) { letters <- d },
	}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		m    broker.Message
	}{
		{"a result without headers", broker.Message{Exchange: protocol.ResultsExchange(""), Key: protocol.ShardKey(0), Type: "result", Body: []byte("{}")}},
		{"a batch that is none", broker.Message{Exchange: protocol.ResultsExchange(""), Key: protocol.ShardKey(1), Type: "result", ContentType: protocol.ContentTypeBatch, Body: []byte("\x01r")}},
		{"a request of no kind", broker.Message{Key: protocol.RequestsQueue(""), Type: "request", Body: []byte("{}")}},
		{"a start that is not JSON", protocol.EncodeRequest(protocol.RequestsQueue(""), &protocol.Request{Type: protocol.RequestStart, Body: []byte(`"x"`)})},
		{"a start without an id", protocol.EncodeRequest(protocol.RequestsQueue(""), &protocol.Request{Type: protocol.RequestStart, Body: []byte(`{"workflow":"order"}`)})},
		{"a start of an unknown workflow", protocol.EncodeRequest(protocol.RequestsQueue(""), &protocol.Request{Type: protocol.RequestStart, Body: []byte(`{"workflow":"none","id":"x"}`)})},
	} {
		if err := conn.PublishConfirmed(ctx, c.m); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		select {
		case d := <-letters:
			if d.Headers[protocol.HeaderReason] == "" || d.Headers[protocol.HeaderSource] == "" {
				t.Errorf("%s: kept with the headers %v", c.name, d.Headers)
			}
			d.Settle(true)
		case <-ctx.Done():
			t.Fatalf("%s: not kept", c.name)
		}
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := 0.0
	for _, f := range families {
		if f.GetName() == "ringmaster_poison_messages_total" {
			counted = f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	if counted != 6 {
		t.Errorf("%v poison messages were counted, not 6", counted)
	}
}

// TestRequestsComeThroughTheBroker starts and cancels runs by message.
func TestRequestsComeThroughTheBroker(t *testing.T) {
	w := newWorld(t, nil)
	w.broker = rabbitBroker(t, testenv.RabbitMQ(t))
	w.start()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := w.broker.Open(ctx, broker.Options{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	request := func(r protocol.Request) {
		t.Helper()
		if err := conn.PublishConfirmed(ctx, protocol.EncodeRequest(protocol.RequestsQueue(""), &r)); err != nil {
			t.Fatal(err)
		}
	}
	request(protocol.Request{Type: protocol.RequestRegister, Body: order().JSON()})
	w.eventually("the workflow is registered", func() bool {
		ws, err := w.engine.Workflows(ctx)
		return err == nil && len(ws) == 1
	})
	for range 2 { // a repetition changes nothing
		request(protocol.Request{Type: protocol.RequestStart, Body: []byte(`{"workflow":"order","id":"o-1","input":{"total":12}}`)})
	}
	w.eventually("the run exists", func() bool {
		_, err := w.engine.Run(ctx, "o-1")
		return err == nil
	})
	request(protocol.Request{Type: protocol.RequestCancel, RunID: "o-1", Body: []byte(`{"by":"ann"}`)})
	w.wait("o-1", "compensated")
}

// TestApprovalComesThroughTheBroker runs an approval flow over a real RabbitMQ:
// starts and signals are messages, one signal comes while its run waits, one ahead
// of its step, and the orchestrator is restarted in between.
func TestApprovalComesThroughTheBroker(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	w.broker = rabbitBroker(t, testenv.RabbitMQ(t))
	w.start()
	w.register(approval())
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := w.broker.Open(ctx, broker.Options{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	request := func(r protocol.Request) {
		t.Helper()
		if err := conn.PublishConfirmed(ctx, protocol.EncodeRequest(protocol.RequestsQueue(""), &r)); err != nil {
			t.Fatal(err)
		}
	}
	start := func(id string) protocol.Request {
		return protocol.Request{Type: protocol.RequestStart, Body: []byte(`{"workflow":"approval","id":"` + id + `"}`)}
	}
	signal := func(id string) protocol.Request {
		return protocol.Request{Type: protocol.RequestSignal, RunID: id, Body: []byte(`{"name":"approval","id":"s-1","payload":{"ok":true,"who":"ann"}}`)}
	}
	request(start("early")) // nobody serves its first step yet
	request(signal("early"))
	request(signal("early"))
	w.eventually("the early signal is kept", func() bool {
		d, err := w.engine.Run(ctx, "early")
		return err == nil && len(d.Signals) == 1
	})
	request(start("waits"))
	leave := w.worker("a", shop(l))
	w.eventually("the run waits", w.awaits("waits"))
	w.wait("early", "succeeded")
	w.stop()
	request(signal("waits")) // while no orchestrator runs
	w.start()
	w.wait("waits", "succeeded")
	leave()
	for _, key := range []string{"early/create/action/1", "early/deliver/action/1", "waits/create/action/1", "waits/deliver/action/1"} {
		if n := l.count(key); n != 1 {
			t.Errorf("%s: called %d times", key, n)
		}
	}
}
