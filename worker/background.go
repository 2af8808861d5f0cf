package worker

import "context"

// Background has Run run fn beside the handlers, in a goroutine of its own: from
// when the worker is connected until it has left, which ends ctx. Run waits for
// fn to return. It panics if Run was called before.
func (w *Worker) Background(fn func(ctx context.Context)) {
	if w.ran.Load() {
		panic("worker: Background called after Run")
	}
	w.background = append(w.background, fn)
}
