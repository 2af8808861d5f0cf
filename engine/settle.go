package engine

import (
	"context"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store"
)

// Cancel asks a run to turn back. It is idempotent; after the pivot it is
// recorded and changes nothing.
func (e *Engine) Cancel(ctx context.Context, id string, c rest.Cancel) (rest.Run, error) {
	if !e.owns(id) {
		return ask[rest.Run](ctx, e, order{Method: errandCancel, ID: id}, c)
	}
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
	if !e.owns(id) {
		return ask[rest.Run](ctx, e, order{Method: errandRetry, ID: id}, s)
	}
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
	again := rest.Start{Workflow: row.Workflow, ID: s.ID, Input: input, Key: key, Priority: int(r.state.Priority()), Tags: row.Tags}
	if _, err := e.startOne(ctx, again, row.ID); err != nil {
		return rest.Run{}, err
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
	if !e.owns(id) {
		return ask[rest.Run](ctx, e, order{Method: errandSkip, ID: id}, s)
	}
	row, step, err := e.settle(ctx, id, s)
	if err != nil {
		return rest.Run{}, err
	}
	return e.instruct(ctx, row, machine.Skip{Step: step, By: s.By, Reason: s.Reason})
}

// Resolve settles a stalled step by what the operator knows of it.
func (e *Engine) Resolve(ctx context.Context, id string, s rest.Settle) (rest.Run, error) {
	if !e.owns(id) {
		return ask[rest.Run](ctx, e, order{Method: errandResolve, ID: id}, s)
	}
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
		if i := r.state.StepIndex(name); i >= 0 {
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
	done := make(chan answer[store.Run], 1)
	if !e.post(shardIndex(row.Ref), message{ref: row.Ref, input: in, reply: func(r store.Run, err error) {
		done <- answer[store.Run]{r, settleError(err)}
	}}) {
		return rest.Run{}, errMoved()
	}
	after, err := await(ctx, e, done)
	if err != nil {
		return rest.Run{}, err
	}
	return runOf(&after), nil
}
