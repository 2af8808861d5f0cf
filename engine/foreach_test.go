package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// parcels is a saga whose second step fans out.
func parcels(parallel int) *definitions.Workflow {
	b := definitions.Saga("parcels").Service("shop").Output("steps.ship.output")
	b.Step("create").Action("create").Compensation("uncreate")
	b.Step("ship").Action("ship").Compensation("recall").ForEach("input.items").Parallel(parallel).
		Input("{'item': item, 'index': index}").CompensationInput("{'parcel': steps.ship.output}")
	b.Step("close").Action("close").Pivot()
	return b.MustBuild()
}

// items is the input of a run with so many items.
func items(n int) json.RawMessage {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	data, _ := json.Marshal(map[string]any{"items": list})
	return data
}

// depot has the handlers of parcels. What it ships it also knows, until it is
// recalled.
type depot struct {
	mu      sync.Mutex
	shipped map[string]bool // by step
	calls   map[string]int  // by idempotency key
	busy    atomic.Int32
	most    atomic.Int32
	fails   int // index of the item that is refused; -1: none
}

func newDepot() *depot {
	return &depot{shipped: map[string]bool{}, calls: map[string]int{}, fails: -1}
}

func (d *depot) set(ctx context.Context, shipped bool) {
	info := worker.TaskFrom(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls[info.IdempotencyKey]++
	if shipped {
		d.shipped[info.Step] = true
	} else {
		delete(d.shipped, info.Step)
	}
}

func (d *depot) left() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var steps []string
	for step := range d.shipped {
		steps = append(steps, step)
	}
	return steps
}

func (d *depot) handlers() handlers {
	null := func(context.Context, []byte) ([]byte, error) { return nil, nil }
	return handlers{
		"create": null, "uncreate": null, "close": null,
		"ship": func(ctx context.Context, in []byte) ([]byte, error) {
			n := d.busy.Add(1)
			defer d.busy.Add(-1)
			for m := d.most.Load(); n > m && !d.most.CompareAndSwap(m, n); m = d.most.Load() {
			}
			var item struct{ Item, Index int }
			if err := json.Unmarshal(in, &item); err != nil {
				return nil, err
			}
			if item.Index == d.fails {
				return nil, worker.Final("refused", fmt.Errorf("item %d is refused", item.Item))
			}
			d.set(ctx, true)
			return fmt.Appendf(nil, `{"parcel":%d}`, item.Item), nil
		},
		"recall": func(ctx context.Context, _ []byte) ([]byte, error) {
			d.set(ctx, false)
			return nil, nil
		},
	}
}

