package engine_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// rabbitWorld is a started world over a real RabbitMQ that knows some workflows.
func rabbitWorld(t *testing.T, known ...*definitions.Workflow) *world {
	t.Helper()
	w := newWorld(t, nil)
	w.broker = rabbitBroker(t, testenv.RabbitMQ(t))
	w.start()
	for _, wf := range known {
		w.register(wf)
	}
	return w
}

// TestAChoiceTakesOneBranchOverRabbitMQ takes each case of a choice, one of them
// with a restart of the orchestrator after it was taken.
func TestAChoiceTakesOneBranchOverRabbitMQ(t *testing.T) {
	b := definitions.Saga("routed").Service("shop").Output("steps.route.output")
	b.Step("route").Choice().Case("air", "input.km > 500").Case("road", "input.km > 5").Otherwise("foot")
	for _, branch := range []string{"air", "road", "foot"} {
		b.Step("by-"+branch).Action("go").Compensation("return").Branch("route", branch)
	}
	b.Step("deliver").Action("deliver").Pivot()
	w, l := rabbitWorld(t, b.MustBuild()), newLedger()
	started, finish := make(chan struct{}, 10), make(chan struct{})
	w.worker("a", handlers{"return": ok(l, "null"), "deliver": ok(l, "null"), "go": func(ctx context.Context, in []byte) ([]byte, error) {
		if worker.TaskFrom(ctx).RunID == "road" {
			started <- struct{}{}
			<-finish
		}
		return ok(l, "null")(ctx, in)
	}})
	w.run(rest.Start{Workflow: "routed", ID: "road", Input: json.RawMessage(`{"km": 50}`)})
	<-started
	w.stop()
	w.start()
	close(finish)
	w.run(rest.Start{Workflow: "routed", ID: "air", Input: json.RawMessage(`{"km": 5000}`)})
	w.run(rest.Start{Workflow: "routed", ID: "foot", Input: json.RawMessage(`{"km": 1}`)})
	for _, branch := range []string{"air", "road", "foot"} {
		d := w.wait(branch, "succeeded")
		if string(d.Output) != `"`+branch+`"` {
			t.Errorf("%s took the case %s", branch, d.Output)
		}
		w.effectsOf(l, branch, "/by-"+branch+"/action/1 1", "/deliver/action/1 1")
	}
}

// TestCheckBackOverRabbitMQ runs a saga that is submitted, one that is not although
// its caller's transaction has committed, and one whose transaction has not.
func TestCheckBackOverRabbitMQ(t *testing.T) {
	checked := func(name string, wait time.Duration) *definitions.Workflow {
		b := definitions.Saga(name).Service("shop").CheckBack(definitions.NewTask[any, any]("shop", "check"), wait)
		b.Step("deliver").Action("deliver").Pivot()
		return b.MustBuild()
	}
	w, l := rabbitWorld(t, checked("patient", time.Hour), checked("hasty", 20*time.Millisecond)), newLedger()
	w.worker("a", handlers{"deliver": ok(l, "null"), "check": func(ctx context.Context, in []byte) ([]byte, error) {
		if worker.TaskFrom(ctx).RunID == "lost" {
			return decline("not_committed")(ctx, in)
		}
		return ok(l, "null")(ctx, in)
	}})
	w.run(rest.Start{Workflow: "patient", ID: "submitted"})
	w.run(rest.Start{Workflow: "hasty", ID: "committed"})
	w.run(rest.Start{Workflow: "hasty", ID: "lost"})
	if _, err := w.engine.Signal(context.Background(), "submitted", "submitted", rest.Signal{}); err != nil {
		t.Fatal(err)
	}
	w.wait("submitted", "succeeded")
	w.effectsOf(l, "submitted", "/deliver/action/1 1")
	w.wait("committed", "succeeded")
	w.effectsOf(l, "committed", "/check/action/1 1", "/deliver/action/1 1")
	if d := w.wait("lost", "compensated"); d.FailedStep != "check" || d.Steps[1].Code != "not_committed" {
		t.Errorf("the run failed at %q with %q", d.FailedStep, d.Steps[1].Code)
	}
	w.effectsOf(l, "lost")
}

