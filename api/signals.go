package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

type signalInput struct {
	ID   runID  `path:"id" maxLength:"200" doc:"The run's id."`
	Name string `path:"name" maxLength:"64" doc:"The signal's name."`
	Body *rest.Signal
}

type signalOutput struct {
	Status int
	Body   rest.Signalled
}

// routeSignal registers how a run gets a signal.
func (h *Handler) routeSignal() {
	op := h.operation("signalRun", http.MethodPost, "/api/v1/runs/{id}/signals/{name}", "runs", "Give a run a signal",
		"A step that waits for the name takes it; one that comes before its step is kept. A workflow that knows no such signal is a 404, a run that has ended a 409.",
		404, 409, 410, 413, 422, 503)
	op.DefaultStatus = http.StatusAccepted
	h.alsoAnswers(&op, http.StatusOK, "A signal with this id had been received before.", rest.Signalled{})
	op.MaxBodyBytes = h.maxStartBody() + 1
	huma.Register(h.huma, op, func(ctx context.Context, in *signalInput) (*signalOutput, error) {
		var s rest.Signal
		if in.Body != nil {
			s = *in.Body
		}
		out, err := h.svc.Signal(ctx, string(in.ID), in.Name, s)
		if err != nil {
			return nil, h.problemOf(ctx, err, ofSignal)
		}
		if !out.Received {
			return &signalOutput{http.StatusOK, out}, nil
		}
		return &signalOutput{http.StatusAccepted, out}, nil
	})
}

// ofSignal is the locator of signals: the run's id and the signal's name are in
// the path.
func ofSignal(field string) string {
	switch field {
	case "run":
		return "path.id"
	case "name":
		return "path.name"
	}
	return inBody(field)
}
