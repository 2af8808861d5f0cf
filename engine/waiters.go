package engine

import (
	"sync"

	"github.com/ringmaster-dev/ringmaster/store"
)

// waiters wakes those who wait for a run to end or stall.
type waiters struct {
	mu     sync.Mutex
	byID   map[string][]chan store.Run
	closed chan struct{}
}

func newWaiters() *waiters {
	return &waiters{byID: map[string][]chan store.Run{}, closed: make(chan struct{})}
}

// add registers a waiter; remove must be called after.
func (w *waiters) add(id string) chan store.Run {
	ch := make(chan store.Run, 1)
	w.mu.Lock()
	w.byID[id] = append(w.byID[id], ch)
	w.mu.Unlock()
	return ch
}

func (w *waiters) remove(id string, ch chan store.Run) {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.byID[id]
	for i := range list {
		if list[i] == ch {
			list = append(list[:i], list[i+1:]...)
			break
		}
	}
	if len(list) == 0 {
		delete(w.byID, id)
	} else {
		w.byID[id] = list
	}
}

func (w *waiters) notify(row store.Run) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, ch := range w.byID[row.ID] {
		select {
		case ch <- row:
		default:
		}
	}
}

func (w *waiters) close() { close(w.closed) }

// runChanged tells whoever waits that a run's status has changed, durably.
func (e *Engine) runChanged(row store.Run) {
	if row.Status.Final() || row.Status == store.StatusStalled {
		e.waiters.notify(row)
	}
	if row.Status == store.StatusStalled {
		e.log.Warn("run stalled", "run", row.ID, "workflow", row.Workflow, "step", row.FailedStep, "error", row.Error)
	}
}
