package api

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

type workflowInput struct {
	Name    string `path:"name" maxLength:"128" doc:"The workflow's name." example:"order-flow"`
	Version string `query:"version" maxLength:"64" doc:"A version; by default the active one."`
}

type activateInput struct {
	Name string `path:"name" maxLength:"128" doc:"The workflow's name." example:"order-flow"`
	Body rest.Activate
}

type registerInput struct {
	Body json.RawMessage `doc:"A definition, as the builders of package definitions write it."`
}

type registerOutput struct {
	Status int
	Body   rest.Workflow
}

type workflowOutput struct{ Body rest.Workflow }
type workflowsOutput struct{ Body rest.WorkflowList }

func (h *Handler) routeWorkflows() {
	huma.Register(h.huma, h.operation("listWorkflows", http.MethodGet, "/api/v1/workflows", "workflows", "List every version of every workflow", "", 503),
		func(ctx context.Context, _ *struct{}) (*workflowsOutput, error) {
			list, err := h.svc.Workflows(ctx)
			if err != nil {
				return nil, h.problemOf(ctx, err, inQuery)
			}
			if list == nil {
				list = []rest.Workflow{}
			}
			return &workflowsOutput{rest.WorkflowList{Workflows: list}}, nil
		})

	register := h.operation("registerWorkflow", http.MethodPost, "/api/v1/workflows", "workflows", "Register a definition",
		"Idempotent: 201 where the version is new, 200 where it exists. The first registration of a version makes it the active one; repeating an older one does not bring it back.",
		413, 422, 503)
	register.DefaultStatus = http.StatusCreated
	register.MaxBodyBytes = h.maxStartBody() + 1
	h.alsoAnswers(&register, http.StatusOK, "This version existed.", rest.Workflow{})
	huma.Register(h.huma, register, func(ctx context.Context, in *registerInput) (*registerOutput, error) {
		w, err := h.svc.RegisterWorkflow(ctx, in.Body)
		if err != nil {
			return nil, h.problemOf(ctx, err, inBody)
		}
		status := http.StatusOK
		if w.Created {
			status = http.StatusCreated
		}
		return &registerOutput{status, w}, nil
	})

	huma.Register(h.huma, h.operation("getWorkflow", http.MethodGet, "/api/v1/workflows/{name}", "workflows", "Show one version of a workflow, with its definition", "", 404, 422, 503),
		func(ctx context.Context, in *workflowInput) (*workflowOutput, error) {
			w, err := h.svc.Workflow(ctx, in.Name, in.Version)
			if err != nil {
				return nil, h.problemOf(ctx, err, ofWorkflow)
			}
			return &workflowOutput{w}, nil
		})

	activate := h.operation("activateWorkflow", http.MethodPost, "/api/v1/workflows/{name}/activate", "workflows", "Make new runs use a version", "", 404, 413, 422, 503)
	activate.MaxBodyBytes = maxSmallBody
	huma.Register(h.huma, activate, func(ctx context.Context, in *activateInput) (*workflowOutput, error) {
		err := h.svc.ActivateWorkflow(ctx, in.Name, in.Body.Version)
		if err != nil {
			return nil, h.problemOf(ctx, err, ofActivation)
		}
		w, err := h.svc.Workflow(ctx, in.Name, in.Body.Version)
		if err != nil {
			return nil, h.problemOf(ctx, err, ofActivation)
		}
		w.Definition = nil
		return &workflowOutput{w}, nil
	})
}

func ofWorkflow(field string) string {
	if field == "version" {
		return inQuery(field)
	}
	return "path.name"
}

func ofActivation(field string) string {
	if field == "version" {
		return inBody(field)
	}
	return "path.name"
}
