package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

// HandlerFunc performs a task. The payload is JSON and must not be modified;
// so must the output be, where empty means null.
type HandlerFunc func(ctx context.Context, payload []byte) ([]byte, error)

// handler is a registered HandlerFunc.
type handler struct {
	taskType string
	fn       HandlerFunc
	sound    bool // its output is known to be JSON
	metrics  handlerMetrics
}

// Handle registers the handler of a task type, with decoding and encoding. A
// payload that does not decode into In, fields that In lacks apart, fails
// finally, with code "bad_payload". A fault of the registration (another
// service, a second handler for the type) is returned by [Worker.Run].
//
// Versions of a task type, as in "payments.charge@2", are types of their own:
// a worker may serve several side by side, each by a handler, and gets tasks of
// none but these.
func Handle[In, Out any](w *Worker, task definitions.Task[In, Out], fn func(ctx context.Context, in In) (Out, error)) {
	w.register(task.Service, task.Type, true, func(ctx context.Context, payload []byte) ([]byte, error) {
		in, err := Decode[In](payload)
		if err != nil {
			return nil, err
		}
		out, err := fn(ctx, in)
		if err != nil {
			return nil, err
		}
		return Encode(out)
	})
}

// HandleFunc registers the handler of a task type of the worker's service.
func (w *Worker) HandleFunc(taskType string, fn HandlerFunc) {
	w.register("", taskType, false, fn)
}

// HandleTask registers the untyped handler of a task type that ref names.
func (w *Worker) HandleTask(ref definitions.TaskRef, fn HandlerFunc) {
	w.register(ref.TaskService(), ref.TaskType(), false, fn)
}

// Decode reads a payload as typed handlers do. Its error is a final failure.
func Decode[In any](payload []byte) (in In, err error) {
	if len(payload) == 0 {
		return in, nil
	}
	if err := json.Unmarshal(payload, &in); err != nil {
		return in, Final(CodeBadPayload, fmt.Errorf("decoding the payload as %T: %w", in, err))
	}
	return in, nil
}

// Encode writes an output as typed handlers do. Its error is final but does
// not claim that there was no effect, since the handler has done its work.
func Encode(out any) ([]byte, error) {
	data, err := json.Marshal(out)
	if err != nil {
		return nil, badOutput(fmt.Errorf("encoding the output %T: %w", out, err))
	}
	return data, nil
}

func badOutput(err error) error {
	return &Error{Outcome: protocol.OutcomeUnknown, Code: CodeBadOutput, Err: err}
}

func (w *Worker) register(service, taskType string, sound bool, fn HandlerFunc) {
	if w.ran.Load() {
		panic("worker: handler of " + taskType + " registered after Run was called")
	}
	fault := func(format string, args ...any) {
		w.faults = append(w.faults, fmt.Errorf("handler of %q: "+format, append([]any{taskType}, args...)...))
	}
	if w.cfg.Service == "" {
		w.cfg.Service = service
	}
	switch {
	case taskType == "" || !plain(taskType, protocol.MaxNameBytes):
		fault("a task type has 1 to %d bytes without spaces or control characters", protocol.MaxNameBytes)
	case fn == nil:
		fault("is nil")
	case service != "" && service != w.cfg.Service:
		fault("belongs to service %q, the worker to %q", service, w.cfg.Service)
	case w.handlers[taskType] != nil:
		fault("there is one already")
	default:
		w.handlers[taskType] = &handler{taskType: taskType, fn: fn, sound: sound, metrics: w.metrics.of(taskType)}
	}
}

// call runs the handler, with panics as errors, and checks its output.
func (h *handler) call(ctx context.Context, payload []byte, limit int) (out []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			out, err = nil, Recovered(v)
		}
	}()
	out, err = h.fn(ctx, payload)
	if err != nil {
		return nil, err
	}
	switch {
	case len(out) == 0:
		return null, nil
	case len(out) > limit:
		return nil, badOutput(fmt.Errorf("the output has %d bytes, at most %d are allowed", len(out), limit))
	case !h.sound && !json.Valid(out):
		return nil, badOutput(errors.New("the output is not valid JSON"))
	}
	return out, nil
}

var null = []byte("null")
