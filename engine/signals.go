package engine

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store"
)

// MaxSignalNameBytes bounds the name of a signal. No workflow knows a longer one.
const MaxSignalNameBytes = 64

// never is the wake-up time of a run that waits for nothing but a request: its
// row sleeps, and no shard looks for it.
var never = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// Signal gives a run a signal, and returns once that is durable. A signal with
// an id that the run has received is not received again.
func (e *Engine) Signal(ctx context.Context, id, name string, s rest.Signal) (rest.Signalled, error) {
	in, err := e.signalInput(name, s)
	if err != nil {
		return rest.Signalled{}, err
	}
	if !e.owns(id) {
		return ask[rest.Signalled](ctx, e, order{Method: errandSignal, ID: id, Name: name}, s)
	}
	row, err := e.row(ctx, id)
	if err != nil {
		return rest.Signalled{}, ofRun(err)
	}
	if err := e.serving(); err != nil {
		return rest.Signalled{}, err
	}
	done := make(chan answer[rest.Signalled], 1)
	posted := e.post(shardIndex(row.Ref), message{ref: row.Ref, input: in, reply: func(r store.Run, err error) {
		out := rest.Signalled{ID: s.ID, Received: err == nil}
		if errors.Is(err, machine.ErrRepeated) {
			err = nil
		}
		if err == nil {
			out.Run = runOf(&r)
		}
		done <- answer[rest.Signalled]{out, signalError(err)}
	}})
	if !posted {
		return rest.Signalled{}, errMoved()
	}
	return await(ctx, e, done)
}

// ofRun says of an unknown run that it is the run's id which is at fault, not
// the signal's.
func ofRun(err error) error {
	var own *Error
	if errors.As(err, &own) && own.Kind == KindNotFound {
		return &Error{Kind: own.Kind, Code: own.Code, Field: "run", Message: own.Message, Err: own.Err}
	}
	return err
}

// signalInput checks a signal.
func (e *Engine) signalInput(name string, s rest.Signal) (machine.Signal, error) {
	in := machine.Signal{Name: name, ID: s.ID, By: s.By, Limit: e.cfg.Limits.MaxSignals}
	if name == "" {
		return in, invalid("required", "name", "is required: which signal it is")
	}
	if err := checkID("name", name, MaxSignalNameBytes); err != nil {
		return in, err
	}
	if err := checkID("id", s.ID, MaxIDBytes); err != nil {
		return in, err
	}
	if err := checkWhoAndWhy(s.By, ""); err != nil {
		return in, err
	}
	var err error
	in.Payload, err = compactUpTo(e.cfg.Limits.MaxSignalBytes, "payload", s.Payload)
	return in, err
}

// signalError turns the core's refusal of a signal into ours.
func signalError(err error) error {
	switch {
	case errors.Is(err, machine.ErrRejected):
		return &Error{Kind: KindNotFound, Code: "unknown_signal", Field: "name", Message: err.Error(), Err: err}
	case errors.Is(err, machine.ErrTooMany):
		return &Error{Kind: KindConflict, Code: "too_many_signals", Field: "name", Message: err.Error(), Err: err}
	}
	return settleError(err)
}

// carryOutSignal gives a run a signal that came through the broker.
func (e *Engine) carryOutSignal(ctx context.Context, run string, body json.RawMessage) error {
	var s rest.SignalRequest
	if err := strict(body, &s); err != nil {
		return err
	}
	if s.ID == "" {
		// Without an id, a redelivery would be a second signal.
		return invalid("required", "id", "is required of a signal that comes through the broker")
	}
	_, err := e.Signal(ctx, run, s.Name, s.Signal)
	return err
}
