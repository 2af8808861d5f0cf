package worker

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"unicode/utf8"

	"github.com/ringmaster-dev/ringmaster/protocol"
)

// Codes that the SDK itself gives to results.
const (
	CodeError       = "error"        // a handler's plain error
	CodeTimeout     = "timeout"      // an error after the handler's time was up
	CodeCancelled   = "cancelled"    // cancelled by the engine or by a drain
	CodePanic       = "panic"        // the handler panicked
	CodeBadPayload  = "bad_payload"  // the payload does not decode into the handler's input
	CodeBadOutput   = "bad_output"   // the output is not JSON, or too large
	CodeNotAfter    = "not_after"    // the task came after its time
	CodeUnknownType = "unknown_type" // no handler for that task type
	CodeOverloaded  = "overloaded"   // more tasks than the worker granted
)

var (
	// ErrRan is returned by a second Run of a Worker.
	ErrRan = errors.New("worker: has run already")
	// ErrUnclean is wrapped by the error of a Run that ended with handlers
	// still running or results not known to be durable. The engine learns
	// nothing of them from this worker any more and treats them as lost.
	ErrUnclean = errors.New("worker: left without finishing")
)

// ErrReadOnly is returned by a prepare handler that has changed nothing: its
// vote is yes, and it has no part in phase two. Of another phase it is an error
// like any other.
var ErrReadOnly = errors.New("read-only")

// Error is a handler's error with what it asserts about the attempt. Handlers
// make one with [Final], [Retryable] or [Unknown]; it may be wrapped further.
type Error struct {
	// Outcome is OutcomeFailed (no effect) or OutcomeUnknown.
	Outcome protocol.Outcome
	// Retryable says that another attempt may help.
	Retryable bool
	// Code is a short stable word for programs, such as "card_declined". A
	// retry policy may name codes that are not to be retried.
	Code string
	// Err says more, for people; may be nil.
	Err error
}

// Error is the text of Err, or the code where there is none.
func (e *Error) Error() string {
	if e.Err != nil {
		return e.Err.Error()
	}
	return e.Code
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Final says that the attempt had no effect and that no other attempt will
// help. The code is a short stable word of the handler's.
func Final(code string, err error) error {
	return &Error{Outcome: protocol.OutcomeFailed, Code: code, Err: err}
}

// Retryable says that the attempt had no effect and that another may help. A
// plain error is that, with code "error".
func Retryable(code string, err error) error {
	return &Error{Outcome: protocol.OutcomeFailed, Retryable: true, Code: code, Err: err}
}

// Unknown says that the attempt may have had an effect. Another attempt, under
// the same idempotency key, finds out.
func Unknown(code string, err error) error {
	return &Error{Outcome: protocol.OutcomeUnknown, Retryable: true, Code: code, Err: err}
}

// NoEffect vouches that the attempt had no effect although it ran out of time
// or panicked: what it did was rolled back. It returns nil for nil.
func NoEffect(err error) error {
	if err == nil {
		return nil
	}
	return &noEffect{err}
}

type noEffect struct{ err error }

func (e *noEffect) Error() string { return e.err.Error() }
func (e *noEffect) Unwrap() error { return e.err }

// PanicError is a recovered panic. A handler that recovers one itself, to roll
// back, returns one (see [Recovered]) so that the stack is not lost.
type PanicError struct {
	Value any
	Stack string
}

// Error is the panic's value as text.
func (e *PanicError) Error() string { return fmt.Sprint("panic: ", e.Value) }

// Recovered makes a PanicError of a value that recover returned. It must be
// called from the deferred function, where the stack is still to be had.
func Recovered(value any) *PanicError {
	return &PanicError{Value: value, Stack: trimStack(string(debug.Stack()))}
}

const maxStackBytes = 8 << 10

// trimStack drops the frames of the recovery itself, and whole lines at the
// end until the stack fits.
func trimStack(s string) string {
	if i := strings.Index(s, "\npanic("); i >= 0 {
		s = s[i+1:]
	}
	if len(s) > maxStackBytes {
		s = s[:maxStackBytes]
		s = s[:strings.LastIndexByte(s, '\n')+1]
	}
	return strings.TrimRight(s, "\n")
}

// verdict is what the engine is told of an attempt that did not succeed.
type verdict struct {
	outcome   protocol.Outcome
	retryable bool
	code      string
	stack     string
}

// judge reads a handler's error. ended is the error of its context, cancelled
// whether somebody asked for that end.
func judge(err, ended error, cancelled bool, phase protocol.Phase) verdict {
	if phase == protocol.PhasePrepare && errors.Is(err, ErrReadOnly) {
		return verdict{outcome: protocol.OutcomeReadOnly}
	}
	v := verdict{outcome: protocol.OutcomeFailed, retryable: true, code: CodeError}
	late := CodeTimeout
	if cancelled {
		late = CodeCancelled
	}
	var stated *Error
	var panicked *PanicError
	switch {
	case errors.As(err, &panicked):
		v.outcome, v.code, v.stack = protocol.OutcomeUnknown, CodePanic, panicked.Stack
	case errors.As(err, &stated):
		v.outcome, v.retryable, v.code = stated.Outcome, stated.Retryable, stated.Code
		// Who wraps an interrupted call as retryable hardly knows that it had
		// no effect; a final failure is a decision, and is believed.
		if ended != nil && (v.retryable || interrupted(err)) {
			v.outcome = protocol.OutcomeUnknown
		}
	case ended != nil:
		v.outcome, v.code = protocol.OutcomeUnknown, late
	}
	var vouched *noEffect
	if errors.As(err, &vouched) {
		v.outcome = protocol.OutcomeFailed
	}
	if !v.outcome.Valid() || v.outcome == protocol.OutcomeSucceeded {
		v.outcome = protocol.OutcomeUnknown
	}
	if v.code == "" {
		v.code = CodeError
	}
	return v
}

func interrupted(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// clip shortens a text for people to at most limit bytes of valid UTF-8.
func clip(s string, limit int) string {
	if len(s) > limit {
		for limit > 0 && !utf8.RuneStart(s[limit]) {
			limit--
		}
		s = s[:limit]
	}
	return strings.ToValidUTF8(s, "?")
}
