package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// Register registers a workflow. It is idempotent: the first registration of a
// version makes new runs use it; repeating an older one does not bring it back
// (see Activate).
func (c *Client) Register(ctx context.Context, wf *definitions.Workflow) (rest.Workflow, error) {
	return c.RegisterJSON(ctx, wf.JSON())
}

// RegisterJSON registers a definition that is at hand as JSON.
func (c *Client) RegisterJSON(ctx context.Context, definition []byte) (rest.Workflow, error) {
	var w rest.Workflow
	err := c.do(ctx, call{name: "register workflow", method: http.MethodPost, path: path("workflows"), body: json.RawMessage(definition), answer: &w})
	return w, err
}

// Activate makes new runs of a workflow use a registered version.
func (c *Client) Activate(ctx context.Context, name, version string) (rest.Workflow, error) {
	var w rest.Workflow
	err := c.do(ctx, call{
		name: "activate workflow " + name, method: http.MethodPost, path: path("workflows", name, "activate"),
		body: rest.Activate{Version: version}, answer: &w,
	})
	return w, err
}

// Workflows lists every version of every workflow, without definitions.
func (c *Client) Workflows(ctx context.Context) ([]rest.Workflow, error) {
	var list rest.WorkflowList
	err := c.do(ctx, call{name: "list workflows", method: http.MethodGet, path: path("workflows"), answer: &list})
	return list.Workflows, err
}

// Workflow returns one version of a workflow with its definition; "" is the
// active version.
func (c *Client) Workflow(ctx context.Context, name, version string) (rest.Workflow, error) {
	var w rest.Workflow
	q := url.Values{}
	if version != "" {
		q.Set("version", version)
	}
	err := c.do(ctx, call{name: "get workflow " + name, method: http.MethodGet, path: path("workflows", name), query: q, answer: &w})
	return w, err
}

// Workers lists the workers that the orchestrator knows.
func (c *Client) Workers(ctx context.Context) ([]rest.Worker, error) {
	var list rest.WorkerList
	err := c.do(ctx, call{name: "list workers", method: http.MethodGet, path: path("workers"), answer: &list})
	return list.Workers, err
}

// Drain asks a worker, by its id, to finish what it runs and to leave.
func (c *Client) Drain(ctx context.Context, worker string) error {
	return c.do(ctx, call{name: "drain worker " + worker, method: http.MethodPost, path: path("workers", worker, "drain")})
}

// Ring returns a service's ring, or, with a task type, that of the workers that
// serve it; with a key, also where that key goes.
func (c *Client) Ring(ctx context.Context, service, taskType, key string) (rest.Ring, error) {
	var ring rest.Ring
	q := url.Values{}
	if taskType != "" {
		q.Set("type", taskType)
	}
	if key != "" {
		q.Set("key", key)
	}
	err := c.do(ctx, call{name: "get ring of " + service, method: http.MethodGet, path: path("services", service, "ring"), query: q, answer: &ring})
	return ring, err
}

// Stats returns the system at a glance.
func (c *Client) Stats(ctx context.Context) (rest.Stats, error) {
	var stats rest.Stats
	err := c.do(ctx, call{name: "get stats", method: http.MethodGet, path: path("stats"), answer: &stats})
	return stats, err
}

// Health returns what the orchestrator says about its parts.
func (c *Client) Health(ctx context.Context) (rest.Health, error) {
	var health rest.Health
	err := c.do(ctx, call{name: "get health", method: http.MethodGet, path: "/healthz", answer: &health})
	return health, err
}
