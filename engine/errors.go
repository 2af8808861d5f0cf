package engine

import (
	"errors"
	"fmt"
	"time"

	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store"
)

// Kind sorts errors by what the caller can do about them.
type Kind uint8

// The kinds of error.
const (
	KindInvalid     Kind = iota + 1 // the request breaks a rule; do not repeat it
	KindNotFound                    // no such run, workflow, worker or step
	KindConflict                    // it contradicts what exists
	KindTooLarge                    // over a size limit
	KindOverloaded                  // at a limit; repeat later
	KindUnavailable                 // stopping, or a part is away; repeat later
	KindGone                        // the run has ended and was removed
)

// Error is the error of the engine's service methods.
type Error struct {
	Kind       Kind
	Code       string // a stable word for programs, such as "unknown_workflow"
	Field      string // the field of the request that is at fault, or empty
	Message    string
	Hint       string        // what to do about it, or empty
	RetryAfter time.Duration // of KindOverloaded and KindUnavailable
	Removed    *rest.Removed // of KindGone: what is still known of the run
	Err        error         // the cause, or nil
}

func (e *Error) Error() string {
	s := e.Message
	if e.Field != "" {
		s = e.Field + ": " + s
	}
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func invalid(code, field, format string, args ...any) *Error {
	return &Error{Kind: KindInvalid, Code: code, Field: field, Message: fmt.Sprintf(format, args...)}
}

// errUnknownRun is the cause of an error about a run that does not exist.
var errUnknownRun = errors.New("unknown run")

func unknownRun(id string) *Error {
	return &Error{Kind: KindNotFound, Code: "unknown_run", Field: "id", Message: fmt.Sprintf("there is no run %q", id), Err: errUnknownRun}
}

func errStopping() *Error {
	return &Error{Kind: KindUnavailable, Code: "stopping", Message: "the orchestrator is stopping", RetryAfter: time.Second}
}

// storeError turns an error of the store's reads into one of ours.
func storeError(what string, err error) error {
	var own *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		return err
	case errors.Is(err, store.ErrBadCursor):
		return &Error{Kind: KindInvalid, Code: "bad_cursor", Field: "cursor", Message: "not a cursor that a list gave out", Err: err}
	}
	return &Error{Kind: KindUnavailable, Code: "store", Message: what + ": " + err.Error(), RetryAfter: time.Second, Err: err}
}

// settleError turns the core's refusal of an operator's order into ours.
func settleError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, machine.ErrEnded):
		return &Error{Kind: KindConflict, Code: "run_ended", Message: "the run has ended", Hint: "an ended run is never reopened; retry starts a new, linked run", Err: err}
	case errors.Is(err, machine.ErrNotStalled):
		return &Error{Kind: KindConflict, Code: "not_stalled", Field: "step", Message: "the step is not stalled", Hint: "only a stalled step can be settled; see the run's steps", Err: err}
	case errors.Is(err, machine.ErrNoStep):
		return &Error{Kind: KindNotFound, Code: "unknown_step", Field: "step", Message: "the workflow has no such step", Err: err}
	case errors.Is(err, errUnreadable), errors.Is(err, store.ErrNotFound):
		return &Error{Kind: KindConflict, Code: "unreadable", Message: "the run's history cannot be read", Hint: "see the orchestrator's log", Err: err}
	case errors.Is(err, machine.ErrRejected):
		return &Error{Kind: KindInvalid, Code: "rejected", Message: err.Error(), Err: err}
	case errors.Is(err, machine.ErrNotAllowed):
		return &Error{Kind: KindConflict, Code: "not_allowed", Message: err.Error(), Err: err}
	}
	return err
}
