package worker_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// TestAQuestionIsAskedUntilItIsAnswered loses the connection, and with it the
// queue that the answer would have come to.
func TestAQuestionIsAskedUntilItIsAnswered(t *testing.T) {
	b := &frail{Broker: newBroker(t)}
	o := newOrchestrator(t, b.Broker, "o1")
	asked := make(chan protocol.Request, 100)
	if _, err := o.conn.Subscribe(t.Context(), broker.Subscription{
		Queue: protocol.RequestsQueue(""), Kind: broker.Shared, Handler: func(d broker.Delivery) {
			r, err := protocol.DecodeRequest(&d.Message)
			if err != nil || r.Type != protocol.RequestDecision || r.RunID != "run-1" {
				t.Errorf("request %+v, %v", r, err)
			}
			d.Settle(true)
			asked <- r
		},
	}); err != nil {
		t.Fatal(err)
	}
	w := start(t, b, worker.Config{}, withEcho)
	answers := make(chan worker.Decision, 2)
	for range 2 {
		go func() {
			d, err := w.Decision(t.Context(), "run-1")
			if err != nil {
				t.Error(err)
			}
			answers <- d
		}()
	}
	first := <-asked
	b.conn.cut(t, false)
	b.conn.heal(t)
	again := <-asked
	for again.ReplyTo == first.ReplyTo {
		again = <-asked
	}
	for _, run := range []string{"another", "run-1"} {
		m := protocol.EncodeAnswer(again.ReplyTo, &protocol.Answer{RunID: run, Decision: protocol.Committed})
		if err := o.conn.PublishConfirmed(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := <-answers, <-answers; a != worker.Committed || b != worker.Committed {
		t.Errorf("told %v and %v", a, b)
	}
}

func TestAQuestionThatNobodyCanAnswer(t *testing.T) {
	b := newBroker(t)
	w, err := worker.New(worker.Config{Broker: b, Service: "svc"})
	if err != nil {
		t.Fatal(err)
	}
	withEcho(w)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("no time"))
	if _, err := w.Decision(ctx, "run-1"); err == nil || !strings.Contains(err.Error(), "no time") || !strings.Contains(err.Error(), "run-1") {
		t.Errorf("without time: %v", err)
	}
	for _, bad := range []string{"", strings.Repeat("x", protocol.MaxNameBytes+1)} {
		if _, err := w.Decision(t.Context(), bad); err == nil {
			t.Errorf("%.10q is taken for the id of a run", bad)
		}
	}
	waiting := make(chan error)
	go func() { _, err := w.Decision(t.Context(), "run-1"); waiting <- err }()
	running, stop := context.WithCancel(t.Context())
	stop()
	if err := w.Run(running); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; !errors.Is(err, worker.ErrLeft) {
		t.Errorf("of a worker that has left: %v", err)
	}
}
