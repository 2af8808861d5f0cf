package api_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ringmaster-dev/ringmaster/api"
	"github.com/ringmaster-dev/ringmaster/archive"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store"
)

var _ api.Service = (*memory)(nil)

// memory is a small service that keeps runs in a map. A run starts as running;
// cancelling it ends it as compensated.
type memory struct {
	mu        sync.Mutex
	runs      map[string]*rest.RunDetail
	order     []string
	workflows map[string]rest.Workflow
	changed   chan struct{}
	fail      error // answered by Stats
	waiting   chan struct{}
}

func newMemory() *memory {
	return &memory{
		runs:      map[string]*rest.RunDetail{},
		workflows: map[string]rest.Workflow{"flow": {Name: "flow", Version: "v1", Kind: "saga", Active: true}},
		changed:   make(chan struct{}),
		waiting:   make(chan struct{}, 16),
	}
}

func (m *memory) StartRun(_ context.Context, s rest.Start) (rest.Started, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.workflows[s.Workflow]; !ok {
		return rest.Started{}, &engine.Error{
			Kind: engine.KindNotFound, Code: "unknown_workflow", Field: "workflow",
			Message: fmt.Sprintf("no workflow %q is registered", s.Workflow), Hint: "register it first",
		}
	}
	if s.Key == "full" {
		return rest.Started{}, &engine.Error{Kind: engine.KindOverloaded, Code: "too_many_runs", Message: "too many", RetryAfter: 1500 * time.Millisecond}
	}
	if s.ID == "" {
		s.ID = fmt.Sprintf("made-%d", len(m.order))
	}
	if old, ok := m.runs[s.ID]; ok {
		if old.Workflow != s.Workflow || !bytes.Equal(old.Input, s.Input) {
			return rest.Started{}, &engine.Error{Kind: engine.KindConflict, Code: "run_exists", Field: "id", Message: "a run with this id has another input"}
		}
		return rest.Started{ID: s.ID, Workflow: s.Workflow, Version: "v1", Status: old.Status}, nil
	}
	m.runs[s.ID] = &rest.RunDetail{
		Run:   rest.Run{ID: s.ID, Workflow: s.Workflow, Version: "v1", Status: "running", Key: cmp.Or(s.Key, s.ID), Tags: s.Tags, Created: time.Unix(int64(len(m.order)), 0).UTC()},
		Input: s.Input, Deadline: s.Deadline, Steps: []rest.Step{{Name: "pay", Service: "payments", Action: "charge", State: "running"}},
	}
	m.order = append(m.order, s.ID)
	return rest.Started{ID: s.ID, Workflow: s.Workflow, Version: "v1", Status: "running", Created: true}, nil
}

func (m *memory) StartRuns(ctx context.Context, s []rest.Start) []rest.StartOutcome {
	out := make([]rest.StartOutcome, len(s))
	for i := range s {
		started, err := m.StartRun(ctx, s[i])
		if err != nil {
			out[i].Error = engine.Problem(err)
			continue
		}
		out[i].Run = &started
	}
	return out
}

func (m *memory) find(id string) (*rest.RunDetail, error) {
	r, ok := m.runs[id]
	if id == "removed" {
		return nil, &engine.Error{Kind: engine.KindGone, Code: engine.CodeRemoved, Field: "id", Message: "it was removed", Removed: &rest.Removed{Status: "succeeded"}}
	}
	if !ok {
		return nil, &engine.Error{Kind: engine.KindNotFound, Code: "unknown_run", Field: "id", Message: fmt.Sprintf("there is no run %q", id)}
	}
	return r, nil
}

func (m *memory) Run(_ context.Context, id string) (rest.RunDetail, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.find(id)
	if err != nil {
		return rest.RunDetail{}, err
	}
	return *r, nil
}

func (m *memory) Items(_ context.Context, id, step string, f engine.ItemFilter) (rest.ItemPage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.find(id); err != nil {
		return rest.ItemPage{}, err
	}
	if step != "ship" {
		return rest.ItemPage{}, &engine.Error{Kind: engine.KindNotFound, Code: "unknown_step", Field: "step", Message: "no such step"}
	}
	return rest.ItemPage{Items: []rest.Step{{Name: "ship[3]", State: cmp.Or(f.State, "succeeded")}}, Next: fmt.Sprint(f.Limit)}, nil
}

func (m *memory) History(_ context.Context, id string) ([]rest.Event, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.find(id); err != nil {
		return nil, err
	}
	return []rest.Event{{Seq: 1, Kind: "run_started", Text: "The run started."}}, nil
}

func (m *memory) Runs(_ context.Context, f store.Filter) (rest.RunPage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f.Cursor == "stale" {
		return rest.RunPage{}, fmt.Errorf("list runs: %w", store.ErrBadCursor)
	}
	var page rest.RunPage
	for _, id := range slices.Backward(m.order) {
		r := m.runs[id]
		running := len(f.Statuses) == 0 || slices.Contains(f.Statuses, store.StatusRunning)
		if strings.HasPrefix(id, f.IDPrefix) && running && (f.TagName == "" || r.Tags[f.TagName] == f.TagValue) {
			page.Runs = append(page.Runs, r.Run)
		}
	}
	return page, nil
}

func (m *memory) Export(_ context.Context, f archive.Filter, cursor string, w io.Writer) (string, error) {
	if cursor == "bad" {
		return "", &engine.Error{Kind: engine.KindInvalid, Code: "bad_cursor", Field: "cursor", Message: "not a cursor"}
	}
	_, err := fmt.Fprintf(w, "{\"all\":%t,\"workflow\":%q,\"statuses\":%d}\n", f.All, f.Workflow, len(f.Statuses))
	return "next of " + cursor, err
}

