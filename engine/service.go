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
	return e.startOne(ctx, s, "")
}

// startOne starts a run, which may be the retry of another.
func (e *Engine) startOne(ctx context.Context, s rest.Start, retryOf string) (rest.Started, error) {
	r := e.startAll(ctx, []rest.Start{s}, retryOf)[0]
	return r.run, r.err
}

// answer is what a shard replies, once that is durable.
type answer[T any] struct {
	value T
	err   error
}

// await waits for an answer.
func await[T any](ctx context.Context, e *Engine, done <-chan answer[T]) (T, error) {
	var none T
	select {
	case a := <-done:
		return a.value, a.err
	case <-ctx.Done():
		return none, unanswered(ctx)
	case <-e.background.Done():
		return none, errStopping()
	}
}

// StartRuns starts many runs, with an answer for each; those of one shard share
// a commit.
func (e *Engine) StartRuns(ctx context.Context, starts []rest.Start) []rest.StartOutcome {
	out := make([]rest.StartOutcome, len(starts))
	if len(starts) > e.cfg.Limits.MaxBatch {
		for i := range out {
			out[i] = rest.StartOutcome{Error: Problem(invalid("batch_too_large", "", "a batch holds at most %d starts", e.cfg.Limits.MaxBatch))}
		}
		return out
	}
	for i, r := range e.startAll(ctx, starts, "") {
		if r.err != nil {
			out[i] = rest.StartOutcome{Error: Problem(r.err)}
		} else {
			out[i].Run = &r.run
		}
	}
	return out
}

// startResult is what became of one start.
type startResult struct {
	run rest.Started
	err error
}

// startAll starts runs, each where its shard is.
func (e *Engine) startAll(ctx context.Context, starts []rest.Start, retryOf string) []startResult {
	if e.cfg.Leases == nil {
		return e.startLocal(ctx, starts, retryOf)
	}
	return e.startAnywhere(ctx, starts, retryOf)
}

// startLocal starts runs of shards that are owned here.
func (e *Engine) startLocal(ctx context.Context, starts []rest.Start, retryOf string) []startResult {
	out := make([]startResult, len(starts))
	all := func(err error) []startResult {
		// The answers that still come write into out: leave it to them.
		out := make([]startResult, len(starts))
		for i := range out {
			out[i].err = err
		}
		return out
	}
	var pending sync.WaitGroup
	pending.Add(len(starts))
	orders, err := e.prepare(ctx, starts, func(i int, st rest.Started, err error) {
		defer pending.Done()
		out[i] = startResult{st, err}
	})
	if err != nil {
		return all(err)
	}
	for _, o := range orders {
		o.retryOf = retryOf
	}
	e.postOrders(orders)
	done := make(chan struct{})
	go func() { pending.Wait(); close(done) }()
	select {
	case <-done:
		return out
	case <-ctx.Done():
		return all(unanswered(ctx))
	case <-e.background.Done():
		return all(errStopping())
	}
}

