package worker_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
)

func TestADrainingWorkerFinishesWhatRunsAndLeaves(t *testing.T) {
	for _, order := range []string{"its context", "an orchestrator"} {
		t.Run(order, func(t *testing.T) {
			b := newBroker(t)
			o := newOrchestrator(t, b, "o1")
			o.own(1, 0)
			entered, proceed := make(chan struct{}), make(chan struct{})
			w := start(t, b, worker.Config{Concurrency: 1, HeartbeatInterval: time.Minute, SettleTimeout: patience}, func(w *worker.Worker) {
				w.HandleFunc("wait", func(ctx context.Context, _ []byte) ([]byte, error) {
					close(entered)
					<-proceed
					return []byte("1"), ctx.Err()
				})
			})
			h := o.ready()
			o.send(h, 0, o.task(1, "wait", ``), o.task(2, "wait", ``))
			<-entered
			if order == "its context" {
				w.stop()
			} else {
				o.control(h, protocol.Control{Drain: true})
			}
			drains := func(h protocol.Heartbeat) bool { return h.Draining && len(h.Queued) == 0 && len(h.Running) == 1 }
			o.beat("the drain", drains)
			o.send(h, 0, o.task(3, "wait", ``)) // too late; told at once
			o.beat("the refusal", func(h protocol.Heartbeat) bool { return drains(h) && h.Received["o1"] == 3 })
			close(proceed)
			if r := o.result(0); r.Outcome != protocol.OutcomeSucceeded {
				t.Errorf("got %+v", r)
			}
			select {
			case err := <-w.done:
				t.Fatalf("left before its result was durable: %v", err)
			default:
			}
			o.settle(w.Worker)
			if err := w.wait(t); err != nil {
				t.Errorf("Run returned %v", err)
			}
			o.beat("the last", func(h protocol.Heartbeat) bool {
				return h.Leaving && h.Draining && len(h.Running)+len(h.Finished)+len(h.Queued) == 0
			})
			if err := w.Run(t.Context()); !errors.Is(err, worker.ErrRan) {
				t.Errorf("a second Run returned %v", err)
			}
		})
	}
}

func TestADrainIsBounded(t *testing.T) {
	b := newBroker(t)
	o := newOrchestrator(t, b, "o1")
	o.own(1, 0)
	entered := make(chan struct{})
	w := start(t, b, worker.Config{DrainTimeout: 10 * time.Millisecond, SettleTimeout: 10 * time.Millisecond}, func(w *worker.Worker) {
		w.HandleFunc("wait", func(ctx context.Context, _ []byte) ([]byte, error) {
			close(entered)
			<-ctx.Done()
			return nil, ctx.Err()
		})
	})
	o.send(o.ready(), 0, o.task(1, "wait", ``))
	<-entered
	w.stop()
	if err := w.wait(t); !errors.Is(err, worker.ErrUnclean) || !strings.Contains(err.Error(), "1 results") {
		t.Errorf("Run returned %v", err)
	}
	if r := o.result(0); r.Outcome != protocol.OutcomeUnknown || r.Code != worker.CodeCancelled {
		t.Errorf("got %+v", r)
	}
	o.beat("the last", func(h protocol.Heartbeat) bool { return h.Leaving })
}

func TestWithoutBatchesEveryResultIsAMessage(t *testing.T) {
	for _, disable := range []bool{false, true} {
		b := newBroker(t)
		o := newOrchestrator(t, b, "o1")
		start(t, b, worker.Config{DisableBatch: disable}, withEcho)
		h := o.ready()
		if slices.Contains(h.Capabilities, protocol.CapabilityBatch) == disable {
			t.Errorf("capabilities %v", h.Capabilities)
		}
		for n := range 5 { // one task a message is always understood
			task := o.task(n, "echo", `1`)
			task.Seq = uint64(n + 1)
			if err := o.conn.Publish(t.Context(), protocol.EncodeTask(protocol.Version, h.Queue, &task)); err != nil {
				t.Fatal(err)
			}
		}
		o.beat("five results", func(h protocol.Heartbeat) bool { return len(h.Finished) == 5 })
		o.own(1, 0) // they all come again, at once
		o.result(4)
		o.mu.Lock()
		if single := o.messages >= 5; single != disable {
			t.Errorf("DisableBatch %v: %d messages", disable, o.messages)
		}
		o.mu.Unlock()
	}
}

