package api_test

import (
	"bytes"
	"errors"
	"net/http"
	"testing"

	"github.com/ringmaster-dev/ringmaster/api"
	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

func TestAnExportComesInPages(t *testing.T) {
	server := serve(t, api.Config{Service: newMemory()})
	c, err := client.New(client.Config{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	next, err := c.ExportPage(t.Context(), client.Filter{Workflow: "flow", Statuses: []string{"stalled", "succeeded"}, Cursor: "r:1:2"}, true, &b)
	if err != nil || next != "next of r:1:2" || b.String() != `{"all":true,"workflow":"flow","statuses":2}`+"\n" {
		t.Errorf("%q, then %q, %v", b.String(), next, err)
	}
	if _, err := c.ExportPage(t.Context(), client.Filter{Cursor: "bad"}, false, &b); err == nil {
		t.Error("a bad cursor was taken")
	}
	if a := ask(t, http.MethodGet, server.URL+"/api/v1/export?status=done", ""); a.status != http.StatusUnprocessableEntity {
		t.Errorf("a status that there is not is answered with %d", a.status)
	}
}

func TestARemovedRunIsGone(t *testing.T) {
	c, err := client.New(client.Config{URL: serve(t, api.Config{Service: newMemory()}).URL})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Get(t.Context(), "removed")
	var p *rest.Problem
	if !errors.Is(err, client.ErrRemoved) || !errors.As(err, &p) || p.Status != http.StatusGone || p.Code != engine.CodeRemoved ||
		p.Removed == nil || p.Removed.Status != "succeeded" {
		t.Errorf("the error is %v, and the problem %+v", err, p)
	}
}