func (m *memory) Wait(ctx context.Context, id string, timeout time.Duration) (rest.Run, error) {
	m.mu.Lock()
	r, err := m.find(id)
	changed := m.changed
	m.mu.Unlock()
	if err != nil {
		return rest.Run{}, err
	}
	if r.Status != "running" {
		return r.Run, nil
	}
	m.waiting <- struct{}{}
	select {
	case <-changed:
	case <-time.After(timeout):
	case <-ctx.Done():
		return rest.Run{}, &engine.Error{Kind: engine.KindUnavailable, Code: "unanswered", Message: "gave up", RetryAfter: time.Second, Err: ctx.Err()}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return r.Run, nil
}

func (m *memory) Cancel(_ context.Context, id string, _ rest.Cancel) (rest.Run, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.find(id)
	if err != nil {
		return rest.Run{}, err
	}
	r.Status = "compensated"
	close(m.changed)
	m.changed = make(chan struct{})
	return r.Run, nil
}

func (m *memory) Signal(_ context.Context, id, name string, s rest.Signal) (rest.Signalled, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.find(id)
	switch {
	case err != nil:
		return rest.Signalled{}, &engine.Error{Kind: engine.KindNotFound, Code: "unknown_run", Field: "run", Message: "there is no such run"}
	case name != "approval":
		return rest.Signalled{}, &engine.Error{Kind: engine.KindNotFound, Code: "unknown_signal", Field: "name", Message: "no step waits for it"}
	case s.ID == "late":
		return rest.Signalled{}, &engine.Error{Kind: engine.KindConflict, Code: "run_ended", Message: "the run has ended"}
	}
	return rest.Signalled{ID: s.ID, Received: s.ID != "again", Run: r.Run}, nil
}

func (m *memory) Decision(_ context.Context, id string) (rest.Decision, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.find(id)
	switch {
	case err != nil:
		return rest.Decision{ID: id, Decision: "aborted"}, nil // presumed
	case r.Workflow == "flow":
		return rest.Decision{}, &engine.Error{Kind: engine.KindConflict, Code: "no_decision", Message: "the run is a saga"}
	}
	return rest.Decision{ID: id, Decision: cmp.Or(r.Decision, "undecided")}, nil
}

func (m *memory) settle(id string, s rest.Settle) (rest.Run, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := m.find(id)
	if err != nil {
		return rest.Run{}, err
	}
	if s.Step != "" && s.Step != "pay" {
		return rest.Run{}, &engine.Error{Kind: engine.KindNotFound, Code: "unknown_step", Field: "step", Message: "the workflow has no such step"}
	}
	return r.Run, nil
}

func (m *memory) Retry(_ context.Context, id string, s rest.Settle) (rest.Run, error) {
	return m.settle(id, s)
}
func (m *memory) Skip(_ context.Context, id string, s rest.Settle) (rest.Run, error) {
	return m.settle(id, s)
}
func (m *memory) Resolve(_ context.Context, id string, s rest.Settle) (rest.Run, error) {
	return m.settle(id, s)
}

func (m *memory) RegisterWorkflow(_ context.Context, definition []byte) (rest.Workflow, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var d struct{ Name string }
	if err := json.Unmarshal(definition, &d); err != nil || d.Name == "" {
		return rest.Workflow{}, &engine.Error{Kind: engine.KindInvalid, Code: "invalid_workflow", Field: "name", Message: "is required"}
	}
	_, exists := m.workflows[d.Name]
	w := rest.Workflow{Name: d.Name, Version: "v1", Kind: "saga", Active: true, Created: !exists}
	m.workflows[d.Name] = w
	return w, nil
}

func (m *memory) ActivateWorkflow(ctx context.Context, name, version string) error {
	_, err := m.Workflow(ctx, name, version)
	return err
}

func (m *memory) Workflows(context.Context) ([]rest.Workflow, error) {
	return []rest.Workflow{m.workflows["flow"]}, nil
}

func (m *memory) Workflow(_ context.Context, name, version string) (rest.Workflow, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w, ok := m.workflows[name]
	if !ok {
		return rest.Workflow{}, fmt.Errorf("workflow %q: %w", name, store.ErrNotFound)
	}
	if version != "" && version != w.Version {
		return rest.Workflow{}, &engine.Error{Kind: engine.KindNotFound, Code: "unknown_version", Field: "version", Message: "no such version"}
	}
	w.Definition = json.RawMessage(`{"name":"` + name + `"}`)
	return w, nil
}

func (m *memory) Workers(context.Context) ([]rest.Worker, error) { return nil, nil }

func (m *memory) Locks(_ context.Context, f rest.LockFilter) (rest.LockPage, error) {
	l := rest.Lock{Name: "account/1", Token: 7, Holders: []rest.LockHolder{{Run: "a", Since: time.Unix(1, 0).UTC()}}}
	if f.Name != "" && f.Name != l.Name || f.Cursor >= l.Name {
		return rest.LockPage{}, nil
	}
	return rest.LockPage{Locks: []rest.Lock{l}, Next: l.Name}, nil
}

func (m *memory) DrainWorker(_ context.Context, id string) error {
	if id != "w1" {
		return &engine.Error{Kind: engine.KindNotFound, Code: "unknown_worker", Field: "id", Message: "no such worker"}
	}
	return nil
}

func (m *memory) Ring(_ context.Context, service, taskType, key string) (rest.Ring, error) {
	return rest.Ring{Service: service, TaskType: taskType, Key: key}, nil
}

func (m *memory) Stats(context.Context) (rest.Stats, error) { return rest.Stats{}, m.fail }

func (m *memory) Health(context.Context) rest.Health {
	if m.fail != nil {
		return rest.Health{Status: "degraded", Checks: map[string]string{"broker": m.fail.Error()}}
	}
	return rest.Health{Status: "ok"}
}
