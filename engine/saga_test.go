package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/worker"
)

func TestSagaSucceeds(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	w.start()
	w.register(order())
	w.worker("a", shop(l))
	id := w.run(rest.Start{Workflow: "order", Input: orderInput})
	d := w.wait(id, "succeeded")
	if string(d.Output) != `{"paid":12}` {
		t.Errorf("output is %s", d.Output)
	}
	if got, want := l.order(), []string{"create/action", "pay/action", "deliver/action"}; !slices.Equal(got, want) {
		t.Errorf("handlers were called as %v, not %v", got, want)
	}
}

func TestFinalFailureIsCompensatedInReverse(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	w.start()
	w.register(order())
	h := shop(l)
	h["deliver"] = decline("no_address")
	w.worker("a", h)
	d := w.wait(w.run(rest.Start{Workflow: "order", Input: orderInput}), "compensated")
	if d.FailedStep != "deliver" || !strings.Contains(d.Error, "no_address") {
		t.Errorf("the run says %q failed with %q", d.FailedStep, d.Error)
	}
	if got, want := l.order(), []string{"create/action", "pay/action", "pay/compensate", "create/compensate"}; !slices.Equal(got, want) {
		t.Errorf("handlers were called as %v, not %v", got, want)
	}
}

func TestRetryableFailuresAreRetried(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	w.start()
	w.register(order())
	h := shop(l)
	left := 3
	h["pay"] = func(ctx context.Context, in []byte) ([]byte, error) {
		if left--; left >= 0 {
			return nil, errors.New("the bank is busy")
		}
		return ok(l, `{"amount":12}`)(ctx, in)
	}
	w.worker("a", h)
	d := w.wait(w.run(rest.Start{Workflow: "order", Input: orderInput}), "succeeded")
	if d.Steps[1].Attempts != 4 {
		t.Errorf("pay took %d attempts, not 4", d.Steps[1].Attempts)
	}
}

func TestTaskWaitsForAWorkerThatServesIt(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	e := w.start()
	w.register(order())
	id := w.run(rest.Start{Workflow: "order", Input: orderInput})
	d, err := e.Run(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Waiting) != 1 || !strings.Contains(d.Waiting[0], "service shop that serves create: none is connected") {
		t.Errorf("the run says that it waits for %q", d.Waiting)
	}
	w.worker("a", shop(l))
	w.wait(id, "succeeded")
}

func TestMoreRunsThanMemoryHolds(t *testing.T) {
	w, l := newWorld(t, func(c *engine.Config) {
		c.Limits.MaxResidentRuns, c.Limits.MaxWaitingTasks = 8, 4
	}), newLedger()
	e := w.start()
	w.register(order())
	starts := make([]rest.Start, 500)
	for i := range starts {
		starts[i] = rest.Start{Workflow: "order", ID: fmt.Sprintf("r-%d", i), Input: orderInput}
	}
	for i, o := range e.StartRuns(context.Background(), starts) {
		if o.Error != nil {
			t.Fatalf("start %d: %v", i, o.Error)
		}
	}
	w.eventually("memory is bounded", func() bool {
		s, err := e.Stats(context.Background())
		return err == nil && s.Resident <= 8
	})
	w.worker("a", shop(l))
	for i := range starts {
		w.wait(starts[i].ID, "succeeded")
		for _, step := range []string{"create", "pay", "deliver"} {
			if n := l.count(starts[i].ID + "/" + step + "/action/1"); n != 1 {
				t.Errorf("run %d: %s took effect %d times", i, step, n)
			}
		}
	}
}