func TestWorkflowsAreRegisteredThroughTheRequestsQueue(t *testing.T) {
	s := definitions.Saga("flow").Service("svc")
	s.Step("a").Action("echo").NoCompensation("an echo fades")
	wf, err := s.Build()
	if err != nil {
		t.Fatal(err)
	}
	b := newBroker(t)
	o := newOrchestrator(t, b, "o1")
	got := make(chan protocol.Request, 1)
	if _, err := o.conn.Subscribe(t.Context(), broker.Subscription{
		Queue: protocol.RequestsQueue(""), Kind: broker.Shared, Handler: func(d broker.Delivery) {
			r, err := protocol.DecodeRequest(&d.Message)
			if err != nil {
				t.Error(err)
			}
			d.Settle(true)
			got <- r
		},
	}); err != nil {
		t.Fatal(err)
	}
	start(t, b, worker.Config{Workflows: []*definitions.Workflow{wf}}, withEcho)
	select {
	case r := <-got:
		if r.Type != protocol.RequestRegister || string(r.Body) != string(wf.JSON()) {
			t.Errorf("got %+v", r)
		}
	case <-time.After(patience):
		t.Error("nothing came")
	}
}

func TestUnreadableMessagesGoToTheDeadLetters(t *testing.T) {
	b := newBroker(t)
	o := newOrchestrator(t, b, "o1")
	o.own(1, 0)
	start(t, b, worker.Config{}, withEcho)
	h := o.ready()
	dead := make(chan broker.Message, 3)
	if _, err := o.conn.Subscribe(t.Context(), broker.Subscription{
		Queue: protocol.DeadLettersQueue(""), Kind: broker.Shared,
		Handler: func(d broker.Delivery) { d.Settle(true); dead <- d.Message },
	}); err != nil {
		t.Fatal(err)
	}
	for _, m := range []broker.Message{
		{Type: string(protocol.KindTask), Body: []byte("poison")},
		{Type: string(protocol.KindControl), Body: []byte("poison")},
		{Type: "riddle", Body: []byte("poison")},
	} {
		m.Key = h.Queue
		if err := o.conn.Publish(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		select {
		case d := <-dead:
			if string(d.Body) != "poison" || d.Type != m.Type || d.Headers[protocol.HeaderReason] == "" || d.Headers[protocol.HeaderSource] != h.Worker {
				t.Errorf("got %+v", d)
			}
		case <-time.After(patience):
			t.Fatalf("%s: nothing came", m.Type)
		}
	}
	o.send(h, 0, o.task(1, "echo", `1`))
	o.result(0) // it goes on
}

func TestFaultsOfRegistrationEndRun(t *testing.T) {
	b := newBroker(t)
	w, err := worker.New(worker.Config{Broker: b})
	if err != nil {
		t.Fatal(err)
	}
	worker.Handle(w, charge, func(context.Context, chargeIn) (chargeOut, error) { return chargeOut{}, nil }) // names the service
	w.HandleFunc("charge", echo)
	w.HandleFunc("", echo)
	w.HandleFunc("nil", nil)
	w.HandleTask(definitions.NewTask[int, int]("other", "x"), echo)
	err = w.Run(t.Context())
	for _, want := range []string{`"charge": there is one already`, `"": a task type has`, `"nil": is nil`, `"x": belongs to service "other", the worker to "svc"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %s in %v", want, err)
		}
	}
	empty, err := worker.New(worker.Config{Broker: b})
	if err != nil {
		t.Fatal(err)
	}
	if err := empty.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "no handlers") || !strings.Contains(err.Error(), "Service: is required") {
		t.Errorf("Run returned %v", err)
	}
}

func TestEachOrchestratorIsGrantedAShareOfTheWorkersRoom(t *testing.T) {
	b := newBroker(t)
	one, two := newOrchestrator(t, b, "o1"), newOrchestrator(t, b, "o2")
	start(t, b, worker.Config{Concurrency: 7, Prefetch: 20, HeartbeatInterval: time.Minute}, withEcho)
	one.ready()
	one.own(1, 0, 1)
	credit := func(want int) func(protocol.Heartbeat) bool {
		return func(h protocol.Heartbeat) bool { return h.Credit == want }
	}
	one.beat("all of its room", credit(27))
	two.own(2, 1)
	one.beat("half of its room", credit(14))
	two.leave()
	seen := one.beat("a heartbeat after one left", func(h protocol.Heartbeat) bool { return h.Sequence > 2 && h.Credit == 27 })
	if seen.Capacity != 7 {
		t.Errorf("its capacity is %d", seen.Capacity)
	}
}
