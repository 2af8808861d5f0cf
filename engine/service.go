package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store"
)

// MaxIDBytes bounds a run's id, MaxKeyBytes its routing key.
const (
	MaxIDBytes  = protocol.MaxNameBytes
	MaxKeyBytes = protocol.MaxRoutingKeyBytes
)

// StartRun starts a run, and returns once that is durable. It is idempotent:
// the same id, workflow and input give the same run.
func (e *Engine) StartRun(ctx context.Context, s rest.Start) (rest.Started, error) {
	type answer struct {
		started rest.Started
		err     error
	}
	done := make(chan answer, 1)
	orders, err := e.prepare(ctx, []rest.Start{s}, func(_ int, st rest.Started, err error) { done <- answer{st, err} })
	if err != nil {
		return rest.Started{}, err
	}
	e.post(orders)
	select {
	case a := <-done:
		return a.started, a.err
	case <-ctx.Done():
		return rest.Started{}, unanswered(ctx)
	case <-e.background.Done():
		return rest.Started{}, errStopping()
	}
}

// StartRuns starts many runs, with an answer for each; those of one shard share
// a commit.
func (e *Engine) StartRuns(ctx context.Context, starts []rest.Start) []rest.StartOutcome {
	out := make([]rest.StartOutcome, len(starts))
	fail := func(i int, err error) { out[i] = rest.StartOutcome{Error: Problem(err)} }
	if len(starts) > e.cfg.Limits.MaxBatch {
		for i := range out {
			fail(i, invalid("batch_too_large", "", "a batch holds at most %d starts", e.cfg.Limits.MaxBatch))
		}
		return out
	}
	var pending sync.WaitGroup
	pending.Add(len(starts))
	orders, err := e.prepare(ctx, starts, func(i int, st rest.Started, err error) {
		defer pending.Done()
		if err != nil {
			fail(i, err)
			return
		}
		out[i].Run = &st
	})
	if err != nil {
		for i := range out {
			fail(i, err)
		}
		return out
	}
	e.post(orders)
	all := make(chan struct{})
	go func() { pending.Wait(); close(all) }()
	select {
	case <-all:
		return out
	case <-ctx.Done():
		err = unanswered(ctx)
	case <-e.background.Done():
		err = errStopping()
	}
	// The answers that still come write into out: leave it to them.
	lost := make([]rest.StartOutcome, len(starts))
	for i := range lost {
		lost[i] = rest.StartOutcome{Error: Problem(err)}
	}
	return lost
}

func unanswered(ctx context.Context) error {
	return &Error{
		Kind: KindUnavailable, Code: "unanswered", Message: "the answer did not come in time; the run may have been started",
		Hint: "repeat with the same id", RetryAfter: time.Second, Err: context.Cause(ctx),
	}
}

// prepare checks starts. done is called for each exactly once: here for those
// that are refused or exist, later for the orders returned.
func (e *Engine) prepare(ctx context.Context, starts []rest.Start, done func(int, rest.Started, error)) ([]*startOrder, error) {
	if err := e.serving(); err != nil {
		return nil, err
	}
	n := int64(len(starts))
	if e.unfinished.Load()+n > int64(e.cfg.Limits.MaxUnfinished) {
		e.metrics.shed.WithLabelValues("unfinished").Add(float64(n))
		return nil, overloaded("unfinished_runs", fmt.Sprintf("%d runs have not ended, which is the limit", e.cfg.Limits.MaxUnfinished))
	}
	if e.starting.Add(n) > int64(e.cfg.Limits.MaxStarting) {
		e.starting.Add(-n)
		e.metrics.shed.WithLabelValues("starting").Add(float64(n))
		return nil, overloaded("starting_runs", "too many starts are under way")
	}
	answered := func(i int, st rest.Started, err error) {
		e.starting.Add(-1)
		done(i, st, err)
	}
	orders := make([]*startOrder, 0, len(starts))
	known, lookedUp, err := e.lookUp(ctx, starts)
	if err != nil {
		e.starting.Add(-n)
		return nil, err
	}
	for i := range starts {
		o, err := e.order(ctx, &starts[i])
		if err != nil {
			answered(i, rest.Started{}, err)
			continue
		}
		if row, ok := known[o.id]; ok {
			st, err := repeated(row, o)
			answered(i, st, err)
			continue
		}
		o.lookedUp = lookedUp
		o.reply = func(st rest.Started, err error) { answered(i, st, err) }
		orders = append(orders, o)
	}
	return orders, nil
}