func TestStartIsIdempotent(t *testing.T) {
	w := newWorld(t, nil)
	e := w.start()
	w.register(order())
	ctx := context.Background()
	same := rest.Start{Workflow: "order", ID: "o-1", Input: orderInput}
	first, err := e.StartRun(ctx, same)
	if err != nil || !first.Created {
		t.Fatalf("first start: %+v, %v", first, err)
	}
	same.Input = json.RawMessage("{\"total\":\n12}") // other space, same meaning
	second, err := e.StartRun(ctx, same)
	if err != nil || second.Created || second.ID != "o-1" {
		t.Errorf("repeated start: %+v, %v", second, err)
	}
	same.Input = json.RawMessage(`{"total": 13}`)
	var own *engine.Error
	if _, err = e.StartRun(ctx, same); !errors.As(err, &own) || own.Kind != engine.KindConflict || own.Field != "id" {
		t.Errorf("start with another input: %v", err)
	}
	answers := e.StartRuns(ctx, []rest.Start{
		{Workflow: "order", ID: "o-2", Input: orderInput}, {Workflow: "order", ID: "o-2", Input: orderInput},
		{Workflow: "order", ID: "o-1", Input: orderInput}, {Workflow: "none", ID: "o-3"},
	})
	if answers[0].Error != nil || !answers[0].Run.Created || answers[1].Error != nil || answers[1].Run.Created ||
		answers[2].Error != nil || answers[2].Run.Created || answers[3].Error == nil {
		t.Errorf("a batch with repetitions is answered %+v", answers)
	}
	w.stop()
	e = w.start()
	same.Input = orderInput
	if third, err := e.StartRun(ctx, same); err != nil || third.Created {
		t.Errorf("repeated start after a restart: %+v, %v", third, err)
	}
}

