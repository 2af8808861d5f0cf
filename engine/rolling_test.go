package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// startAll starts runs of a workflow, one for each key, and returns their ids.
func (w *world) startAll(workflow, prefix string, n int) []string {
	w.t.Helper()
	starts, ids := make([]rest.Start, n), make([]string, n)
	for i := range starts {
		ids[i] = fmt.Sprintf("%s-%d", prefix, i)
		starts[i] = rest.Start{Workflow: workflow, ID: ids[i], Input: orderInput, Key: fmt.Sprintf("customer-%d", i)}
	}
	for _, o := range w.engine.StartRuns(context.Background(), starts) {
		if o.Error != nil {
			w.t.Fatal(o.Error)
		}
	}
	return ids
}

// TestRollingDeployRepeatsAndLosesNothing replaces workers one after the other, the
// new release first or the old one first, while runs flow. Every run succeeds, with
// one attempt of each step, and every effect happens once (S2, S5).
func TestRollingDeployRepeatsAndLosesNothing(t *testing.T) {
	brokers(t, func(t *testing.T, w *world) {
		e, l := w.start(), newLedger()
		w.register(order())
		h := shop(l)
		for typ, f := range h {
			h[typ] = func(ctx context.Context, in []byte) ([]byte, error) {
				<-time.After(time.Millisecond) // so that drains find work in progress
				return f(ctx, in)
			}
		}
		const workers, runs = 4, 150
		release := func(i int, release string) (leave func()) {
			_, leave = w.tuned(worker.Config{
				Broker: w.broker, Name: fmt.Sprintf("shop-%d-%s", i, release), Release: release, Concurrency: 4, Prefetch: 8,
			}, h)
			return leave
		}
		var leave []func()
		for i := range workers {
			leave = append(leave, release(i, "1"))
		}
		var ids []string
		for i := range workers {
			ids = append(ids, w.startAll("order", fmt.Sprintf("wave-%d", i), runs)...)
			if i%2 == 0 {
				release(i, "2")
				leave[i]()
			} else {
				leave[i]()
				release(i, "2")
			}
		}
		for _, id := range ids {
			d := w.wait(id, "succeeded")
			for _, s := range d.Steps {
				if key := id + "/" + s.Name + "/action/1"; s.Attempts != 1 || l.count(key) != 1 {
					t.Errorf("%s took %d attempts and had its effect %d times\n%s", key, s.Attempts, l.count(key), w.history(id))
				}
			}
		}
		there, err := e.Workers(context.Background())
		if err != nil || len(there) != workers {
			t.Errorf("%d workers are there: %v", len(there), err)
		}
		for _, v := range there {
			if v.Release != "2" {
				t.Errorf("worker %s is of release %s", v.Name, v.Release)
			}
		}
	})
}

// placed is a workflow whose step says who has performed it.
func placed(p definitions.Placement) *definitions.Workflow {
	b := definitions.Saga("placed-" + p.String()).Service("shop").Output("steps.where.output")
	b.Step("where").Action("where").NoCompensation("a test").Placement(p)
	return b.MustBuild()
}

// where is a handler that answers with its worker's name.
func where(name string) handlers {
	return handlers{"where": func(context.Context, []byte) ([]byte, error) { return json.Marshal(name) }}
}

// places runs a workflow once for each key and returns who performed each.
func (w *world) places(workflow, prefix string, n int) []string {
	w.t.Helper()
	names := make([]string, n)
	for i, id := range w.startAll(workflow, prefix, n) {
		if err := json.Unmarshal(w.wait(id, "succeeded").Output, &names[i]); err != nil {
			w.t.Fatal(err)
		}
	}
	return names
}

// onRing waits until a service's ring has that many members.
func (w *world) onRing(n int) rest.Ring {
	w.t.Helper()
	var r rest.Ring
	w.eventually(fmt.Sprintf("%d workers on the ring", n), func() (ok bool) {
		var err error
		r, err = w.engine.Ring(context.Background(), "shop", "", "")
		return err == nil && len(r.Members) == n
	})
	return r
}

// TestAJoinMovesAtMostItsFairShareOfKeys (S14).
func TestAJoinMovesAtMostItsFairShareOfKeys(t *testing.T) {
	brokers(t, func(t *testing.T, w *world) {
		w.start()
		wf := placed(definitions.Ring)
		w.register(wf)
		const workers, keys = 4, 400
		for i := range workers {
			name := fmt.Sprintf("shop-%d", i)
			w.worker(name, where(name))
		}
		w.onRing(workers)
		before := w.places(wf.Name(), "before", keys)
		leave := w.worker("shop-new", where("shop-new"))
		w.onRing(workers + 1)
		after := w.places(wf.Name(), "after", keys)
		moved := 0
		for i := range before {
			if before[i] != after[i] {
				if moved++; after[i] != "shop-new" {
					t.Errorf("a key moved from %s to %s when another joined", before[i], after[i])
				}
			}
		}
		if fair := keys / (workers + 1); moved > fair*3/2 || moved < fair/2 {
			t.Errorf("%d of %d keys moved to the one that joined %d others; %d would be fair", moved, keys, workers, fair)
		}
		leave()
		w.onRing(workers)
		for i, name := range w.places(wf.Name(), "at-last", keys) {
			if name != before[i] {
				t.Fatalf("a key is at %s, and was at %s before another joined and left", name, before[i])
			}
		}
	})
}

// TestWorkersGetRunsByTheirWeights has a worker of three times the weight of another,
// then of a third of it.
func TestWorkersGetRunsByTheirWeights(t *testing.T) {
	brokers(t, func(t *testing.T, w *world) {
		w.start()
		var workflows []string
		for _, p := range []definitions.Placement{definitions.Bounded, definitions.Ring, definitions.LeastLoaded} {
			w.register(placed(p))
			workflows = append(workflows, placed(p).Name())
		}
		changing, _ := w.tuned(worker.Config{Broker: w.broker, Name: "changing", Weight: 300}, where("changing"))
		w.tuned(worker.Config{Broker: w.broker, Name: "steady"}, where("steady"))
		w.onRing(2)
		const keys = 300
		count := func(prefix string, low, high int) {
			t.Helper()
			for _, workflow := range workflows {
				n := 0
				for _, name := range w.places(workflow, prefix+workflow, keys) {
					if name == "changing" {
						n++
					}
				}
				if n < low || n > high {
					t.Errorf("%s, %s: %d of %d runs, where %d to %d would be fair", workflow, prefix, n, keys, low, high)
				}
			}
		}
		count("thrice", keys*60/100, keys*90/100)
		var calls sync.WaitGroup
		for _, weight := range []int{1, 1000, 33} { // the last one counts
			calls.Go(func() {
				if err := changing.SetWeight(weight); err != nil {
					t.Error(err)
				}
			})
		}
		calls.Wait()
		if err := changing.SetWeight(33); err != nil {
			t.Error(err)
		}
		if err := changing.SetWeight(0); err == nil {
			t.Error("a weight of 0 is taken")
		}
		w.eventually("the new weight is known", func() bool {
			for _, m := range w.onRing(2).Members {
				if m.Name == "changing" && m.Weight == 33 {
					return true
				}
			}
			return false
		})
		count("a-third", keys*10/100, keys*40/100)
	})
}
