package worker_test

import (
	"context"
	"errors"
	"testing"

	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// Perform judges a handler as a worker does.
func TestPerform(t *testing.T) {
	for _, c := range []struct {
		name    string
		fn      worker.HandlerFunc
		outcome protocol.Outcome
		retry   bool
		code    string
		payload string
	}{
		{"nothing", func(context.Context, []byte) ([]byte, error) { return nil, nil }, protocol.OutcomeSucceeded, false, "", "null"},
		{"echo", func(_ context.Context, p []byte) ([]byte, error) { return p, nil }, protocol.OutcomeSucceeded, false, "", `{"n":1}`},
		{"error", func(context.Context, []byte) ([]byte, error) { return nil, errors.New("x") },
			protocol.OutcomeFailed, true, worker.CodeError, ""},
		{"final", func(context.Context, []byte) ([]byte, error) { return nil, worker.Final("no", nil) },
			protocol.OutcomeFailed, false, "no", ""},
		{"panic", func(context.Context, []byte) ([]byte, error) { panic("x") },
			protocol.OutcomeUnknown, true, worker.CodePanic, ""},
		{"bad output", func(context.Context, []byte) ([]byte, error) { return []byte("{"), nil },
			protocol.OutcomeUnknown, false, worker.CodeBadOutput, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := worker.Perform(t.Context(), c.fn, []byte(`{"n":1}`))
			if r.Outcome != c.outcome || r.Retryable != c.retry || r.Code != c.code || string(r.Payload) != c.payload {
				t.Errorf("got %+v", r)
			}
			if c.code == worker.CodePanic && r.Stack == "" {
				t.Error("no stack")
			}
		})
	}
}