func TestBadStartsNameFieldAndRule(t *testing.T) {
	w := newWorld(t, func(c *engine.Config) { c.Limits.MaxPayloadBytes = 64; c.Limits.MaxTags = 1 })
	e := w.start()
	w.register(order())
	long := strings.Repeat("x", 300)
	for _, c := range []struct {
		name  string
		start rest.Start
		kind  engine.Kind
		field string
	}{
		{"no workflow", rest.Start{}, engine.KindInvalid, "workflow"},
		{"unknown workflow", rest.Start{Workflow: "none"}, engine.KindNotFound, "workflow"},
		{"id too long", rest.Start{Workflow: "order", ID: long}, engine.KindInvalid, "id"},
		{"id with a control character", rest.Start{Workflow: "order", ID: "a\nb"}, engine.KindInvalid, "id"},
		{"id not UTF-8", rest.Start{Workflow: "order", ID: "a\xff"}, engine.KindInvalid, "id"},
		{"key too long", rest.Start{Workflow: "order", Key: long}, engine.KindInvalid, "key"},
		{"input not JSON", rest.Start{Workflow: "order", Input: json.RawMessage("{")}, engine.KindInvalid, "input"},
		{"input too large", rest.Start{Workflow: "order", Input: json.RawMessage(`"` + long + `"`)}, engine.KindTooLarge, "input"},
		{"too many tags", rest.Start{Workflow: "order", Tags: map[string]string{"a": "", "b": ""}}, engine.KindInvalid, "tags"},
		{"bad tag", rest.Start{Workflow: "order", Tags: map[string]string{"": "x"}}, engine.KindInvalid, "tags"},
	} {
		_, err := e.StartRun(context.Background(), c.start)
		var own *engine.Error
		if !errors.As(err, &own) || own.Kind != c.kind || own.Field != c.field {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for what, err := range map[string]error{
		"run":    func() error { _, err := e.Run(context.Background(), "none"); return err }(),
		"cancel": func() error { _, err := e.Cancel(context.Background(), "none", rest.Cancel{}); return err }(),
		"drain":  e.DrainWorker(context.Background(), "none"),
	} {
		var own *engine.Error
		if !errors.As(err, &own) || own.Kind != engine.KindNotFound {
			t.Errorf("%s of something unknown: %v", what, err)
		}
	}
}

func TestLimitsShedLoad(t *testing.T) {
	w := newWorld(t, func(c *engine.Config) { c.Limits.MaxUnfinished = 2 })
	e := w.start()
	w.register(order())
	w.run(rest.Start{Workflow: "order"})
	w.run(rest.Start{Workflow: "order"})
	_, err := e.StartRun(context.Background(), rest.Start{Workflow: "order"})
	var own *engine.Error
	if !errors.As(err, &own) || own.Kind != engine.KindOverloaded || own.RetryAfter <= 0 {
		t.Errorf("a start over the limit: %v", err)
	}
}

func TestCancelTurnsARunBack(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	e := w.start()
	w.register(order())
	h := shop(l)
	started, cancelled := make(chan struct{}), make(chan struct{})
	h["pay"] = func(ctx context.Context, _ []byte) ([]byte, error) {
		close(started)
		<-ctx.Done()
		close(cancelled)
		return nil, ctx.Err()
	}
	w.worker("a", h)
	id := w.run(rest.Start{Workflow: "order", Input: orderInput})
	<-started
	if _, err := e.Cancel(context.Background(), id, rest.Cancel{By: "ann", Reason: "changed my mind"}); err != nil {
		t.Fatal(err)
	}
	<-cancelled
	w.wait(id, "compensated")
	if n := l.count(id + "/create/compensate/1"); n != 1 {
		t.Errorf("create was compensated %d times", n)
	}
	if n := l.count(id + "/deliver/action/1"); n != 0 {
		t.Error("deliver was started after the cancel")
	}
}

func TestCancelOfAWaitingRunNeedsNoWorker(t *testing.T) {
	w := newWorld(t, nil)
	e := w.start()
	w.register(order())
	id := w.run(rest.Start{Workflow: "order", Input: orderInput})
	if _, err := e.Cancel(context.Background(), id, rest.Cancel{}); err != nil {
		t.Fatal(err)
	}
	w.wait(id, "compensated")
}

func TestOperatorSettlesAStalledRun(t *testing.T) {
	stalling := func() *definitions.Workflow {
		b := definitions.Saga("stalling").Service("shop")
		b.Step("create").Action("create").Compensation("uncreate").
			CompensationRetry(definitions.RetryPolicy{Initial: time.Millisecond, MaxAttempts: 2})
		b.Step("deliver").Action("deliver").Pivot()
		return b.MustBuild()
	}
	for _, c := range []struct {
		name   string
		settle func(e *engine.Engine, id string) error
		waived bool
	}{
		{"retry", func(e *engine.Engine, id string) error {
			_, err := e.Retry(context.Background(), id, rest.Settle{By: "ann", Reason: "the bank is back"})
			return err
		}, false},
		{"skip", func(e *engine.Engine, id string) error {
			_, err := e.Skip(context.Background(), id, rest.Settle{Step: "create", By: "ann", Reason: "paid by hand"})
			return err
		}, true},
		{"resolve", func(e *engine.Engine, id string) error {
			_, err := e.Resolve(context.Background(), id, rest.Settle{Applied: true, By: "ann", Reason: "done by hand"})
			return err
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, l := newWorld(t, nil), newLedger()
			e := w.start()
			w.register(stalling())
			h := shop(l)
			h["deliver"] = decline("no_address")
			failures := 2
			h["uncreate"] = func(ctx context.Context, in []byte) ([]byte, error) {
				if failures--; failures >= 0 {
					return nil, errors.New("the shelf is locked")
				}
				return ok(l, "null")(ctx, in)
			}
			w.worker("a", h)
			id := w.run(rest.Start{Workflow: "stalling"})
			w.wait(id, "stalled")
			if _, err := e.Skip(context.Background(), id, rest.Settle{Step: "create"}); err == nil {
				t.Error("a skip without a reason is taken")
			}
			if _, err := e.Skip(context.Background(), id, rest.Settle{Step: "nonsense", Reason: "x"}); err == nil {
				t.Error("an unknown step is taken")
			}
			if err := c.settle(e, id); err != nil {
				t.Fatal(err)
			}
			w.eventually("the run ends", func() bool {
				d, err := e.Run(context.Background(), id)
				return err == nil && d.Status == "compensated"
			})
			if d := w.wait(id, "compensated"); d.Waived != c.waived {
				t.Errorf("waived is %v", d.Waived)
			}
			if _, err := e.Skip(context.Background(), id, rest.Settle{Step: "create", Reason: "x"}); err == nil {
				t.Error("an ended run is settled again")
			}
		})
	}
}

func TestRetryOfAnEndedRunStartsALinkedOne(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	e := w.start()
	w.register(order())
	h := shop(l)
	broken := true
	h["deliver"] = func(ctx context.Context, in []byte) ([]byte, error) {
		if broken {
			broken = false
			return decline("no_address")(ctx, in)
		}
		return ok(l, "{}")(ctx, in)
	}
	w.worker("a", h)
	id := w.run(rest.Start{Workflow: "order", Input: orderInput})
	w.wait(id, "compensated")
	again, err := e.Retry(context.Background(), id, rest.Settle{ID: "again"})
	if err != nil {
		t.Fatal(err)
	}
	if again.RetryOf != id {
		t.Errorf("the new run is linked to %q", again.RetryOf)
	}
	w.wait("again", "succeeded")
	if _, err := e.Retry(context.Background(), "again", rest.Settle{}); err == nil {
		t.Error("a run that succeeded is retried")
	}
}

func TestLongRetriesSleepInTheStore(t *testing.T) {
	b := definitions.Saga("patient").Service("shop")
	b.Step("call").Action("pay").NoCompensation("nothing to undo").
		Retry(definitions.RetryPolicy{Initial: time.Hour, Max: time.Hour, Jitter: 0})
	w := newWorld(t, nil)
	e := w.start()
	w.register(b.MustBuild())
	w.worker("a", handlers{"pay": func(context.Context, []byte) ([]byte, error) { return nil, errors.New("busy") }})
	id := w.run(rest.Start{Workflow: "patient"})
	w.eventually("the run sleeps", func() bool {
		row, err := w.store.Run(context.Background(), id)
		return err == nil && row.Wake.After(time.Now().Add(30*time.Minute))
	})
	if _, err := e.Cancel(context.Background(), id, rest.Cancel{}); err != nil {
		t.Fatal(err)
	}
	w.wait(id, "compensated")
	row, err := w.store.Run(context.Background(), id)
	if err != nil || !row.Wake.IsZero() || row.Status != store.StatusCompensated {
		t.Errorf("the row of the ended run is %+v, %v", row, err)
	}
}

func TestHigherPriorityGoesFirst(t *testing.T) {
	b := definitions.Saga("one").Service("shop")
	b.Step("pay").Action("pay").NoCompensation("a test")
	w := newWorld(t, nil)
	e := w.start()
	w.register(b.MustBuild())
	for _, s := range []rest.Start{{ID: "low-1"}, {ID: "low-2"}, {ID: "high", Priority: 9}, {ID: "middle", Priority: 5}} {
		s.Workflow = "one"
		w.run(s)
	}
	w.eventually("all wait", func() bool {
		s, err := e.Stats(context.Background())
		return err == nil && len(s.Waiting) == 1 && s.Waiting[0].Waiting == 4
	})
	var order []string
	done := make(chan struct{})
	sdk, err := worker.New(worker.Config{Broker: w.broker, Name: "a", Service: "shop", Concurrency: 1, HeartbeatInterval: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	sdk.HandleFunc("pay", func(ctx context.Context, _ []byte) ([]byte, error) {
		if order = append(order, worker.TaskFrom(ctx).RunID); len(order) == 4 {
			close(done)
		}
		return nil, nil
	})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- sdk.Run(ctx) }()
	<-done
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if want := []string{"high", "middle", "low-1", "low-2"}; !slices.Equal(order, want) {
		t.Errorf("tasks went in the order %v, not %v", order, want)
	}
	if _, err := e.StartRun(context.Background(), rest.Start{Workflow: "one", Priority: 10}); err == nil {
		t.Error("a priority out of range is taken")
	}
}

func TestCancelHoldsBackAPivotThatNobodyServes(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	e := w.start()
	w.register(order())
	h := shop(l)
	delete(h, "deliver")
	w.worker("a", h)
	id := w.run(rest.Start{Workflow: "order", Input: orderInput})
	w.eventually("only the pivot is left", func() bool {
		d, err := e.Run(context.Background(), id)
		return err == nil && d.Steps[2].State == "waiting"
	})
	if _, err := e.Cancel(context.Background(), id, rest.Cancel{}); err != nil {
		t.Fatal(err)
	}
	w.wait(id, "compensated")
}
