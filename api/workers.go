package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

type workersOutput struct{ Body rest.WorkerList }

type workerPath struct {
	ID string `path:"id" maxLength:"256" doc:"The worker's id or its name."`
}

type ringInput struct {
	Service string `path:"service" maxLength:"128" doc:"Name of a service." example:"payments"`
	Type    string `query:"type" maxLength:"128" doc:"A task type, with its version if it has one: the answer then has the workers that serve it." example:"payments.charge@2"`
	Key     string `query:"key" maxLength:"256" doc:"A routing key: the answer then says where it goes."`
}

type ringOutput struct{ Body rest.Ring }
type statsOutput struct{ Body rest.Stats }

func (h *Handler) routeWorkers() {
	huma.Register(h.huma, h.operation("listWorkers", http.MethodGet, "/api/v1/workers", "workers", "List workers", "", 503),
		func(ctx context.Context, _ *struct{}) (*workersOutput, error) {
			list, err := h.svc.Workers(ctx)
			if err != nil {
				return nil, h.problemOf(ctx, err, inQuery)
			}
			if list == nil {
				list = []rest.Worker{}
			}
			return &workersOutput{rest.WorkerList{Workers: list}}, nil
		})

	drain := h.operation("drainWorker", http.MethodPost, "/api/v1/workers/{id}/drain", "workers", "Ask a worker to finish and leave",
		"Answers 202 once the order was sent; the worker finishes what it runs, takes nothing new, and leaves.", 404, 422, 503)
	drain.DefaultStatus = http.StatusAccepted
	huma.Register(h.huma, drain, func(ctx context.Context, in *workerPath) (*struct{}, error) {
		if err := h.svc.DrainWorker(ctx, in.ID); err != nil {
			return nil, h.problemOf(ctx, err, inPath)
		}
		return nil, nil
	})

	huma.Register(h.huma, h.operation("getRing", http.MethodGet, "/api/v1/services/{service}/ring", "workers", "Show a service's ring", "", 404, 422, 503),
		func(ctx context.Context, in *ringInput) (*ringOutput, error) {
			ring, err := h.svc.Ring(ctx, in.Service, in.Type, in.Key)
			if err != nil {
				return nil, h.problemOf(ctx, err, inPath)
			}
			if ring.Members == nil {
				ring.Members = []rest.RingMember{}
			}
			return &ringOutput{ring}, nil
		})

	huma.Register(h.huma, h.operation("getStats", http.MethodGet, "/api/v1/stats", "system", "Show the system at a glance", "", 503),
		func(ctx context.Context, _ *struct{}) (*statsOutput, error) {
			stats, err := h.svc.Stats(ctx)
			if err != nil {
				return nil, h.problemOf(ctx, err, inQuery)
			}
			return &statsOutput{stats}, nil
		})
}

type healthOutput struct {
	Status int
	Body   rest.Health
}

// routeHealth registers liveness, which only says that the process answers,
// and readiness, which says whether it can take work.
func (h *Handler) routeHealth() {
	huma.Register(h.huma, h.operation("health", http.MethodGet, "/healthz", "system", "Tell whether the process lives",
		"Answers 200 as long as the process answers; the body says what is wrong."),
		func(ctx context.Context, _ *struct{}) (*healthOutput, error) {
			return &healthOutput{http.StatusOK, h.svc.Health(ctx)}, nil
		})
	ready := h.operation("ready", http.MethodGet, "/readyz", "system", "Tell whether the orchestrator can take work", "")
	h.alsoAnswers(&ready, http.StatusServiceUnavailable, "Not now: the body says why.", rest.Health{})
	huma.Register(h.huma, ready, func(ctx context.Context, _ *struct{}) (*healthOutput, error) {
		health := h.svc.Health(ctx)
		status := http.StatusOK
		select {
		case <-h.draining:
			health.Status = "degraded"
			status = http.StatusServiceUnavailable
		default:
			if health.Status != "ok" {
				status = http.StatusServiceUnavailable
			}
		}
		return &healthOutput{status, health}, nil
	})
}