// newID makes an id of a run, if it can one whose shard is here.
func (e *Engine) newID() string {
	id := uuid.Must(uuid.NewV7()).String()
	for range 4 * e.shards.count() {
		if e.owns(id) {
			break
		}
		id = uuid.Must(uuid.NewV7()).String()
	}
	return id
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
	known, buried, lookedUp, err := e.lookUp(ctx, starts)
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
		if tomb, ok := buried[o.id]; ok {
			st, err := repeatedRemoved(tomb, o)
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

// lookUp returns the runs that exist of those to be started, and the tombstones
// of the ids that have one.
func (e *Engine) lookUp(ctx context.Context, starts []rest.Start) (known map[string]*store.Run, buried map[string]*store.Tombstone, at time.Duration, err error) {
	ids := make([]string, 0, len(starts))
	for i := range starts {
		if id := starts[i].ID; id != "" && len(id) <= MaxIDBytes {
			ids = append(ids, id)
		}
	}
	at = e.clock.since()
	if len(ids) == 0 {
		return nil, nil, at, nil
	}
	rows, err := e.cfg.Store.Lookup(ctx, ids)
	if err != nil {
		return nil, nil, 0, storeError("look up run", err)
	}
	tombs, err := e.cfg.Store.Tombstones(ctx, ids)
	if err != nil {
		return nil, nil, 0, storeError("look for tombstones", err)
	}
	known = make(map[string]*store.Run, len(rows))
	for i := range rows {
		known[rows[i].ID] = &rows[i]
	}
	if len(tombs) > 0 {
		buried = make(map[string]*store.Tombstone, len(tombs))
	}
	for i := range tombs {
		buried[tombs[i].ID] = &tombs[i]
	}
	return known, buried, at, nil
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
		o.id, o.fresh = e.newID(), true
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
	return compactUpTo(e.cfg.Limits.MaxPayloadBytes, field, p)
}

func compactUpTo(limit int, field string, p json.RawMessage) ([]byte, error) {
	if len(p) > limit {
		return nil, &Error{
			Kind: KindTooLarge, Code: "payload_too_large", Field: field,
			Message: fmt.Sprintf("is %d bytes long; at most %d", len(p), limit),
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

// postOrders hands orders to their shards.
func (e *Engine) postOrders(orders []*startOrder) {
	for _, o := range orders {
		if !e.post(e.shardOf(o.id), message{start: o}) {
			o.refuse(errMoved())
		}
	}
}

// Problem renders an error as a problem document.
func Problem(err error) *rest.Problem {
	var own *Error
	if !errors.As(err, &own) {
		return &rest.Problem{Title: "Internal Server Error", Status: 500, Detail: err.Error()}
	}
	status := map[Kind]int{
		KindInvalid: 422, KindNotFound: 404, KindConflict: 409, KindTooLarge: 413, KindOverloaded: 429, KindUnavailable: 503, KindGone: 410,
	}[own.Kind]
	p := &rest.Problem{Title: http.StatusText(status), Status: status, Detail: own.Error(), Code: own.Code, Removed: own.Removed}
	if own.Field != "" {
		p.Errors = []rest.FieldError{{Location: own.Field, Message: own.Message}}
	}
	return p
}

// waitSlice is how long a wait goes on before the run is looked at again, which
// may have gone elsewhere in the meantime.
const waitSlice = 5 * time.Second

// Wait returns a run once it has ended or stalled, or, as it then is, when the
// timeout has passed.
func (e *Engine) Wait(ctx context.Context, id string, timeout time.Duration) (rest.Run, error) {
	until := time.Now().Add(timeout)
	for {
		left := time.Until(until)
		slice := min(left, waitSlice)
		var r rest.Run
		var err error
		switch {
		case e.owns(id) || left <= 0:
			r, err = e.waitHere(ctx, id, slice)
		default:
			r, err = ask[rest.Run](ctx, e, order{Method: errandWait, ID: id}, slice)
			var own *Error
			if errors.As(err, &own) && own.Kind == KindUnavailable && ctx.Err() == nil && e.serving() == nil {
				continue // its owner has gone: there will be another
			}
		}
		if err != nil || settledRun(&r) || time.Until(until) <= 0 {
			return r, err
		}
	}
}

// settledRun tells whether a run needs no more waiting.
func settledRun(r *rest.Run) bool {
	switch r.Status {
	case machine.Running.String(), machine.Compensating.String():
		return false
	}
	return true
}

// waitHere waits for a run that is owned here.
func (e *Engine) waitHere(ctx context.Context, id string, timeout time.Duration) (rest.Run, error) {
	ch := e.waiters.add(id)
	defer e.waiters.remove(id, ch)
	row, err := e.row(ctx, id)
	if run, ok := removedRun(id, err); ok {
		return run, nil
	}
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
	row, err = e.row(ctx, id)
	if run, ok := removedRun(id, err); ok {
		return run, nil
	}
	if err != nil {
		return rest.Run{}, err
	}
	return runOf(&row), nil
}

func (e *Engine) row(ctx context.Context, id string) (store.Run, error) {
	row, err := e.cfg.Store.Run(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return row, e.absent(ctx, id)
	}
	return row, storeError("read run", err)
}
