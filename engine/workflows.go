package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store"
)

// workflow is a compiled definition with its metrics.
type workflow struct {
	wf     *definitions.Workflow
	series *workflowSeries
}

// workflows caches compiled definitions. Versions never change; which one is
// active does, and where orchestrators share a store any of them may change it.
type workflows struct {
	eng *Engine

	mu       sync.RWMutex
	versions map[[2]string]*workflow // by name and version
	active   map[string]active
}

// active is the version of a workflow that new runs use, as of some moment.
type active struct {
	*workflow
	read time.Duration // by the engine's clock
}

// activeValid is how long an orchestrator may go on to use a version after
// another one was activated elsewhere.
const activeValid = time.Second

func newWorkflows(e *Engine) *workflows {
	return &workflows{eng: e, versions: map[[2]string]*workflow{}, active: map[string]active{}}
}

// current returns the version of a workflow that new runs use.
func (c *workflows) current(ctx context.Context, name string) (*workflow, error) {
	c.mu.RLock()
	known := c.active[name]
	c.mu.RUnlock()
	now := c.eng.clock.since()
	if known.workflow != nil && (c.eng.cfg.Leases == nil || now-known.read < activeValid) {
		return known.workflow, nil
	}
	info, doc, err := c.eng.cfg.Store.Workflow(ctx, name, "")
	if errors.Is(err, store.ErrNotFound) {
		return nil, &Error{
			Kind: KindNotFound, Code: "unknown_workflow", Field: "workflow", Message: fmt.Sprintf("there is no workflow %q", name),
			Hint: "register it first: by a worker that holds it, the client, or `orchestrator workflow apply`",
		}
	}
	if err != nil {
		return nil, storeError("read workflow", err)
	}
	w, err := c.compile(info.Name, info.Version, doc)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.active[name] = active{w, now}
	c.mu.Unlock()
	return w, nil
}

// version returns one version of a workflow.
func (c *workflows) version(name, version string) (*workflow, error) {
	c.mu.RLock()
	w := c.versions[[2]string{name, version}]
	c.mu.RUnlock()
	if w != nil {
		return w, nil
	}
	_, doc, err := c.eng.cfg.Store.Workflow(c.eng.background, name, version)
	if err != nil {
		return nil, fmt.Errorf("workflow %s version %s: %w", name, version, err)
	}
	return c.compile(name, version, doc)
}

func (c *workflows) compile(name, version string, doc []byte) (*workflow, error) {
	c.mu.RLock()
	w := c.versions[[2]string{name, version}]
	c.mu.RUnlock()
	if w != nil {
		return w, nil
	}
	wf, err := definitions.Parse(doc)
	if err != nil {
		return nil, fmt.Errorf("stored workflow %s version %s: %w", name, version, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := [2]string{name, version}
	if w := c.versions[key]; w != nil {
		return w, nil
	}
	w = &workflow{wf: wf, series: c.eng.metrics.workflow(name)}
	c.versions[key] = w
	return w, nil
}

// forgetActive has the next start ask the store which version is active.
func (c *workflows) forgetActive(name string) {
	c.mu.Lock()
	delete(c.active, name)
	c.mu.Unlock()
}

// RegisterWorkflow registers a definition's JSON. It is idempotent; the first
// registration of a version makes new runs use it.
func (e *Engine) RegisterWorkflow(ctx context.Context, definition []byte) (rest.Workflow, error) {
	wf, err := definitions.Parse(definition)
	if err != nil {
		return rest.Workflow{}, definitionError(err)
	}
	info, created, err := e.cfg.Store.PutWorkflow(ctx, store.WorkflowInfo{
		Name: wf.Name(), Version: wf.Version(), Kind: string(wf.Kind()), Registered: e.clock.now(),
	}, wf.JSON())
	if err != nil {
		return rest.Workflow{}, storeError("register workflow", err)
	}
	if created {
		e.workflows.forgetActive(wf.Name())
		e.log.Info("workflow registered", "workflow", wf.Name(), "version", wf.Version())
	}
	out := workflowOf(info)
	out.Created = created
	return out, nil
}

func definitionError(err error) error {
	return &Error{Kind: KindInvalid, Code: "invalid_definition", Field: "definition", Message: err.Error(), Err: err}
}

// ActivateWorkflow makes new runs of a workflow use one of its versions.
func (e *Engine) ActivateWorkflow(ctx context.Context, name, version string) error {
	err := e.cfg.Store.ActivateWorkflow(ctx, name, version)
	if errors.Is(err, store.ErrNotFound) {
		return unknownVersion(name, version)
	}
	e.workflows.forgetActive(name)
	return storeError("activate workflow", err)
}

// Workflows lists every version of every workflow.
func (e *Engine) Workflows(ctx context.Context) ([]rest.Workflow, error) {
	infos, err := e.cfg.Store.Workflows(ctx)
	if err != nil {
		return nil, storeError("list workflows", err)
	}
	out := make([]rest.Workflow, len(infos))
	for i := range infos {
		out[i] = workflowOf(infos[i])
	}
	return out, nil
}

// Workflow returns a version of a workflow with its definition; version "" is
// the active one.
func (e *Engine) Workflow(ctx context.Context, name, version string) (rest.Workflow, error) {
	info, doc, err := e.cfg.Store.Workflow(ctx, name, version)
	if errors.Is(err, store.ErrNotFound) {
		return rest.Workflow{}, unknownVersion(name, version)
	}
	if err != nil {
		return rest.Workflow{}, storeError("read workflow", err)
	}
	out := workflowOf(info)
	out.Definition = doc
	return out, nil
}

func unknownVersion(name, version string) error {
	what := fmt.Sprintf("there is no workflow %q", name)
	if version != "" {
		what = fmt.Sprintf("workflow %q has no version %q", name, version)
	}
	return &Error{Kind: KindNotFound, Code: "unknown_workflow", Field: "workflow", Message: what}
}

func workflowOf(i store.WorkflowInfo) rest.Workflow {
	return rest.Workflow{Name: i.Name, Version: i.Version, Kind: i.Kind, Active: i.Active, Registered: i.Registered}
}
