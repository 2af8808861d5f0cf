package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store"
)

// The bounds of a long poll.
const (
	DefaultWait = 30 * time.Second
	MaxWait     = time.Minute
)

// runID is the id of a run in a path.
type runID string

// Resolve refuses what cannot be the id of a run.
func (id *runID) Resolve(huma.Context) []error {
	if rule := brokenIDRule(string(*id)); rule != "" {
		return []error{&huma.ErrorDetail{Location: "path.id", Message: rule, Value: string(*id)}}
	}
	return nil
}

// runPath names a run.
type runPath struct {
	ID runID `path:"id" maxLength:"200" doc:"The run's id." example:"order-1042"`
}

type startInput struct{ Body rest.Start }

// Resolve checks what the schema cannot say.
func (in *startInput) Resolve(huma.Context) []error {
	return startFaults(nil, &in.Body, "body")
}

type startOutput struct {
	Status int
	Body   rest.Started
}

type batchInput struct{ Body rest.StartBatch }

// Resolve checks what the schema cannot say.
func (in *batchInput) Resolve(huma.Context) []error {
	var errs []error
	for i := range in.Body.Runs {
		errs = startFaults(errs, &in.Body.Runs[i], batchEntry(i))
	}
	return errs
}

type batchOutput struct{ Body rest.StartedBatch }
type runOutput struct{ Body rest.Run }
type detailOutput struct{ Body rest.RunDetail }
type pageOutput struct{ Body rest.RunPage }
type eventsOutput struct{ Body rest.EventList }
type decisionOutput struct{ Body rest.Decision }

type listInput struct {
	Workflow   string    `query:"workflow" maxLength:"128" doc:"Name of a workflow."`
	Status     []string  `query:"status" enum:"running,compensating,stalled,succeeded,compensated,committed,aborted" doc:"One status or several, with commas between."`
	Key        string    `query:"key" maxLength:"256" doc:"Routing key."`
	Tag        string    `query:"tag" maxLength:"400" doc:"A label, as name=value." example:"region=eu"`
	IDPrefix   string    `query:"id_prefix" maxLength:"200" doc:"What the run's id begins with."`
	FailedStep string    `query:"failed_step" maxLength:"64" doc:"The step that turned or stalled the run."`
	Parent     string    `query:"parent" maxLength:"200" doc:"Id of the run of which they are children."`
	Since      time.Time `query:"since" doc:"Created at or after this time (RFC 3339)."`
	Until      time.Time `query:"until" doc:"Created before this time (RFC 3339)."`
	Limit      int       `query:"limit" minimum:"1" maximum:"1000" default:"50" doc:"Runs in one page."`
	Cursor     string    `query:"cursor" maxLength:"512" doc:"The member next of the page before."`

	tagName, tagValue string
}

// Resolve takes the label apart.
func (in *listInput) Resolve(huma.Context) []error {
	if in.Tag == "" {
		return nil
	}
	var ok bool
	if in.tagName, in.tagValue, ok = strings.Cut(in.Tag, "="); !ok || in.tagName == "" {
		return []error{&huma.ErrorDetail{Location: "query.tag", Message: "expected name=value", Value: in.Tag}}
	}
	return nil
}

func (in *listInput) filter() store.Filter {
	f := store.Filter{
		Workflow: in.Workflow, Key: in.Key, TagName: in.tagName, TagValue: in.tagValue,
		IDPrefix: in.IDPrefix, FailedStep: in.FailedStep, Parent: in.Parent,
		Since: in.Since, Until: in.Until, Limit: in.Limit, Cursor: in.Cursor,
	}
	for _, s := range in.Status {
		f.Statuses = append(f.Statuses, statuses[s])
	}
	return f
}

var statuses = map[string]store.Status{
	"running": store.StatusRunning, "compensating": store.StatusCompensating, "stalled": store.StatusStalled,
	"succeeded": store.StatusSucceeded, "compensated": store.StatusCompensated,
	"committed": store.StatusCommitted, "aborted": store.StatusAborted,
}

type waitInput struct {
	ID      runID  `path:"id" maxLength:"200" doc:"The run's id."`
	Timeout string `query:"timeout" default:"30s" doc:"How long to wait at most: a duration up to 1m." example:"30s"`

	timeout time.Duration
}

// Resolve reads the duration.
func (in *waitInput) Resolve(huma.Context) []error {
	d, err := time.ParseDuration(in.Timeout)
	if err != nil || d < 0 || d > MaxWait {
		return []error{&huma.ErrorDetail{
			Location: "query.timeout", Message: "expected a duration from 0s to 1m, such as 30s", Value: in.Timeout,
		}}
	}
	in.timeout = d
	return nil
}

// Paths of the routes that have a decoder of their own.
const (
	pathRuns  = "/api/v1/runs"
	pathBatch = "/api/v1/runs/batch"
)

