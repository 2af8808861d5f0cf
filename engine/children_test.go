package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// purchase is a saga whose payment is a two-phase commit of its own.
func purchase() *definitions.Workflow {
	b := definitions.Saga("purchase").Service("shop").Output("steps.settle.output")
	b.Step("reserve").Action("reserve").Compensation("release")
	b.Step("settle").Workflow("transfer").Compensation("reverse").Input("{'amount': input.total}")
	b.Step("ship").Action("ship").Pivot()
	return b.MustBuild()
}

func settlement() *definitions.Workflow {
	b := definitions.TwoPhase("transfer").Service("shop").Output("{'booked': input.amount}")
	b.Participant("debit").Prepare("debit.prepare").Commit("debit.commit").Abort("debit.abort")
	b.Participant("credit").Prepare("credit.prepare").Commit("credit.commit").Abort("credit.abort")
	return b.MustBuild()
}

func bank(l *ledger) handlers {
	h := handlers{}
	for _, typ := range []string{"reserve", "release", "reverse", "ship", "debit.prepare", "debit.commit", "debit.abort",
		"credit.prepare", "credit.commit", "credit.abort"} {
		h[typ] = ok(l, "null")
	}
	return h
}

// effectsOf checks how often handlers were called under each key, and that no
// other was.
func (w *world) effectsOf(l *ledger, run string, want ...string) {
	w.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var got []string
	for key, n := range l.effects {
		if strings.HasPrefix(key, run+"/") || strings.HasPrefix(key, run+":") {
			got = append(got, fmt.Sprintf("%s %d", strings.TrimPrefix(key, run), n))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.t.Errorf("effects of %s are\n%q, not\n%q\n%s", run, got, want, w.history(run))
	}
}

var (
	settled    = []string{":settle:1/credit/commit/1 1", ":settle:1/credit/prepare/1 1", ":settle:1/debit/commit/1 1", ":settle:1/debit/prepare/1 1"}
	whenBought = append([]string{"/reserve/action/1 1", "/ship/action/1 1"}, settled...)
	whenUndone = append([]string{"/reserve/action/1 1", "/reserve/compensate/1 1", "/settle/compensate/1 1"}, settled...)
)

// TestAStepIsAChildRun runs a two-phase commit as a step of a saga: it commits;
// it aborts; it commits and is compensated.
func TestAStepIsAChildRun(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	e := w.start()
	w.register(purchase())
	w.register(settlement())
	h := bank(l)
	var noCover, noAddress atomic.Bool
	h["debit.prepare"] = func(ctx context.Context, in []byte) ([]byte, error) {
		if noCover.Load() {
			return decline("no_cover")(ctx, in)
		}
		return ok(l, "null")(ctx, in)
	}
	h["ship"] = func(ctx context.Context, in []byte) ([]byte, error) {
		if noAddress.Load() {
			return decline("no_address")(ctx, in)
		}
		return ok(l, "null")(ctx, in)
	}
	w.worker("a", h)

	d := w.wait(w.run(rest.Start{Workflow: "purchase", ID: "p", Input: orderInput, Priority: 4, Key: "c-7"}), "succeeded")
	if string(d.Output) != `{"booked":12}` || d.Steps[1].Child != "p:settle:1" || d.Steps[1].Workflow != "transfer" || d.Steps[1].Kind != "child" {
		t.Errorf("output %s, step %+v", d.Output, d.Steps[1])
	}
	w.effectsOf(l, "p", whenBought...)
	c := w.wait("p:settle:1", "committed")
	if c.Parent != "p" || c.ParentStep != "settle" || string(c.Input) != `{"amount":12}` || c.Key != "c-7" {
		t.Errorf("the child is %+v, with %s", c.Run, c.Input)
	}
	page, err := e.Runs(context.Background(), store.Filter{Parent: "p"})
	if err != nil || len(page.Runs) != 1 || page.Runs[0].ID != "p:settle:1" {
		t.Errorf("children are %+v, %v", page.Runs, err)
	}

	noAddress.Store(true)
	w.wait(w.run(rest.Start{Workflow: "purchase", ID: "q", Input: orderInput}), "compensated")
	w.effectsOf(l, "q", whenUndone...)

	noCover.Store(true)
	d = w.wait(w.run(rest.Start{Workflow: "purchase", ID: "r", Input: orderInput}), "compensated")
	if s := d.Steps[1]; s.State != "failed" || s.Code != "no_cover" || !strings.Contains(s.Error, "child run r:settle:1 of workflow transfer ended aborted because of debit") {
		t.Errorf("the step is %s: %s: %s", s.State, s.Code, s.Error)
	}
	w.wait("r:settle:1", "aborted")
}

// TestCrashAtEveryCommitOfParentAndChild kills the engine at each commit of a
// run with a child. The worker lives on.
func TestCrashAtEveryCommitOfParentAndChild(t *testing.T) {
	for _, failing := range []bool{false, true} {
		for _, after := range []bool{false, true} {
			for at := 1; at <= 10; at++ {
				t.Run(fmt.Sprintf("failing=%v/after=%v/commit=%d", failing, after, at), func(t *testing.T) {
					t.Parallel()
					crashWithChild(t, failing, after, at)
				})
			}
		}
	}
}

func crashWithChild(t *testing.T, failing, after bool, at int) {
	w, l := newWorld(t, nil), newLedger()
	h, want, effects := bank(l), "succeeded", whenBought
	if failing {
		h["ship"], want, effects = decline("no_address"), "compensated", whenUndone
	}
	w.worker("a", h)
	w.start()
	w.register(purchase())
	w.register(settlement())
	w.stop()
	e := w.crashAt(at, after, rest.Start{Workflow: "purchase", ID: "p", Input: orderInput})
	if r, err := e.Wait(context.Background(), "p", patience); err == nil && r.Status == "stalled" {
		// The pivot was declined by a second sending; see TestCrashAtEveryCommit.
		if _, err := e.Resolve(context.Background(), "p", rest.Settle{Reason: "looked it up"}); err != nil {
			t.Fatal(err)
		}
		w.eventually("the run ends", func() bool {
			d, err := e.Run(context.Background(), "p")
			return err == nil && d.Ended != nil
		})
	}
	w.wait("p", want)
	w.wait("p:settle:1", "committed")
	w.effectsOf(l, "p", effects...)
}

// TestCancelPassesDown cancels a run while its child prepares: the child aborts.
func TestCancelPassesDown(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	e := w.start()
	w.register(purchase())
	w.register(settlement())
	h := bank(l)
	started := make(chan struct{}, 1)
	h["debit.prepare"] = func(ctx context.Context, _ []byte) ([]byte, error) {
		started <- struct{}{}
		<-ctx.Done() // told to give up
		return nil, worker.Retryable("given_up", ctx.Err())
	}
	w.worker("a", h)
	id := w.run(rest.Start{Workflow: "purchase", ID: "p", Input: orderInput})
	<-started
	if _, err := e.Cancel(context.Background(), id, rest.Cancel{Reason: "changed my mind"}); err != nil {
		t.Fatal(err)
	}
	w.wait(id, "compensated")
	c := w.wait("p:settle:1", "aborted")
	if !strings.Contains(c.Error, "changed my mind") {
		t.Errorf("the child was aborted because of %q", c.Error)
	}
}

// TestDeadlinePassesDown gives a run too little time for its child.
func TestDeadlinePassesDown(t *testing.T) {
	w := newWorld(t, nil)
	w.start()
	w.register(purchase())
	w.register(settlement())
	l := newLedger()
	h := bank(l)
	delete(h, "credit.prepare") // nobody will
	w.worker("a", h)
	soon := time.Now().Add(500 * time.Millisecond)
	w.wait(w.run(rest.Start{Workflow: "purchase", ID: "p", Input: orderInput, Deadline: &soon}), "compensated")
	c := w.wait("p:settle:1", "aborted")
	if c.Deadline == nil || c.Deadline.After(soon) {
		t.Errorf("the child's deadline is %v, its parent's %v", c.Deadline, soon)
	}
}

// TestRestartWhileTheChildRuns restarts the orchestrator while a parent only
// waits for its child.
func TestRestartWhileTheChildRuns(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	w.start()
	w.register(purchase())
	w.register(settlement())
	h := bank(l)
	started, finish := make(chan struct{}, 10), make(chan struct{})
	h["debit.prepare"] = func(ctx context.Context, in []byte) ([]byte, error) {
		started <- struct{}{}
		<-finish
		return ok(l, "null")(ctx, in)
	}
	w.worker("a", h)
	id := w.run(rest.Start{Workflow: "purchase", ID: "p", Input: orderInput})
	<-started
	w.stop()
	e := w.start()
	d, err := e.Run(context.Background(), id)
	if err != nil || len(d.Waiting) != 1 || !strings.Contains(d.Waiting[0], "waits for run p:settle:1 of workflow transfer, which is running") {
		t.Errorf("waits for %q, %v", d.Waiting, err)
	}
	close(finish)
	w.wait(id, "succeeded")
	w.effectsOf(l, "p", whenBought...)
}

// TestAChildThatNeedsAnOperator stalls a child: the parent waits and says so.
// Once a part is left as it is, the outcome of the step is unknown.
func TestAChildThatNeedsAnOperator(t *testing.T) {
	b := definitions.Saga("inner").Service("shop")
	b.Step("one").Action("one").Compensation("unone").CompensationRetry(definitions.RetryPolicy{MaxAttempts: 1})
	b.Step("two").Action("two").NoCompensation("a test")
	o := definitions.Saga("outer").Service("shop")
	o.Step("inner").Workflow("inner").Compensation("uninner")
	w, l := newWorld(t, nil), newLedger()
	e := w.start()
	w.register(b.MustBuild())
	w.register(o.MustBuild())
	w.worker("a", handlers{"one": ok(l, "null"), "unone": decline("stuck"), "two": decline("no"), "uninner": ok(l, "null")})
	id := w.run(rest.Start{Workflow: "outer", ID: "o"})
	w.eventually("the child has stalled", func() bool {
		d, err := e.Run(context.Background(), id)
		return err == nil && len(d.Waiting) == 1 && strings.Contains(d.Waiting[0], "which is stalled and needs an operator")
	})
	if _, err := e.Skip(context.Background(), "o:inner:1", rest.Settle{Reason: "lost for good"}); err != nil {
		t.Fatal(err)
	}
	d := w.wait(id, "compensated")
	if s := d.Steps[0]; s.State != "compensated" || s.Code != "child_waived" || !strings.Contains(s.Error, "o:inner:1") {
		t.Errorf("the step is %s: %s: %s", s.State, s.Code, s.Error)
	}
}

// TestChildrenThatCannotBegin: each is a clear failure for good.
func TestChildrenThatCannotBegin(t *testing.T) {
	parent := func(name, child string) *definitions.Workflow {
		b := definitions.Saga(name).Service("shop")
		b.Step("s").Workflow(child).NoCompensation("a test").Retry(definitions.RetryPolicy{MaxAttempts: 5})
		return b.MustBuild()
	}
	w := newWorld(t, func(c *engine.Config) { c.Limits.MaxChildDepth = 3 })
	w.start()
	k := definitions.Saga("keyed").Service("shop").RoutingKey("input.missing")
	k.Step("a").Action("a").NoCompensation("a test")
	for _, wf := range []*definitions.Workflow{
		parent("lost", "nowhere"), parent("bomb", "bomb"), parent("taken", "bomb"), parent("unkeyed", "keyed"), k.MustBuild(),
	} {
		w.register(wf)
	}
	w.wait(w.run(rest.Start{Workflow: "bomb", ID: "t:s:1"}), "compensated")
	for name, want := range map[string]string{
		"lost":    `unknown_workflow: there is no workflow "nowhere"`,
		"bomb":    "child_depth: ",
		"taken":   "child_id_taken: a run with the id t:s:1 exists, and is not a child of this one",
		"unkeyed": "start_rejected: run unkeyed:s:1 of workflow keyed: ",
	} {
		id := name
		if name == "taken" {
			id = "t"
		}
		d := w.wait(w.run(rest.Start{Workflow: name, ID: id, Input: json.RawMessage(`{}`)}), "compensated")
		if got := d.Steps[0].Code + ": " + d.Steps[0].Error; !strings.HasPrefix(got, want) || name != "bomb" && d.Steps[0].Attempts != 1 {
			t.Errorf("%s: failed with %q after %d attempts, not %q", name, got, d.Steps[0].Attempts, want)
		}
	}
}

// TestChildrenOverRabbitMQ runs parents with children over a real broker, and
// restarts the orchestrator in the middle.
func TestChildrenOverRabbitMQ(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	w.broker = rabbitBroker(t, testenv.RabbitMQ(t))
	e := w.start()
	w.register(purchase())
	w.register(settlement())
	h := bank(l)
	var prepared atomic.Int32
	halfway, goOn := make(chan struct{}), make(chan struct{})
	h["credit.prepare"] = func(ctx context.Context, in []byte) ([]byte, error) {
		if prepared.Add(1) == 25 {
			close(halfway)
		}
		<-goOn
		return ok(l, "null")(ctx, in)
	}
	h["debit.prepare"] = func(ctx context.Context, in []byte) ([]byte, error) {
		if strings.HasPrefix(worker.TaskFrom(ctx).RunID, "poor") {
			return decline("no_cover")(ctx, in)
		}
		return ok(l, "null")(ctx, in)
	}
	for i := range 3 {
		w.worker(fmt.Sprintf("w%d", i), h)
	}
	var starts []rest.Start
	for i := range 50 {
		name := "rich"
		if i%5 == 0 {
			name = "poor"
		}
		starts = append(starts, rest.Start{Workflow: "purchase", ID: fmt.Sprintf("%s-%d", name, i), Input: orderInput})
	}
	for _, o := range e.StartRuns(context.Background(), starts) {
		if o.Error != nil {
			t.Fatal(o.Error)
		}
	}
	<-halfway
	w.stop()
	w.start()
	close(goOn)
	for _, s := range starts {
		want := "succeeded"
		if strings.HasPrefix(s.ID, "poor") {
			want = "compensated"
		}
		d := w.wait(s.ID, want)
		if want == "succeeded" && d.Steps[1].Attempts != 1 {
			t.Errorf("%s: %d children", s.ID, d.Steps[1].Attempts)
		}
	}
}
