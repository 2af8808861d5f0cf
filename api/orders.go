package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

type cancelInput struct {
	ID   runID `path:"id" maxLength:"200" doc:"The run's id."`
	Body *rest.Cancel
}

type settleInput struct {
	ID   runID `path:"id" maxLength:"200" doc:"The run's id."`
	Body *rest.Settle
}

type order func(ctx context.Context, id string, s rest.Settle) (rest.Run, error)

// routeOrders registers what an operator may order about a run.
func (h *Handler) routeOrders() {
	cancel := h.operation("cancelRun", http.MethodPost, "/api/v1/runs/{id}/cancel", "runs", "Ask a run to turn back",
		"Past its pivot a run only goes forward: there the request is recorded and changes nothing.", 404, 409, 410, 413, 422, 503)
	cancel.MaxBodyBytes = maxSmallBody
	huma.Register(h.huma, cancel, func(ctx context.Context, in *cancelInput) (*runOutput, error) {
		var c rest.Cancel
		if in.Body != nil {
			c = *in.Body
		}
		run, err := h.svc.Cancel(ctx, string(in.ID), c)
		if err != nil {
			return nil, h.problemOf(ctx, err, ofRun)
		}
		return &runOutput{run}, nil
	})
	h.routeSignal()
	huma.Register(h.huma, h.operation("decideRun", http.MethodPost, "/api/v1/runs/{id}/decision", "runs", "Ask what was decided",
		"For participants that are in doubt. Of a run that there is not, the answer is aborted, and it is durable: a run of this id can then not be started any more.",
		409, 422, 503),
		func(ctx context.Context, in *runPath) (*decisionOutput, error) {
			d, err := h.svc.Decision(ctx, string(in.ID))
			if err != nil {
				return nil, h.problemOf(ctx, err, ofRun)
			}
			return &decisionOutput{d}, nil
		})
	h.routeOrder("retry", "Try a stalled step again, or start an ended run anew",
		"An ended run is never reopened: retrying it starts a new, linked run, which is what is returned.", h.svc.Retry)
	h.routeOrder("skip", "Leave a stalled step undone",
		"A skipped compensation marks the run as waived, for ever visible. A reason is required.", h.svc.Skip)
	h.routeOrder("resolve", "Say how a stalled step ended",
		"With applied the effect has happened, and output is what the step would have returned.", h.svc.Resolve)
}

func (h *Handler) routeOrder(name, summary, description string, do order) {
	op := h.operation(name+"Run", http.MethodPost, "/api/v1/runs/{id}/"+name, "runs", summary, description, 404, 409, 410, 413, 422, 503)
	op.MaxBodyBytes = h.maxStartBody() + 1
	huma.Register(h.huma, op, func(ctx context.Context, in *settleInput) (*runOutput, error) {
		var s rest.Settle
		if in.Body != nil {
			s = *in.Body
		}
		run, err := do(ctx, string(in.ID), s)
		if err != nil {
			return nil, h.problemOf(ctx, err, inBodyOfRun(s))
		}
		return &runOutput{run}, nil
	})
}

// inBodyOfRun tells the id in the path from the id of the run to be made.
func inBodyOfRun(s rest.Settle) locator {
	return func(field string) string {
		if field == "id" && s.ID != "" {
			return inBody(field)
		}
		return ofRun(field)
	}
}
