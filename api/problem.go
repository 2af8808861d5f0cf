package api

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store"
)

// Codes of problems that the API itself finds. Those of the engine are its own.
const (
	CodeMalformed        = "malformed_request" // not JSON, or not UTF-8
	CodeInvalid          = "invalid_request"   // JSON, but a field breaks a rule
	CodeTooLarge         = "body_too_large"
	CodeMediaType        = "unsupported_media_type"
	CodeNotFound         = "not_found"
	CodeNoRoute          = "no_such_route"
	CodeMethodNotAllowed = "method_not_allowed"
	CodeForbiddenHost    = "host_not_allowed"
	CodeCrossOrigin      = "cross_origin"
	CodeReadTimeout      = "body_read_timeout"
	CodeUnavailable      = "unavailable"
	CodeInternal         = "internal"
)

// maxEchoedValue bounds the part of a bad request that its answer repeats.
const maxEchoedValue = 200

const problemType = "application/problem+json"

// problem is a rest.Problem on its way out.
type problem struct {
	rest.Problem
	retryAfter time.Duration
}

func (p *problem) GetStatus() int            { return p.Status }
func (p *problem) ContentType(string) string { return problemType }
func (p *problem) GetHeaders() http.Header {
	h := http.Header{}
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(p.retryAfter.Seconds()))))
	}
	return h
}

func newProblem(status int, code, detail string, errs ...rest.FieldError) *problem {
	return &problem{Problem: rest.Problem{
		Title: http.StatusText(status), Status: status, Detail: detail, Code: code, Errors: errs,
	}}
}

// write answers with the problem outside of huma.
func (p *problem) write(w http.ResponseWriter) {
	for k, v := range p.GetHeaders() {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(&p.Problem) // the caller has gone: nobody to tell
}

// codeOf is the code of a problem that huma found.
func codeOf(status int) string {
	switch status {
	case http.StatusBadRequest:
		return CodeMalformed
	case http.StatusUnprocessableEntity:
		return CodeInvalid
	case http.StatusRequestEntityTooLarge:
		return CodeTooLarge
	case http.StatusUnsupportedMediaType:
		return CodeMediaType
	case http.StatusRequestTimeout:
		return CodeReadTimeout
	default:
		return CodeInternal
	}
}

// asProblem turns what huma says about a request into a problem document.
func asProblem(_ huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	p := newProblem(m.Status, codeOf(m.Status), m.Detail)
	for _, d := range m.Errors {
		if d == nil {
			continue
		}
		p.Errors = append(p.Errors, rest.FieldError{Location: d.Location, Message: d.Message, Value: echo(d.Value)})
	}
	if p.Code == CodeInvalid && len(p.Errors) > 0 {
		p.Detail = describe(p.Errors)
	}
	return p, nil
}

// describe puts the first broken rule into one sentence.
func describe(errs []rest.FieldError) string {
	s := errs[0].Message
	if errs[0].Location != "" {
		s = errs[0].Location + ": " + s
	}
	if n := len(errs) - 1; n > 0 {
		s += " (and " + strconv.Itoa(n) + " more)"
	}
	return s
}

// echo keeps a bad value only where it is small.
func echo(v any) any {
	b, err := json.Marshal(v)
	if err != nil || len(b) > maxEchoedValue || v == "" {
		return nil
	}
	return v
}

// locator says where in the request a field of the engine's is.
type locator func(field string) string

func inBody(field string) string {
	if field == "" {
		return ""
	}
	return "body." + field
}

// ofRun is the locator of orders about one run: its id is in the path.
func ofRun(field string) string {
	if field == "id" || field == "run" {
		return "path.id"
	}
	return inBody(field)
}

// ofItems is for a request about a step of a run whose other fields are in the
// query.
func ofItems(field string) string {
	switch field {
	case "id", "run":
		return "path.id"
	case "step":
		return "path.step"
	}
	return inQuery(field)
}

func inQuery(field string) string {
	if field == "" {
		return ""
	}
	return "query." + field
}

func inPath(field string) string {
	if field == "" {
		return ""
	}
	return "path." + field
}

// problemOf says how to answer an error of the service.
func (h *Handler) problemOf(ctx context.Context, err error, at locator) *problem {
	if p := problemOfEngine(err, at); p != nil {
		return p
	}
	var p *rest.Problem
	switch {
	case errors.As(err, &p):
		return &problem{Problem: *p}
	case errors.Is(err, store.ErrNotFound):
		return newProblem(http.StatusNotFound, CodeNotFound, err.Error())
	case errors.Is(err, store.ErrBadCursor):
		return newProblem(http.StatusUnprocessableEntity, CodeInvalid, "the cursor is not one of this list's",
			rest.FieldError{Location: "query.cursor", Message: "expected the `next` of the page before"})
	case ctx.Err() != nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		p := newProblem(http.StatusServiceUnavailable, CodeUnavailable, "the request was given up before it was answered; what it asked for may have been done")
		p.retryAfter = time.Second
		return p
	}
	h.log.ErrorContext(ctx, "request failed", "error", err)
	return newProblem(http.StatusInternalServerError, CodeInternal, "internal error; the orchestrator's log has the cause")
}
