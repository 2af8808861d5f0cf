package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

// execute performs tasks, one after the other, until the worker drains. There
// are Concurrency of these goroutines.
func (w *Worker) execute() {
	var t *task
	done := false
	defer func() {
		if !done {
			// The handler ended this goroutine (runtime.Goexit); another takes
			// its place.
			w.conclude(t, nil, Recovered("the handler called runtime.Goexit"))
			w.deliver(t)
			go w.execute()
			return
		}
		w.executors.Done()
	}()
	for t = w.take(nil); t != nil; t = w.take(t) {
		w.perform(t)
	}
	done = true
}

// take delivers the result of the task that the executor has performed, and
// waits for another; nil when the worker drains.
func (w *Worker) take(performed *task) *task {
	w.mu.Lock()
	defer w.mu.Unlock()
	if performed != nil {
		w.deliverLocked(performed)
	}
	for !w.board.draining {
		if t := w.board.next(w.base, time.Now()); t != nil {
			return t
		}
		w.idle++
		w.work.Wait()
		w.idle--
	}
	return nil
}

func (w *Worker) deliver(t *task) {
	w.mu.Lock()
	w.deliverLocked(t)
	w.mu.Unlock()
}

func (w *Worker) deliverLocked(t *task) {
	w.board.finish(t)
	kick(w.post)
}

// perform runs the task's handler and fills in the result.
func (w *Worker) perform(t *task) {
	m := t.msg
	if !m.NotAfter.IsZero() && t.started.After(m.NotAfter) {
		if t.cancel != nil {
			t.cancel()
		}
		w.metrics.unrun(t)
		t.refusal(CodeNotAfter, fmt.Sprintf("arrived at %s, after its time, %s",
			t.started.UTC().Format(time.RFC3339Nano), m.NotAfter.UTC().Format(time.RFC3339Nano)), true)
		return
	}
	if t.handler == nil {
		w.metrics.unrun(t)
		t.refusal(CodeUnknownType, w.notServed(m), true)
		return
	}
	out, err := t.handler.call(t, m.Payload, w.cfg.MaxPayloadBytes)
	w.conclude(t, out, err)
}

// notServed says why there is no handler for a task, and which of the other
// versions of its type there are.
func (w *Worker) notServed(m *protocol.Task) string {
	text := fmt.Sprintf("no handler for type %q of service %q here", m.Type, m.Service)
	name, _ := definitions.SplitTaskType(m.Type)
	for _, served := range w.types {
		if n, _ := definitions.SplitTaskType(served); n == name && m.Service == w.cfg.Service {
			text += fmt.Sprintf("; there is one for %q", served)
		}
	}
	return text
}

// conclude makes the result of what the handler returned.
func (w *Worker) conclude(t *task, out []byte, err error) {
	took := time.Since(t.started)
	ended := t.Err()
	t.cancel()
	h := &t.handler.metrics
	h.seconds.Observe(took.Seconds())
	if err == nil {
		h.outcomes[protocol.OutcomeSucceeded].Inc()
		t.answer(verdict{outcome: protocol.OutcomeSucceeded}, "", out, took)
		return
	}
	v := judge(err, ended, w.wasCancelled(t), t.msg.Phase)
	h.outcomes[v.outcome].Inc()
	t.answer(v, err.Error(), t.progress.last(), took)
	var panicked *PanicError
	if errors.As(err, &panicked) {
		h.panics.Inc()
		w.log.LogAttrs(context.Background(), slog.LevelError, "handler panicked", slog.String("run", t.msg.RunID),
			slog.String("step", t.msg.StepName), slog.String("type", t.msg.Type), slog.Any("panic", panicked.Value),
			slog.String("stack", panicked.Stack))
	}
}

func (w *Worker) wasCancelled(t *task) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return t.cancelled
}
