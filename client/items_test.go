package client_test

import (
	"slices"
	"testing"

	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

func TestItemsAreListedPageByPage(t *testing.T) {
	c, s := newClient(t,
		answer{status: 200, body: rest.ItemPage{Items: []rest.Step{{Name: "ship[0]"}}, Next: "1"}},
		answer{status: 200, body: rest.ItemPage{Items: []rest.Step{{Name: "ship[1]"}}}})
	page, err := c.Items(t.Context(), "o-1", "ship", client.ItemFilter{State: "failed", Limit: 1})
	if err != nil || len(page.Items) != 1 {
		t.Fatalf("%+v, %v", page, err)
	}
	if page, err = c.Items(t.Context(), "o-1", "ship", client.ItemFilter{Cursor: page.Next}); err != nil || page.Items[0].Name != "ship[1]" {
		t.Fatalf("%+v, %v", page, err)
	}
	want := []string{"GET /api/v1/runs/o-1/steps/ship/items?limit=1&state=failed", "GET /api/v1/runs/o-1/steps/ship/items?cursor=1"}
	if !slices.Equal(s.calls, want) {
		t.Errorf("calls are %q", s.calls)
	}
}
