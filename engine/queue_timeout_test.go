package engine_test

import (
	"context"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// TestAQueueTimeoutThatPassesWhileTheTaskRunsDoesNotEndItAtARestart: the
// timeout bounds the wait before a worker starts the task, and this one has
// been running since. What says so after the restart is its worker.
func TestAQueueTimeoutThatPassesWhileTheTaskRunsDoesNotEndItAtARestart(t *testing.T) {
	w := newWorld(t, nil)
	w.start()
	const queueTimeout = 2 * time.Second
	b := definitions.Saga("long")
	b.Step("work").Service("shop").Action("work").NoCompensation("none is needed").QueueTimeout(queueTimeout)
	wf, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	w.register(wf)
	started, finish := make(chan time.Time, 10), make(chan struct{})
	w.worker("a", handlers{"work": func(context.Context, []byte) ([]byte, error) {
		started <- time.Now()
		<-finish
		return nil, nil
	}})
	id := w.run(rest.Start{Workflow: "long"})
	begun := <-started
	w.stop()
	w.eventually("the queue timeout has passed", func() bool { return time.Since(begun) > queueTimeout })
	e := w.start()
	w.eventually("the task is adopted", func() bool {
		d, err := e.Run(context.Background(), id)
		return err == nil && (d.Steps[0].State == "running" || d.Status != "running")
	})
	close(finish)
	w.wait(id, "succeeded")
	if len(started) != 0 {
		t.Errorf("the task was started %d times more", len(started))
	}
}
