package client

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// Filter selects runs of a list. Zero fields select everything.
type Filter struct {
	Workflow   string
	Statuses   []string // such as "stalled"
	Key        string
	Tag        string // name=value
	IDPrefix   string
	FailedStep string
	Parent     string    // children of this run
	Since      time.Time // created at or after
	Until      time.Time // created before
	Limit      int       // of one page, 1 to 1,000; 0 is 50
	Cursor     string    // Next of the page before
}

func (f Filter) query() url.Values {
	q := url.Values{}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	set("workflow", f.Workflow)
	set("status", strings.Join(f.Statuses, ","))
	set("key", f.Key)
	set("tag", f.Tag)
	set("id_prefix", f.IDPrefix)
	set("failed_step", f.FailedStep)
	set("parent", f.Parent)
	set("cursor", f.Cursor)
	if !f.Since.IsZero() {
		q.Set("since", f.Since.UTC().Format(time.RFC3339Nano))
	}
	if !f.Until.IsZero() {
		q.Set("until", f.Until.UTC().Format(time.RFC3339Nano))
	}
	if f.Limit != 0 {
		q.Set("limit", strconv.Itoa(f.Limit))
	}
	return q
}

// newID returns an id for a run that has none.
func newID() (string, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", err
	}
	return id.String(), nil
}

// StartRun starts a run and returns once that is durable. A start without an
// id gets one. Where a run with the same id, workflow and input exists,
// Created is false; where they differ the error is ErrConflict.
func (c *Client) StartRun(ctx context.Context, s rest.Start) (rest.Started, error) {
	made := s.ID == ""
	if made {
		var err error
		if s.ID, err = newID(); err != nil {
			return rest.Started{}, err
		}
	}
	var started rest.Started
	err := c.do(ctx, call{name: "start run " + s.ID, method: http.MethodPost, path: path("runs"), body: s, answer: &started})
	if made && err == nil {
		started.Created = true // by an attempt of ours whose answer was lost, if not by this one
	}
	return started, err
}

// StartBatch starts many runs and returns an outcome for each, in order. More
// than rest.MaxBatch go in several requests; when one of them fails, the error
// comes with the outcomes of those before it. Starts without an id get one.
func (c *Client) StartBatch(ctx context.Context, starts []rest.Start) ([]rest.StartOutcome, error) {
	outcomes := make([]rest.StartOutcome, 0, len(starts))
	for len(starts) > 0 {
		n := min(len(starts), rest.MaxBatch)
		made := make([]bool, n)
		batch := rest.StartBatch{Runs: append([]rest.Start(nil), starts[:n]...)}
		for i := range batch.Runs {
			if made[i] = batch.Runs[i].ID == ""; made[i] {
				var err error
				if batch.Runs[i].ID, err = newID(); err != nil {
					return outcomes, err
				}
			}
		}
		var started rest.StartedBatch
		err := c.do(ctx, call{name: "start runs", method: http.MethodPost, path: path("runs", "batch"), body: batch, answer: &started})
		if err != nil {
			return outcomes, err
		}
		for i, o := range started.Runs {
			if o.Run != nil && i < n && made[i] {
				o.Run.Created = true
			}
			outcomes = append(outcomes, o)
		}
		starts = starts[n:]
	}
	return outcomes, nil
}

// Get returns a run with everything known about it.
func (c *Client) Get(ctx context.Context, id string) (rest.RunDetail, error) {
	var run rest.RunDetail
	err := c.do(ctx, call{name: "get run " + id, method: http.MethodGet, path: path("runs", id), answer: &run})
	return run, err
}

// History returns a run's events in order.
func (c *Client) History(ctx context.Context, id string) ([]rest.Event, error) {
	var list rest.EventList
	err := c.do(ctx, call{name: "get history of run " + id, method: http.MethodGet, path: path("runs", id, "history"), answer: &list})
	return list.Events, err
}

// ItemFilter selects items of a step that fans out. Zero fields select
// everything.
type ItemFilter struct {
	State  string // such as "failed"
	Limit  int    // of one page, 1 to 1,000; 0 is 100
	Cursor string // Next of the page before
}

// Items returns a page of the items of a step that fans out, in the order of its
// list.
func (c *Client) Items(ctx context.Context, id, step string, f ItemFilter) (rest.ItemPage, error) {
	q := url.Values{}
	if f.State != "" {
		q.Set("state", f.State)
	}
	if f.Limit != 0 {
		q.Set("limit", strconv.Itoa(f.Limit))
	}
	if f.Cursor != "" {
		q.Set("cursor", f.Cursor)
	}
	var page rest.ItemPage
	err := c.do(ctx, call{
		name: "list items of step " + step + " of run " + id, method: http.MethodGet, path: path("runs", id, "steps", step, "items"), query: q, answer: &page,
	})
	return page, err
}

// List returns one page of runs, newest first.
func (c *Client) List(ctx context.Context, f Filter) (rest.RunPage, error) {
	var page rest.RunPage
	err := c.do(ctx, call{name: "list runs", method: http.MethodGet, path: path("runs"), query: f.query(), answer: &page})
	return page, err
}