func overloaded(code, message string) *Error {
	return &Error{Kind: KindOverloaded, Code: code, Message: message, RetryAfter: time.Second}
}

// lookUp returns the runs that exist of those to be started.
func (e *Engine) lookUp(ctx context.Context, starts []rest.Start) (map[string]*store.Run, time.Duration, error) {
	ids := make([]string, 0, len(starts))
	for i := range starts {
		if id := starts[i].ID; id != "" && len(id) <= MaxIDBytes {
			ids = append(ids, id)
		}
	}
	at := e.clock.since()
	if len(ids) == 0 {
		return nil, at, nil
	}
	rows, err := e.cfg.Store.Lookup(ctx, ids)
	if err != nil {
		return nil, 0, storeError("look up run", err)
	}
	known := make(map[string]*store.Run, len(rows))
	for i := range rows {
		known[rows[i].ID] = &rows[i]
	}
	return known, at, nil
}

// order checks one start.
func (e *Engine) order(ctx context.Context, s *rest.Start) (*startOrder, error) {
	if err := e.checkStart(s); err != nil {
		return nil, err
	}
	wf, err := e.workflows.current(ctx, s.Workflow)
	if err != nil {
		return nil, err
	}
	o := &startOrder{wf: wf, id: s.ID, key: s.Key, tags: s.Tags, priority: uint8(s.Priority)}
	if o.input, err = e.compact("input", s.Input); err != nil {
		return nil, err
	}
	if o.id == "" {
		o.id, o.fresh = uuid.Must(uuid.NewV7()).String(), true
	}
	if s.Deadline != nil {
		o.deadline = *s.Deadline
	}
	o.hash = inputHash(s.Workflow, o.input)
	return o, nil
}

func (e *Engine) checkStart(s *rest.Start) error {
	if s.Workflow == "" {
		return invalid("required", "workflow", "is required")
	}
	if err := checkID("id", s.ID, MaxIDBytes); err != nil {
		return err
	}
	if strings.Contains(s.ID, " ") {
		return invalid("spaces", "id", "must not contain spaces")
	}
	if err := checkID("key", s.Key, MaxKeyBytes); err != nil {
		return err
	}
	if s.Priority < 0 || s.Priority > maxPriority {
		return invalid("out_of_range", "priority", "is %d; it must be between 0 and %d", s.Priority, maxPriority)
	}
	if len(s.Tags) > e.cfg.Limits.MaxTags {
		return invalid("too_many_tags", "tags", "at most %d", e.cfg.Limits.MaxTags)
	}
	for k, v := range s.Tags {
		if k == "" || len(k) > 64 || len(v) > 256 || !printable(k) || !printable(v) {
			return invalid("bad_tag", "tags", "%.64q: a name has 1 to 64 bytes, a value at most 256, all printable", k)
		}
	}
	return nil
}

// checkID refuses what would break lists, logs or headers.
func checkID(field, s string, limit int) error {
	if len(s) > limit {
		return invalid("too_long", field, "is %d bytes long; at most %d", len(s), limit)
	}
	if !printable(s) {
		return invalid("not_printable", field, "must be printable UTF-8, without control characters")
	}
	return nil
}