// TestAFanOutOfChildrenOverRabbitMQ has a child for each item: all succeed; one
// fails after the others have succeeded, which their items then compensate.
func TestAFanOutOfChildrenOverRabbitMQ(t *testing.T) {
	c := definitions.Saga("parcel").Service("shop").Output("input")
	c.Step("book").Action("book").Compensation("unbook")
	c.Step("send").Action("send").Pivot()
	b := definitions.Saga("parcels").Service("shop").Output("steps.ship.output")
	b.Step("ship").Workflow("parcel").Compensation("recall").ForEach("input.items").Input("item")
	b.Step("close").Action("close").Pivot()
	w, l := rabbitWorld(t, c.MustBuild(), b.MustBuild()), newLedger()
	fail := make(chan struct{})
	w.worker("a", handlers{"book": ok(l, "null"), "unbook": ok(l, "null"), "recall": ok(l, "null"), "close": ok(l, "null"),
		"send": func(ctx context.Context, in []byte) ([]byte, error) {
			if worker.TaskFrom(ctx).RunID == "bad:ship[1]:1" {
				<-fail
				return decline("no_address")(ctx, in)
			}
			return ok(l, "null")(ctx, in)
		}})

	w.run(rest.Start{Workflow: "parcels", ID: "good", Input: items(3)})
	if d := w.wait("good", "succeeded"); string(d.Output) != "[0,1,2]" {
		t.Errorf("the output is %s", d.Output)
	}
	w.effectsOf(l, "good", ":ship[0]:1/book/action/1 1", ":ship[1]:1/book/action/1 1", ":ship[2]:1/book/action/1 1",
		":ship[0]:1/send/action/1 1", ":ship[1]:1/send/action/1 1", ":ship[2]:1/send/action/1 1", "/close/action/1 1")

	w.run(rest.Start{Workflow: "parcels", ID: "bad", Input: items(3)})
	w.eventually("two children have succeeded", func() bool {
		d, err := w.engine.Run(context.Background(), "bad")
		return err == nil && d.Steps[0].Items != nil && d.Steps[0].Items.States["succeeded"] == 2
	})
	close(fail)
	if d := w.wait("bad", "compensated"); d.FailedStep != "ship" || d.Steps[0].Items.States["compensated"] != 2 {
		t.Errorf("the run failed at %q, its items are %v", d.FailedStep, d.Steps[0].Items.States)
	}
	w.wait("bad:ship[0]:1", "succeeded")
	w.wait("bad:ship[1]:1", "compensated")
	w.effectsOf(l, "bad", ":ship[0]:1/book/action/1 1", ":ship[1]:1/book/action/1 1", ":ship[2]:1/book/action/1 1",
		":ship[0]:1/send/action/1 1", ":ship[2]:1/send/action/1 1", ":ship[1]:1/book/compensate/1 1",
		"/ship[0]/compensate/1 1", "/ship[2]/compensate/1 1")
}

// TestCancelPassesDownOverRabbitMQ cancels a run whose child has one vote, and
// waits for the other: the child aborts.
func TestCancelPassesDownOverRabbitMQ(t *testing.T) {
	w, l := rabbitWorld(t, purchase(), settlement()), newLedger()
	h, started := bank(l), make(chan struct{}, 10)
	h["debit.prepare"] = func(ctx context.Context, _ []byte) ([]byte, error) {
		started <- struct{}{}
		<-ctx.Done() // told to give up
		return nil, worker.Retryable("given_up", ctx.Err())
	}
	w.worker("a", h)
	w.run(rest.Start{Workflow: "purchase", ID: "p", Input: orderInput})
	<-started
	w.eventually("the credit is prepared", func() bool {
		d, err := w.engine.Run(context.Background(), "p:settle:1")
		return err == nil && d.Steps[1].State == "succeeded"
	})
	if _, err := w.engine.Cancel(context.Background(), "p", rest.Cancel{Reason: "changed my mind"}); err != nil {
		t.Fatal(err)
	}
	w.wait("p", "compensated")
	w.wait("p:settle:1", "aborted")
	w.effectsOf(l, "p", "/reserve/action/1 1", "/reserve/compensate/1 1", ":settle:1/credit/prepare/1 1",
		":settle:1/credit/abort/1 1", ":settle:1/debit/abort/1 1")
}
