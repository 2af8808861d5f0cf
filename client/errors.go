package client

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// The sorts of refusal, for errors.Is.
var (
	// ErrInvalid: the request breaks a rule; it will not do better later.
	ErrInvalid = errors.New("invalid request")
	// ErrNotFound: there is no such run, workflow, version, worker or step.
	ErrNotFound = errors.New("not found")
	// ErrRemoved: the run had ended, and was removed because of its age. The
	// *rest.Problem that the error wraps says in Removed how it had ended.
	ErrRemoved = errors.New("run was removed")
	// ErrConflict: the request contradicts what exists, such as a run of the
	// same id with another input, or an order about a step that is not stalled.
	ErrConflict = errors.New("conflict")
	// ErrTooLarge: the request is over a size limit.
	ErrTooLarge = errors.New("too large")
	// ErrOverloaded: the orchestrator is at a limit and stayed there for as
	// long as the client repeated the request.
	ErrOverloaded = errors.New("orchestrator at its limit")
	// ErrUnavailable: the orchestrator could not be reached, or could not
	// serve, for as long as the client repeated the request. Whether the last
	// attempt took effect is unknown.
	ErrUnavailable = errors.New("orchestrator unavailable")
	// ErrNotSucceeded: the run that was waited for ended otherwise. The error
	// is an *EndedError.
	ErrNotSucceeded = errors.New("run did not succeed")
)

// refusal is an answer that is a problem document.
type refusal struct {
	call    string
	problem *rest.Problem
}

func (r *refusal) Error() string { return r.call + ": " + r.problem.Error() }

// Unwrap serves errors.As for the problem and errors.Is for its sort.
func (r *refusal) Unwrap() []error {
	if sort := sortOf(r.problem.Status); sort != nil {
		return []error{r.problem, sort}
	}
	return []error{r.problem}
}

func sortOf(status int) error {
	switch status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusUnsupportedMediaType:
		return ErrInvalid
	case http.StatusNotFound:
		return ErrNotFound
	case http.StatusGone:
		return ErrRemoved
	case http.StatusConflict:
		return ErrConflict
	case http.StatusRequestEntityTooLarge:
		return ErrTooLarge
	case http.StatusTooManyRequests:
		return ErrOverloaded
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return ErrUnavailable
	}
	return nil
}

// EndedError tells that a run ended other than succeeded or committed.
type EndedError struct {
	Run rest.RunDetail
}

func (e *EndedError) Error() string {
	s := fmt.Sprintf("run %s ended as %s", e.Run.ID, e.Run.Status)
	if e.Run.FailedStep != "" {
		s += " after step " + e.Run.FailedStep + " failed"
	}
	if e.Run.Error != "" {
		s += ": " + e.Run.Error
	}
	return s
}

// Is makes an EndedError ErrNotSucceeded.
func (e *EndedError) Is(target error) bool { return target == ErrNotSucceeded }
