package worker

import (
	"context"

	"github.com/ringmaster-dev/ringmaster/protocol"
)

// Perform runs a handler once, as a worker does, and returns what the worker
// would answer: outcome, whether to retry, code, message, stack and payload (of
// a failure: the last progress); the
// rest of the result is empty. A panic becomes an unknown outcome. A handler
// that asks for its task finds what [WithTask] put into ctx. For tests and for
// drivers of handlers outside of a [Worker].
func Perform(ctx context.Context, fn HandlerFunc, payload []byte) protocol.Result {
	t := task{msg: &protocol.Task{}}
	h := handler{fn: fn}
	ctx = context.WithValue(ctx, progressKey{}, &t.progress)
	out, err := h.call(ctx, payload, DefaultMaxPayloadBytes)
	if err == nil {
		t.answer(verdict{outcome: protocol.OutcomeSucceeded}, "", out, 0)
	} else {
		t.answer(judge(err, ctx.Err(), false, TaskFrom(ctx).Phase), err.Error(), t.progress.last(), 0)
	}
	return t.first
}
