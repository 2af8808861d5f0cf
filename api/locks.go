package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

type locksInput struct {
	Name   string `query:"name" maxLength:"255" doc:"Name of a lock: only this one." example:"account/42"`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"50" doc:"Locks in one page."`
	Cursor string `query:"cursor" maxLength:"512" doc:"The member next of the page before."`
}

type locksOutput struct{ Body rest.LockPage }

func (h *Handler) routeLocks() {
	huma.Register(h.huma, h.operation("listLocks", http.MethodGet, "/api/v1/locks", "locks", "List named locks",
		"Lists the named locks that runs hold, by name, with who holds each and who waits for it. A lock that nobody holds is not listed.", 422, 503),
		func(ctx context.Context, in *locksInput) (*locksOutput, error) {
			page, err := h.svc.Locks(ctx, rest.LockFilter{Name: in.Name, Limit: in.Limit, Cursor: in.Cursor})
			if err != nil {
				return nil, h.problemOf(ctx, err, inQuery)
			}
			if page.Locks == nil {
				page.Locks = []rest.Lock{}
			}
			return &locksOutput{page}, nil
		})
}
