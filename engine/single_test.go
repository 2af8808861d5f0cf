package engine_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// A worker dies with a message of many tasks, one of which may be what kills
// workers. The next gets each of them in a message of its own.
func TestTasksWhoseWorkerDiedTravelAlone(t *testing.T) {
	w := newWorld(t, nil)
	w.broker = rabbitBroker(t, testenv.RabbitMQ(t))
	w.start()
	w.register(payOnly(func(s *definitions.StepBuilder) {
		s.Retry(definitions.RetryPolicy{Initial: time.Millisecond, Max: time.Millisecond, MaxAttempts: 20})
	}))
	const runs = 5
	ids := make([]string, runs)
	for i := range ids {
		ids[i] = w.run(rest.Start{Workflow: "one", ID: fmt.Sprint("run-", i)})
	}
	take := func(p *puppet) (tasks []protocol.Task) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for len(tasks) < runs {
			select {
			case task := <-p.tasks:
				tasks = append(tasks, task)
			case <-ctx.Done():
				t.Fatalf("%d of %d tasks came", len(tasks), runs)
			}
		}
		return tasks
	}
	a := newPuppet(t, w.broker, "a", 2*runs)
	die := a.beating()
	take(a)
	die()
	b := newPuppet(t, w.broker, "b", 2*runs)
	defer b.beating()()
	for _, task := range take(b) {
		if task.Attempt != 2 {
			t.Errorf("attempt %d of run %s comes", task.Attempt, task.RunID)
		}
		b.answer(task, protocol.OutcomeSucceeded, `{}`)
	}
	for _, id := range ids {
		w.wait(id, "succeeded")
	}
	if a.most != runs || b.most != 1 {
		t.Errorf("the first worker got up to %d tasks in a message, want all %d; the second %d, want 1", a.most, runs, b.most)
	}
}