func (h *Handler) routeRuns() {
	start := h.operation("startRun", http.MethodPost, pathRuns, "runs", "Start a run",
		"Answers 201 once the start is durable; 200 where a run with this id, workflow and input exists already; 409 where it exists and they differ.",
		404, 409, 413, 422, 429, 503)
	start.DefaultStatus = http.StatusCreated
	start.MaxBodyBytes = h.maxStartBody() + 1
	h.alsoAnswers(&start, http.StatusOK, "A run with this id, workflow and input existed.", rest.Started{})
	huma.Register(h.huma, start, h.startRun)

	batch := h.operation("startRuns", http.MethodPost, pathBatch, "runs", "Start up to 1,000 runs",
		"A batch that breaks the schema is refused as a whole and starts nothing. Otherwise every entry is answered for itself, in order.",
		413, 422, 429, 503)
	batch.MaxBodyBytes = h.cfg.MaxBatchBytes + 1
	huma.Register(h.huma, batch, h.startRuns)

	huma.Register(h.huma, h.operation("listRuns", http.MethodGet, pathRuns, "runs", "List runs, newest first", "", 422, 503),
		func(ctx context.Context, in *listInput) (*pageOutput, error) {
			page, err := h.svc.Runs(ctx, in.filter())
			if err != nil {
				return nil, h.problemOf(ctx, err, inQuery)
			}
			if page.Runs == nil {
				page.Runs = []rest.Run{}
			}
			return &pageOutput{page}, nil
		})
	huma.Register(h.huma, h.operation("getRun", http.MethodGet, "/api/v1/runs/{id}", "runs", "Show a run with its steps",
		"Of a run that has ended and was removed because of its age, the answer is 410, and says how it had ended.", 404, 410, 422, 503),
		func(ctx context.Context, in *runPath) (*detailOutput, error) {
			run, err := h.svc.Run(ctx, string(in.ID))
			if err != nil {
				return nil, h.problemOf(ctx, err, ofRun)
			}
			return &detailOutput{run}, nil
		})
	huma.Register(h.huma, h.operation("getHistory", http.MethodGet, "/api/v1/runs/{id}/history", "runs", "Show a run's history", "", 404, 410, 422, 503),
		func(ctx context.Context, in *runPath) (*eventsOutput, error) {
			events, err := h.svc.History(ctx, string(in.ID))
			if err != nil {
				return nil, h.problemOf(ctx, err, ofRun)
			}
			if events == nil {
				events = []rest.Event{}
			}
			return &eventsOutput{rest.EventList{Events: events}}, nil
		})
	huma.Register(h.huma, h.operation("listItems", http.MethodGet, "/api/v1/runs/{id}/steps/{step}/items", "runs", "List the items of a step that fans out",
		"In the order of the list; none before the step has fanned out.", 404, 410, 422, 503), h.listItems)
	huma.Register(h.huma, h.operation("waitRun", http.MethodGet, "/api/v1/runs/{id}/wait", "runs", "Wait for a run",
		"Answers with the run as it is once it has ended or stalled, or when the timeout has passed: look at its status. Of a run that was removed, the answer tells how it had ended.", 404, 422, 503), h.waitRun)
}

type itemsInput struct {
	ID     runID  `path:"id" maxLength:"200" doc:"The run's id."`
	Step   string `path:"step" maxLength:"64" doc:"Name of the step."`
	State  string `query:"state" enum:"pending,waiting,running,retrying,succeeded,skipped,failed,unknown,compensating,compensated,stalled,waived,resolved" doc:"Items in this state only."`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Items in one page."`
	Cursor string `query:"cursor" maxLength:"20" doc:"The member next of the page before."`
}

type itemsOutput struct{ Body rest.ItemPage }

func (h *Handler) listItems(ctx context.Context, in *itemsInput) (*itemsOutput, error) {
	page, err := h.svc.Items(ctx, string(in.ID), in.Step, engine.ItemFilter{State: in.State, Limit: in.Limit, Cursor: in.Cursor})
	if err != nil {
		return nil, h.problemOf(ctx, err, ofItems)
	}
	return &itemsOutput{page}, nil
}

func (h *Handler) startRun(ctx context.Context, in *startInput) (*startOutput, error) {
	started, err := h.svc.StartRun(ctx, in.Body)
	if err != nil {
		return nil, h.problemOf(ctx, err, inBody)
	}
	return &startOutput{startStatus(started), started}, nil
}

func startStatus(s rest.Started) int {
	if s.Created {
		return http.StatusCreated
	}
	return http.StatusOK
}

func (h *Handler) startRuns(ctx context.Context, in *batchInput) (*batchOutput, error) {
	return &batchOutput{h.startAll(ctx, in.Body.Runs)}, nil
}

// waitRun holds the request until the run has ended or stalled, the timeout
// has passed, or the server wants to shut down.
func (h *Handler) waitRun(ctx context.Context, in *waitInput) (*runOutput, error) {
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-h.draining:
			stop()
		case <-waiting.Done():
		}
	}()
	run, err := h.svc.Wait(waiting, string(in.ID), in.timeout)
	if err != nil && waiting.Err() != nil && ctx.Err() == nil {
		var detail rest.RunDetail
		detail, err = h.svc.Run(ctx, string(in.ID))
		run = detail.Run
	}
	if err != nil {
		return nil, h.problemOf(ctx, err, ofRun)
	}
	return &runOutput{run}, nil
}
