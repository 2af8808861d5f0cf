package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// Option changes how a typed workflow is started.
type Option func(*rest.Start)

// ID sets the run's id, which is its idempotency key.
func ID(id string) Option { return func(s *rest.Start) { s.ID = id } }

// Key sets the routing key; by default it is what the workflow says, else the id.
func Key(key string) Option { return func(s *rest.Start) { s.Key = key } }

// Priority sets the priority, 0 to 9: of waiting tasks, higher ones go first.
func Priority(p int) Option { return func(s *rest.Start) { s.Priority = p } }

// Tag adds a label to search by.
func Tag(name, value string) Option {
	return func(s *rest.Start) {
		if s.Tags == nil {
			s.Tags = map[string]string{}
		}
		s.Tags[name] = value
	}
}

// Deadline sets when the run turns back if it has not passed its pivot.
func Deadline(t time.Time) Option { return func(s *rest.Start) { s.Deadline = &t } }

// Handle is a started run whose output has the type Out.
type Handle[Out any] struct {
	rest.Started
	c *Client
}

// WaitResult is an ended run and its output.
type WaitResult[Out any] struct {
	Run    rest.RunDetail
	Output Out
}

// Start starts a run of a typed workflow. Where the orchestrator does not know
// the workflow yet, Start registers it first.
func Start[In, Out any](ctx context.Context, c *Client, wf definitions.TypedWorkflow[In, Out], in In, opts ...Option) (*Handle[Out], error) {
	input, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("start run of %s: encode input: %w", wf.Name(), err)
	}
	s := rest.Start{Workflow: wf.Name(), Input: input}
	for _, o := range opts {
		o(&s)
	}
	started, err := c.StartRun(ctx, s)
	if errors.Is(err, ErrNotFound) {
		if _, err = c.Register(ctx, wf.Workflow); err != nil {
			return nil, err
		}
		started, err = c.StartRun(ctx, s)
	}
	if err != nil {
		return nil, err
	}
	return &Handle[Out]{Started: started, c: c}, nil
}

// HandleOf returns the handle of a run that was started elsewhere, perhaps by
// an earlier incarnation of the program.
func HandleOf[In, Out any](c *Client, wf definitions.TypedWorkflow[In, Out], id string) *Handle[Out] {
	return &Handle[Out]{Started: rest.Started{ID: id, Workflow: wf.Name()}, c: c}
}

// Wait waits until the run has ended, as Client.Wait does. Where it ended
// other than succeeded or committed, the error is an *EndedError
// (ErrNotSucceeded), and the result holds the run without an output.
func (h *Handle[Out]) Wait(ctx context.Context) (WaitResult[Out], error) {
	var result WaitResult[Out]
	var err error
	if result.Run, err = h.c.Wait(ctx, h.ID); err != nil {
		return result, err
	}
	if !Succeeded(result.Run.Status) {
		return result, &EndedError{Run: result.Run}
	}
	if len(result.Run.Output) > 0 {
		if err := json.Unmarshal(result.Run.Output, &result.Output); err != nil {
			return result, fmt.Errorf("run %s: decode output: %w", h.ID, err)
		}
	}
	return result, nil
}

// Get returns the run as it is now.
func (h *Handle[Out]) Get(ctx context.Context) (rest.RunDetail, error) { return h.c.Get(ctx, h.ID) }

// Signal gives the run the signal of that name; payload is encoded as JSON.
func (h *Handle[Out]) Signal(ctx context.Context, name string, payload any) error {
	data, err := json.Marshal(payload)
	if err != nil {
		return fmt.Errorf("signal %s of run %s: encode its payload: %w", name, h.ID, err)
	}
	_, err = h.c.Signal(ctx, h.ID, name, rest.Signal{Payload: data})
	return err
}

// Cancel asks the run to turn back.
func (h *Handle[Out]) Cancel(ctx context.Context, reason string) error {
	_, err := h.c.Cancel(ctx, h.ID, rest.Cancel{Reason: reason})
	return err
}
