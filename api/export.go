package api

import (
	"bytes"
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ringmaster-dev/ringmaster/archive"
)

type exportInput struct {
	All      bool      `query:"all" doc:"Also runs that have not ended."`
	Workflow string    `query:"workflow" maxLength:"128" doc:"Name of a workflow."`
	Status   []string  `query:"status" enum:"running,compensating,stalled,succeeded,compensated,committed,aborted" doc:"One status or several, with commas between."`
	Since    time.Time `query:"since" doc:"Created at or after this time (RFC 3339)."`
	Until    time.Time `query:"until" doc:"Created before this time (RFC 3339)."`
	Cursor   string    `query:"cursor" maxLength:"512" doc:"The header Ringmaster-Next of the page before."`
}

type exportOutput struct {
	ContentType string `header:"Content-Type"`
	Next        string `header:"Ringmaster-Next" doc:"Cursor of the next page; absent on the last."`
	Body        []byte
}

const linesType = "application/x-ndjson"

func (h *Handler) routeExport() {
	op := h.operation("exportRuns", http.MethodGet, "/api/v1/export", "runs", "Export runs, page by page",
		"Lines of JSON: definitions of workflows, runs with their histories, tombstones. A page may be empty and not the last. "+
			"An export file has a header before the pages, and an end after them, with the number of lines of each kind.", 422, 503)
	op.Responses["200"] = &huma.Response{
		Description: "A page", Content: map[string]*huma.MediaType{linesType: {Schema: &huma.Schema{Type: huma.TypeString}}},
	}
	huma.Register(h.huma, op, func(ctx context.Context, in *exportInput) (*exportOutput, error) {
		f := archive.Filter{All: in.All, Workflow: in.Workflow, Since: in.Since, Until: in.Until}
		for _, s := range in.Status {
			f.Statuses = append(f.Statuses, statuses[s])
		}
		var b bytes.Buffer
		next, err := h.svc.Export(ctx, f, in.Cursor, &b)
		if err != nil {
			return nil, h.problemOf(ctx, err, inQuery)
		}
		return &exportOutput{ContentType: linesType, Next: next, Body: b.Bytes()}, nil
	})
}