func TestItemsAreStepsOfTheirOwn(t *testing.T) {
	registry := prometheus.NewRegistry()
	w, d := newWorld(t, func(c *engine.Config) { c.Registerer = registry }), newDepot()
	e := w.start()
	w.register(parcels(4))
	w.worker("a", d.handlers())
	id := w.run(rest.Start{Workflow: "parcels", ID: "p", Input: items(30)})
	r := w.wait(id, "succeeded")
	var out []struct{ Parcel int }
	if err := json.Unmarshal(r.Output, &out); err != nil || len(out) != 30 || out[29].Parcel != 29 {
		t.Errorf("the output is %s", r.Output)
	}
	if most := d.most.Load(); most > 4 {
		t.Errorf("%d items were under way at once", most)
	}
	if len(r.Steps) != 3 || r.Steps[1].Items == nil || r.Steps[1].Items.Total != 30 || r.Steps[1].Items.States["succeeded"] != 30 || len(r.Steps[1].Items.Shown) != 0 {
		t.Errorf("the run shows %+v", r.Steps)
	}
	if d.calls["p/ship[29]/action/1"] != 1 {
		t.Errorf("calls are %v", d.calls)
	}
	page, err := e.Items(context.Background(), id, "ship", engine.ItemFilter{Limit: 7, Cursor: "21"})
	if err != nil || len(page.Items) != 7 || page.Next != "28" || page.Items[0].Name != "ship[21]" || string(page.Items[0].Output) != `{"parcel":21}` {
		t.Errorf("the page is %+v, %v", page, err)
	}
	if page, err = e.Items(context.Background(), id, "ship", engine.ItemFilter{Cursor: "28", State: "succeeded"}); err != nil || len(page.Items) != 2 || page.Next != "" {
		t.Errorf("the last page is %+v, %v", page, err)
	}
	for _, step := range []string{"create", "ship[1]", "none"} {
		if _, err := e.Items(context.Background(), id, step, engine.ItemFilter{}); err == nil {
			t.Errorf("items of %s were listed", step)
		}
	}
	if h := w.history(id); !strings.Contains(h, "ship fans out to 30 items") || !strings.Contains(h, "ship[29], attempt 1: succeeded") {
		t.Errorf("history:\n%s", h)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprint(families); strings.Contains(text, "ship[") {
		t.Error("an item's name is in a metric's labels, which must be bounded")
	}
}

func TestOrdersAreGivenToItems(t *testing.T) {
	w, d := newWorld(t, nil), newDepot()
	e := w.start()
	b := definitions.Saga("late").Service("shop")
	b.Step("close").Action("close").Pivot()
	b.Step("ship").Action("ship").ForEach("input.items").Parallel(2).Input("{'item': item, 'index': index}")
	w.register(b.MustBuild())
	d.fails = 1
	w.worker("a", d.handlers())
	id := w.run(rest.Start{Workflow: "late", Input: items(4)})
	var r rest.RunDetail
	w.eventually("all but one item have succeeded", func() bool {
		r = w.wait(id, "stalled")
		return r.Steps[1].Items.States["succeeded"] == 3
	})
	if r.FailedStep != "ship" || r.Error != "ship[1]: refused: item 1 is refused" {
		t.Errorf("the run failed at %q with %q", r.FailedStep, r.Error)
	}
	shown := r.Steps[1].Items.Shown
	if len(shown) != 1 || shown[0].Name != "ship[1]" || shown[0].State != "stalled" || !strings.Contains(shown[0].Waiting, "ship[1] is stalled") {
		t.Errorf("shown are %+v", shown)
	}
	if _, err := e.Retry(context.Background(), id, rest.Settle{Step: "ship[4]"}); err == nil {
		t.Error("an item that is not there was retried")
	}
	if _, err := e.Retry(context.Background(), id, rest.Settle{Step: "ship[1]", Input: json.RawMessage(`{"item": 1, "index": 100}`)}); err != nil {
		t.Fatal(err)
	}
	w.eventually("the run ends", func() bool {
		r, err := e.Run(context.Background(), id)
		return err == nil && r.Status == "succeeded"
	})
	if d.calls[id+"/ship[1]/action/2"] != 1 {
		t.Errorf("calls are %v", d.calls)
	}
}

// TestManyItemsStayCheap fans out to as many items as may be: the run is shown
// in few words, and nothing grows with the square of their number.
func TestManyItemsStayCheap(t *testing.T) {
	w, d := newWorld(t, nil), newDepot()
	e := w.start()
	w.register(parcels(500))
	stop, seen := make(chan struct{}), make(chan struct{}, 1000)
	h := d.handlers()
	ship := h["ship"]
	h["ship"] = func(ctx context.Context, in []byte) ([]byte, error) {
		select {
		case seen <- struct{}{}:
		default:
		}
		<-stop
		return ship(ctx, in)
	}
	w.worker("a", h)
	id := w.run(rest.Start{Workflow: "parcels", Input: items(1000)})
	<-seen
	w.eventually("the window is full", func() bool {
		r, err := e.Run(context.Background(), id)
		return err == nil && r.Steps[1].Items != nil && r.Steps[1].Items.States["running"] == 500
	})
	r, err := e.Run(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	if n, more := len(r.Steps[1].Items.Shown), r.Steps[1].Items.More; n != 20 || more != 480 || len(r.Waiting) != 21 {
		t.Errorf("%d items are shown and %d more, %d lines tell what the run waits for", n, more, len(r.Waiting))
	}
	close(stop)
	w.wait(id, "succeeded")
	if _, err := e.StartRun(context.Background(), rest.Start{Workflow: "parcels", ID: "too-long", Input: items(1001)}); err != nil {
		t.Fatal(err)
	}
	if r := w.wait("too-long", "compensated"); !strings.Contains(r.Error, "1001 items are more than the orchestrator's limit, 1000") {
		t.Errorf("the error is %q", r.Error)
	}
}

// TestCrashAtEveryCommitOfAFanOut kills the engine at each commit of a run of
// which one item fails: whatever was shipped is recalled.
func TestCrashAtEveryCommitOfAFanOut(t *testing.T) {
	for _, after := range []bool{false, true} {
		for at := 1; at <= 9; at++ {
			t.Run(fmt.Sprintf("after=%v/commit=%d", after, at), func(t *testing.T) {
				t.Parallel()
				w, d := newWorld(t, nil), newDepot()
				d.fails = 4
				w.worker("a", d.handlers())
				w.start()
				w.register(parcels(2))
				w.stop()
				w.crashAt(at, after, rest.Start{Workflow: "parcels", ID: "p", Input: items(6)})
				w.wait("p", "compensated")
				if left := d.left(); len(left) > 0 {
					t.Errorf("%v were not recalled\n%s", left, w.history("p"))
				}
			})
		}
	}
}

// TestAFailedItemUndoesAllOverRabbitMQ fans out to 100 items, ten at once, of
// which one fails; the orchestrator crashes in the middle.
func TestAFailedItemUndoesAllOverRabbitMQ(t *testing.T) {
	w, d := newWorld(t, nil), newDepot()
	w.broker = rabbitBroker(t, testenv.RabbitMQ(t))
	w.start()
	w.register(parcels(10))
	w.stop()
	d.fails = 77
	for i := range 3 {
		w.worker(fmt.Sprintf("w%d", i), d.handlers())
	}
	w.crashAt(20, true, rest.Start{Workflow: "parcels", ID: "p", Input: items(100)})
	r := w.wait("p", "compensated")
	if left := d.left(); len(left) > 0 {
		t.Errorf("%v were not recalled\n%s", left, w.history("p"))
	}
	if d.calls["p/ship[60]/compensate/1"] == 0 {
		t.Errorf("ship[60] was not compensated\n%s", w.history("p"))
	}
	if r.FailedStep != "ship" || !strings.HasPrefix(r.Error, "ship[77]: refused") {
		t.Errorf("the run failed at %q with %q", r.FailedStep, r.Error)
	}
	states := r.Steps[1].Items.States
	// The failure of an item that was sent again does not prove that it had no
	// effect: then it is compensated too.
	if states["compensated"] < 60 || states["compensated"]+states["failed"]+states["pending"] != 100 {
		t.Errorf("items are %v", states)
	}
	if names := []string{r.Steps[0].State, r.Steps[1].State, r.Steps[2].State}; !slices.Equal(names, []string{"compensated", "compensated", "pending"}) {
		t.Errorf("steps are %v", names)
	}
}