func printable(s string) bool {
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// compact checks a payload and removes its insignificant space.
func (e *Engine) compact(field string, p json.RawMessage) ([]byte, error) {
	if len(p) > e.cfg.Limits.MaxPayloadBytes {
		return nil, &Error{
			Kind: KindTooLarge, Code: "payload_too_large", Field: field,
			Message: fmt.Sprintf("is %d bytes long; at most %d", len(p), e.cfg.Limits.MaxPayloadBytes),
		}
	}
	if len(p) == 0 {
		return nil, nil
	}
	var b bytes.Buffer
	b.Grow(len(p))
	if err := json.Compact(&b, p); err != nil {
		return nil, invalid("not_json", field, "is not JSON: %v", err)
	}
	return b.Bytes(), nil
}

// post hands orders to their shards.
func (e *Engine) post(orders []*startOrder) {
	for _, o := range orders {
		e.shardFor(o.id).inbox.put(message{start: o})
	}
}

// Problem renders an error as a problem document.
func Problem(err error) *rest.Problem {
	var own *Error
	if !errors.As(err, &own) {
		return &rest.Problem{Title: "Internal Server Error", Status: 500, Detail: err.Error()}
	}
	status := map[Kind]int{
		KindInvalid: 422, KindNotFound: 404, KindConflict: 409, KindTooLarge: 413, KindOverloaded: 429, KindUnavailable: 503,
	}[own.Kind]
	p := &rest.Problem{Title: http.StatusText(status), Status: status, Detail: own.Error(), Code: own.Code}
	if own.Field != "" {
		p.Errors = []rest.FieldError{{Location: own.Field, Message: own.Message}}
	}
	return p
}

// Wait returns a run once it has ended or stalled, or, as it then is, when the
// timeout has passed.
func (e *Engine) Wait(ctx context.Context, id string, timeout time.Duration) (rest.Run, error) {
	ch := e.waiters.add(id)
	defer e.waiters.remove(id, ch)
	row, err := e.row(ctx, id)
	if err != nil {
		return rest.Run{}, err
	}
	if row.Status.Final() || row.Status == store.StatusStalled || timeout <= 0 {
		return runOf(&row), nil
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case row = <-ch:
		return runOf(&row), nil
	case <-timer.C:
	case <-ctx.Done():
		return rest.Run{}, &Error{Kind: KindUnavailable, Code: "cancelled", Message: "the caller went away", Err: context.Cause(ctx)}
	case <-e.waiters.closed:
		return rest.Run{}, errStopping()
	}
	if row, err = e.row(ctx, id); err != nil {
		return rest.Run{}, err
	}
	return runOf(&row), nil
}

func (e *Engine) row(ctx context.Context, id string) (store.Run, error) {
	row, err := e.cfg.Store.Run(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return row, unknownRun(id)
	}
	return row, storeError("read run", err)
}

// Cancel asks a run to turn back. It is idempotent; after the pivot it is
// recorded and changes nothing.
func (e *Engine) Cancel(ctx context.Context, id string, c rest.Cancel) (rest.Run, error) {
	if err := checkWhoAndWhy(c.By, c.Reason); err != nil {
		return rest.Run{}, err
	}
	row, err := e.row(ctx, id)
	if err != nil {
		return rest.Run{}, err
	}
	return e.instruct(ctx, row, machine.Cancel{By: c.By, Reason: c.Reason})
}

// Retry has a stalled step tried again, or starts a new run that repeats an
// ended one and is linked to it.
func (e *Engine) Retry(ctx context.Context, id string, s rest.Settle) (rest.Run, error) {
	if err := checkWhoAndWhy(s.By, s.Reason); err != nil {
		return rest.Run{}, err
	}
	row, err := e.row(ctx, id)
	if err != nil {
		return rest.Run{}, err
	}
	input, err := e.compact("input", s.Input)
	if err != nil {
		return rest.Run{}, err
	}
	if row.Status.Final() {
		return e.retryEnded(ctx, row, input, s)
	}
	step, err := e.stalledStep(ctx, row, s.Step)
	if err != nil {
		return rest.Run{}, err
	}
	return e.instruct(ctx, row, machine.Retry{Step: step, Input: input, By: s.By, Reason: s.Reason})
}

// retryEnded starts a run that repeats an ended one.
func (e *Engine) retryEnded(ctx context.Context, row store.Run, input []byte, s rest.Settle) (rest.Run, error) {
	if row.Status == store.StatusSucceeded || row.Status == store.StatusCommitted {
		return rest.Run{}, &Error{Kind: KindConflict, Code: "run_succeeded", Message: "the run has succeeded", Hint: "start a new run instead"}
	}
	r, err := e.folded(ctx, row)
	if err != nil {
		return rest.Run{}, err
	}
	key := row.Key
	if key == row.ID || input != nil { // it had none of its own, or the workflow may see another
		key = ""
	}
	if input == nil {
		input = r.state.Input()
	}
	if s.ID == "" {
		s.ID = uuid.Must(uuid.NewV7()).String()
	}
	type answer struct {
		started rest.Started
		err     error
	}
	done := make(chan answer, 1)
	orders, err := e.prepare(ctx, []rest.Start{{Workflow: row.Workflow, ID: s.ID, Input: input, Key: key, Priority: int(r.state.Priority()), Tags: row.Tags}},
		func(_ int, st rest.Started, err error) { done <- answer{st, err} })
	if err != nil {
		return rest.Run{}, err
	}
	for _, o := range orders {
		o.retryOf = row.ID
	}
	e.post(orders)
	select {
	case a := <-done:
		if a.err != nil {
			return rest.Run{}, a.err
		}
	case <-ctx.Done():
		return rest.Run{}, unanswered(ctx)
	case <-e.background.Done():
		return rest.Run{}, errStopping()
	}
	if row, err = e.row(ctx, s.ID); err != nil {
		return rest.Run{}, err
	}
	return runOf(&row), nil
}

// checkWhoAndWhy bounds what an order leaves in a run's history.
func checkWhoAndWhy(by, reason string) error {
	const maxBy, maxReason = 128, 1000
	if err := checkID("by", by, maxBy); err != nil {
		return err
	}
	if len(reason) > maxReason || !utf8.ValidString(reason) {
		return invalid("too_long", "reason", "must be UTF-8, at most %d bytes", maxReason)
	}
	return nil
}

// Skip settles a stalled step by leaving it.
func (e *Engine) Skip(ctx context.Context, id string, s rest.Settle) (rest.Run, error) {
	row, step, err := e.settle(ctx, id, s)
	if err != nil {
		return rest.Run{}, err
	}
	return e.instruct(ctx, row, machine.Skip{Step: step, By: s.By, Reason: s.Reason})
}

// Resolve settles a stalled step by what the operator knows of it.
func (e *Engine) Resolve(ctx context.Context, id string, s rest.Settle) (rest.Run, error) {
	row, step, err := e.settle(ctx, id, s)
	if err != nil {
		return rest.Run{}, err
	}
	output, err := e.compact("output", s.Output)
	if err != nil {
		return rest.Run{}, err
	}
	return e.instruct(ctx, row, machine.Resolve{Step: step, Applied: s.Applied, Output: output, By: s.By, Reason: s.Reason})
}

func (e *Engine) settle(ctx context.Context, id string, s rest.Settle) (store.Run, int, error) {
	row, err := e.row(ctx, id)
	if err != nil {
		return row, 0, err
	}
	if err := checkWhoAndWhy(s.By, s.Reason); err != nil {
		return row, 0, err
	}
	if s.Reason == "" {
		return row, 0, invalid("required", "reason", "is required: it is kept in the run's history")
	}
	step, err := e.stalledStep(ctx, row, s.Step)
	return row, step, err
}

// stalledStep is the index of a named step; without a name, of the only one
// that is stalled.
func (e *Engine) stalledStep(ctx context.Context, row store.Run, name string) (int, error) {
	if row.Status.Final() {
		return 0, settleError(machine.ErrEnded)
	}
	r, err := e.folded(ctx, row)
	if err != nil {
		return 0, err
	}
	if name != "" {
		if i := r.wf.StepIndex(name); i >= 0 {
			return i, nil
		}
		return 0, settleError(machine.ErrNoStep)
	}
	switch stalled := r.state.StalledSteps(nil); len(stalled) {
	case 0:
		return 0, settleError(machine.ErrNotStalled)
	case 1:
		return stalled[0], nil
	}
	return 0, invalid("required", "step", "is required: several steps are stalled")
}

// instruct gives an order to a run and returns its row once that is durable.
func (e *Engine) instruct(ctx context.Context, row store.Run, in machine.Input) (rest.Run, error) {
	if err := e.serving(); err != nil {
		return rest.Run{}, err
	}
	type answer struct {
		row store.Run
		err error
	}
	done := make(chan answer, 1)
	e.shardOf(row.Ref).inbox.put(message{ref: row.Ref, input: in, reply: func(r store.Run, err error) { done <- answer{r, err} }})
	select {
	case a := <-done:
		if a.err != nil {
			return rest.Run{}, settleError(a.err)
		}
		return runOf(&a.row), nil
	case <-ctx.Done():
		return rest.Run{}, unanswered(ctx)
	case <-e.background.Done():
		return rest.Run{}, errStopping()
	}
}
