package engine_test

import (
	"context"
	"errors"
	"testing"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// TestProgressIsShownAndReachesTheNextAttempt has a long task report progress
// and fail, and then lose its worker: each attempt goes on from where the one
// before had come, whichever way that ended.
func TestProgressIsShownAndReachesTheNextAttempt(t *testing.T) {
	for name, open := range map[string]func(*testing.T) broker.Broker{
		"memory": func(*testing.T) broker.Broker { return nil },
		"rabbit": func(t *testing.T) broker.Broker { return rabbitBroker(t, testenv.RabbitMQ(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			if b := open(t); b != nil {
				w.broker = b
			}
			e := w.start()
			b := definitions.Saga("import")
			b.Step("load").Service("shop").Action("load").NoCompensation("rows are loaded again").
				Retry(definitions.RetryPolicy{Initial: definitions.MinDuration})
			wf, err := b.Build()
			if err != nil {
				t.Fatal(err)
			}
			w.register(wf)
			release := make(chan struct{})
			found := make(chan string, 10)
			fail := func(ctx context.Context, _ []byte) ([]byte, error) {
				found <- string(worker.TaskFrom(ctx).Progress)
				if err := worker.Progress(ctx, map[string]int{"rows": 100}); err != nil {
					return nil, err
				}
				return nil, errors.New("the file server is away")
			}
			hang := func(ctx context.Context, _ []byte) ([]byte, error) {
				found <- string(worker.TaskFrom(ctx).Progress)
				if err := worker.Progress(ctx, map[string]int{"rows": 250}); err != nil {
					return nil, err
				}
				<-release
				return nil, errors.New("killed")
			}
			end := func(ctx context.Context, _ []byte) ([]byte, error) {
				found <- string(worker.TaskFrom(ctx).Progress)
				return nil, nil
			}
			attempts := []func(context.Context, []byte) ([]byte, error){fail, hang, end}
			h := handlers{"load": func(ctx context.Context, in []byte) ([]byte, error) {
				return attempts[worker.TaskFrom(ctx).Attempt-1](ctx, in)
			}}
			doomed := &severable{Broker: w.broker}
			w.workerOn(doomed, "doomed", h)
			t.Cleanup(func() { close(release) }) // before the worker is waited for
			id := w.run(rest.Start{Workflow: "import"})
			w.eventually("run show tells of the progress", func() bool {
				d, err := e.Run(context.Background(), id)
				return err == nil && string(d.Steps[0].Progress) == `{"rows":250}`
			})
			w.worker("heir", h)
			doomed.kill()
			w.wait(id, "succeeded")
			for i, want := range []string{"", `{"rows":100}`, `{"rows":250}`} {
				if got := <-found; got != want {
					t.Errorf("attempt %d found progress %q, want %q", i+1, got, want)
				}
			}
		})
	}
}