// All goes through all runs that a filter selects, page by page. It ends at
// the first error.
func (c *Client) All(ctx context.Context, f Filter) iter.Seq2[rest.Run, error] {
	return func(yield func(rest.Run, error) bool) {
		for {
			page, err := c.List(ctx, f)
			if err != nil {
				yield(rest.Run{}, err)
				return
			}
			for _, run := range page.Runs {
				if !yield(run, nil) {
					return
				}
			}
			if page.Next == "" {
				return
			}
			f.Cursor = page.Next
		}
	}
}

// Decision asks what was decided of a TCC or two-phase-commit run, as a
// participant does that is in doubt. Of a run that the orchestrator does not
// know the answer is aborted, and a run of this id can then not be started any
// more: ask for none that is still to be started. It is ErrConflict for a saga.
func (c *Client) Decision(ctx context.Context, id string) (rest.Decision, error) {
	var d rest.Decision
	err := c.do(ctx, call{name: "ask for the decision of run " + id, method: http.MethodPost, path: path("runs", id, "decision"), answer: &d})
	return d, err
}

// Cancel asks a run to turn back. It returns the run as it is then, which may
// still be compensating; Wait tells the end.
func (c *Client) Cancel(ctx context.Context, id string, o rest.Cancel) (rest.Run, error) {
	return c.order(ctx, "cancel", id, o, false)
}

// Signal gives a run the signal of that name, which a step waits for or will;
// the payload is that step's output. The id tells a repetition: with one that the
// run has received, nothing is received again. Without an id it gets a new one,
// so that this call may repeat the request after an outage.
func (c *Client) Signal(ctx context.Context, id, name string, s rest.Signal) (rest.Signalled, error) {
	var out rest.Signalled
	own := s.ID == ""
	if own {
		signal, err := uuid.NewV7()
		if err != nil {
			return out, err
		}
		s.ID = signal.String()
	}
	err := c.do(ctx, call{
		name: "signal run " + id, method: http.MethodPost, path: path("runs", id, "signals", name), body: s, answer: &out,
	})
	out.Received = err == nil && (out.Received || own) // with an id of its own, it was by an earlier sending of this call
	return out, err
}

// Retry tries a stalled step again; of an ended run it starts a new, linked
// run, which it returns.
func (c *Client) Retry(ctx context.Context, id string, o rest.Settle) (rest.Run, error) {
	return c.order(ctx, "retry", id, o, o.ID == "")
}

// Skip leaves a stalled step undone, for a reason.
func (c *Client) Skip(ctx context.Context, id string, o rest.Settle) (rest.Run, error) {
	return c.order(ctx, "skip", id, o, true)
}

// Resolve says how a stalled step ended.
func (c *Client) Resolve(ctx context.Context, id string, o rest.Settle) (rest.Run, error) {
	return c.order(ctx, "resolve", id, o, true)
}

func (c *Client) order(ctx context.Context, verb, id string, body any, once bool) (rest.Run, error) {
	var run rest.Run
	err := c.do(ctx, call{name: verb + " run " + id, method: http.MethodPost, path: path("runs", id, verb), body: body, answer: &run, once: once})
	return run, err
}

// Bounds of the polls that a wait is made of.
const (
	pollTimeout = 30 * time.Second
	// stalledPause is between two looks at a stalled run, for which a long
	// poll does not wait.
	stalledPause = 2 * time.Second
)

// Poll waits until a run has ended or stalled or the timeout (at most a
// minute) has passed, and returns it as it is then.
func (c *Client) Poll(ctx context.Context, id string, timeout time.Duration) (rest.Run, error) {
	var run rest.Run
	err := c.do(ctx, call{
		name: "wait for run " + id, method: http.MethodGet, path: path("runs", id, "wait"),
		query: url.Values{"timeout": {timeout.String()}}, answer: &run, timeout: timeout + c.cfg.RequestTimeout,
	})
	return run, err
}

// Wait waits until a run has ended, however long that takes, and returns it
// with its output. Of a run that was removed, only how it ended is known
// (Removed is set). A stalled run has not ended: it is waited for until an
// operator settles it (see Poll for those who want to know). Outages of the
// orchestrator are waited out. Only ctx bounds the wait.
func (c *Client) Wait(ctx context.Context, id string) (rest.RunDetail, error) {
	for {
		run, err := c.Poll(ctx, id, pollTimeout)
		switch {
		case ctx.Err() != nil:
			return rest.RunDetail{}, context.Cause(ctx)
		case errors.Is(err, ErrUnavailable) || errors.Is(err, ErrOverloaded):
			run.Status = "" // an outage: ask again below
		case err != nil:
			return rest.RunDetail{}, err
		case run.Removed != nil:
			return rest.RunDetail{Run: run}, nil
		case Ended(run.Status):
			d, err := c.Get(ctx, id)
			if errors.Is(err, ErrRemoved) { // since then
				return rest.RunDetail{Run: run}, nil
			}
			return d, err
		}
		if err == nil && run.Status != "stalled" {
			continue
		}
		select {
		case <-ctx.Done():
			return rest.RunDetail{}, context.Cause(ctx)
		case <-time.After(stalledPause):
		}
	}
}

// Ended tells whether a status is final.
func Ended(status string) bool {
	switch status {
	case "succeeded", "compensated", "committed", "aborted":
		return true
	}
	return false
}

// Succeeded tells whether a run with this status did what it was for.
func Succeeded(status string) bool { return status == "succeeded" || status == "committed" }
