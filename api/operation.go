package api

import (
	"net/http"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// operation describes a route, with the problems that it may answer.
func (h *Handler) operation(id, method, path, tag, summary, description string, problems ...int) huma.Operation {
	op := huma.Operation{
		OperationID: id, Method: method, Path: path, Tags: []string{tag},
		Summary: summary, Description: description,
		Responses: map[string]*huma.Response{},
	}
	schema := h.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[rest.Problem](), true, "Problem")
	content := map[string]*huma.MediaType{problemType: {Schema: schema}}
	for _, status := range problems {
		r := &huma.Response{Description: http.StatusText(status), Content: content}
		if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
			r.Headers = map[string]*huma.Param{"Retry-After": {
				Description: "Seconds to let pass before the request is repeated.",
				Schema:      &huma.Schema{Type: huma.TypeInteger},
			}}
		}
		op.Responses[strconv.Itoa(status)] = r
	}
	op.Responses["default"] = &huma.Response{Description: "Any other problem", Content: content}
	return op
}

// alsoAnswers documents a second successful status.
func (h *Handler) alsoAnswers(op *huma.Operation, status int, description string, body any) {
	schema := h.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeOf(body), true, "")
	op.Responses[strconv.Itoa(status)] = &huma.Response{
		Description: description,
		Content:     map[string]*huma.MediaType{"application/json": {Schema: schema}},
	}
}

func (h *Handler) maxStartBody() int64 { return h.cfg.MaxPayloadBytes + envelopeBytes }
