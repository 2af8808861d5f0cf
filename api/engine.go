package api

import (
	"errors"
	"net/http"

	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

var _ Service = (*engine.Engine)(nil)

// problemOfEngine says how to answer an error of the engine's; nil where it is
// none of them.
func problemOfEngine(err error, at locator) *problem {
	var e *engine.Error
	if !errors.As(err, &e) {
		return nil
	}
	p := newProblem(statusOf(e.Kind), e.Code, e.Error())
	p.retryAfter, p.Removed = e.RetryAfter, e.Removed
	if e.Field != "" {
		message := e.Message
		if e.Hint != "" {
			message += " (" + e.Hint + ")"
		}
		p.Errors = []rest.FieldError{{Location: at(e.Field), Message: message}}
	}
	return p
}

func statusOf(k engine.Kind) int {
	switch k {
	case engine.KindInvalid:
		return http.StatusUnprocessableEntity
	case engine.KindNotFound:
		return http.StatusNotFound
	case engine.KindConflict:
		return http.StatusConflict
	case engine.KindTooLarge:
		return http.StatusRequestEntityTooLarge
	case engine.KindOverloaded:
		return http.StatusTooManyRequests
	case engine.KindGone:
		return http.StatusGone
	case engine.KindUnavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
