package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// brokers runs a test over the in-process broker and over a real RabbitMQ.
func brokers(t *testing.T, test func(t *testing.T, w *world)) {
	t.Run("memory", func(t *testing.T) { test(t, newWorld(t, nil)) })
	t.Run("rabbitmq", func(t *testing.T) {
		w := newWorld(t, nil)
		w.broker = rabbitBroker(t, testenv.RabbitMQ(t))
		test(t, w)
	})
}

// paying is a workflow with one step, of that task type.
func paying(name, taskType string) *definitions.Workflow {
	b := definitions.Saga(name).Service("shop").Output("steps.pay.output")
	b.Step("pay").Action(taskType).Compensation("refund")
	return b.MustBuild()
}

func TestTasksGoToWorkersThatServeTheirVersion(t *testing.T) {
	brokers(t, func(t *testing.T, w *world) {
		e := w.start()
		says := func(name string) func(context.Context, []byte) ([]byte, error) {
			return func(ctx context.Context, _ []byte) ([]byte, error) {
				return fmt.Appendf(nil, "%q", name+" "+worker.TaskFrom(ctx).Version), nil
			}
		}
		w.worker("old", handlers{"pay": says("old"), "pay@1": says("old")})
		w.worker("new", handlers{"pay@2": says("new"), "pay@3": says("new")})
		for taskType, want := range map[string]string{"pay": `"old "`, "pay@1": `"old 1"`, "pay@2": `"new 2"`, "pay@3": `"new 3"`} {
			wf := paying("by-"+strings.ReplaceAll(taskType, "@", "-"), taskType)
			w.register(wf)
			for range 5 {
				if d := w.wait(w.run(rest.Start{Workflow: wf.Name()}), "succeeded"); string(d.Output) != want {
					t.Errorf("%s was performed by %s, not %s", taskType, d.Output, want)
				}
			}
			r, err := e.Ring(context.Background(), "shop", taskType, "some key")
			if err != nil || len(r.Members) != 1 || !strings.HasPrefix(want, `"`+r.Members[0].Name) || r.Owner != r.Members[0].Worker {
				t.Errorf("the ring of %s is %+v (%v)", taskType, r, err)
			}
		}
		if r, err := e.Ring(context.Background(), "shop", "", ""); err != nil || len(r.Members) != 2 {
			t.Errorf("the ring of the service is %+v (%v)", r, err)
		}
	})
}

func TestATaskWaitsForItsVersion(t *testing.T) {
	brokers(t, func(t *testing.T, w *world) {
		e, l := w.start(), newLedger()
		w.register(paying("pay-2", "pay@2"))
		w.worker("old", handlers{"pay": decline("wrong_version"), "pay@1": decline("wrong_version")})
		id := w.run(rest.Start{Workflow: "pay-2"})
		w.eventually("the run says which versions there are", func() bool {
			d, err := e.Run(context.Background(), id)
			return err == nil && len(d.Waiting) == 1 &&
				strings.HasSuffix(d.Waiting[0], "waits for a worker of service shop that serves pay@2: none is connected, only such that serve pay and pay@1")
		})
		w.worker("new", handlers{"pay@2": ok(l, "2")})
		w.wait(id, "succeeded")
		w.effectsOf(l, id, "/pay/action/1 1")
	})
}

// A run keeps the version that it started with, while newer runs of its workflow
// have another.
func TestRunsOfTwoVersionsFlowSideBySide(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	w.start()
	w.register(paying("pay", "pay"))
	started, finish := make(chan struct{}), make(chan struct{})
	calls := 0
	w.worker("both", handlers{"pay@2": ok(l, "2"), "pay": func(ctx context.Context, in []byte) ([]byte, error) {
		if calls++; calls == 1 {
			close(started)
			<-finish
			return nil, worker.NoEffect(errors.New("the bank is away"))
		}
		return ok(l, "1")(ctx, in)
	}})
	before := w.run(rest.Start{Workflow: "pay"})
	<-started
	w.register(paying("pay", "pay@2"))
	if d := w.wait(w.run(rest.Start{Workflow: "pay"}), "succeeded"); string(d.Output) != "2" {
		t.Errorf("a new run was performed by version %s", d.Output)
	}
	close(finish)
	if d := w.wait(before, "succeeded"); string(d.Output) != "1" {
		t.Errorf("the run from before was performed by version %s", d.Output)
	}
}
