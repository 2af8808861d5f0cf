// Package lease has handlers work while they hold a lease of package lock: at most
// one of them at a time for each name, over all workers, workflows and programs
// that use the same provider.
//
// A lease makes overlap rare, and its fencing token makes it harmless: the token
// is added to those of the task, under the name [TokenName] gives, where the
// handler finds it ([worker.TaskInfo.Token]) and where package inbox does, which
// refuses in the handler's own transaction what comes with a lower token than it
// has seen. Use one provider for a name for ever: tokens of two of them do not
// compare.
//
// Runs that are to take turns as a whole need none of this: the engine has named
// locks, and serial workflows.
package lease

import (
	"context"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/inbox"
)

// Codes that this package gives to results.
const (
	// CodeNotHeld is the code of an attempt that did not get its lease. It had no
	// effect.
	CodeNotHeld = "lease_not_held"
	// CodeLost is the code of an attempt that failed after its lease was lost. Its
	// outcome is unknown, unless the handler says otherwise or was rolled back.
	CodeLost = "lease_lost"
)

// TokenName is the name of a lease's token among those of a task, which sets it
// apart from the tokens of the engine's own locks.
func TokenName(name string) string { return "lease/" + name }

// Handle registers a typed handler that runs while it holds the lease whose name
// is made from its input. A task waits for its lease within its timeout, and
// meanwhile counts among those that the worker performs.
func Handle[In, Out any](w *worker.Worker, h *lock.Holder, task definitions.Task[In, Out], name func(In) string, fn func(ctx context.Context, in In) (Out, error)) {
	worker.Handle(w, task, func(ctx context.Context, in In) (Out, error) {
		return Hold(ctx, h, name(in), func(ctx context.Context) (Out, error) { return fn(ctx, in) })
	})
}

// HandleOnce is Handle for a handler whose effects happen once, in one transaction
// with the row of an inbox, which refuses an attempt whose lease has gone on to
// another that was here before it.
func HandleOnce[In, Out any](w *worker.Worker, h *lock.Holder, box *inbox.Inbox, task definitions.Task[In, Out], name func(In) string,
	fn func(ctx context.Context, tx *sqlx.Tx, in In) (Out, error)) {
	w.HandleTask(task, func(ctx context.Context, payload []byte) ([]byte, error) {
		in, err := worker.Decode[In](payload)
		if err != nil {
			return nil, err
		}
		return Hold(ctx, h, name(in), func(ctx context.Context) ([]byte, error) {
			return box.Do(ctx, func(ctx context.Context, tx *sqlx.Tx) ([]byte, error) {
				out, err := fn(ctx, tx, in)
				if err != nil {
					return nil, err
				}
				data, err := worker.Encode(out)
				if err != nil {
					return nil, worker.Final(worker.CodeBadOutput, err) // rolled back
				}
				return data, nil
			})
		})
	})
}

// Hold calls fn while the lease of a name is held, under a context that ends when
// it is lost and whose task has the token. It is for handlers that need more than
// [Handle] and [HandleOnce] give, such as several leases (take them in one order
// everywhere).
func Hold[T any](ctx context.Context, h *lock.Holder, name string, fn func(ctx context.Context) (T, error)) (out T, err error) {
	var begun bool
	var failed error
	err = h.Hold(ctx, name, func(ctx context.Context, token uint64) error {
		begun = true
		task := worker.TaskFrom(ctx)
		task.Tokens = append(task.Tokens[:len(task.Tokens):len(task.Tokens)], protocol.Token{Name: TokenName(name), Token: token})
		out, failed = fn(worker.WithTask(ctx, task))
		return failed
	})
	switch {
	case err == nil:
		return out, nil
	case errors.Is(err, lock.ErrInvalid) && !begun:
		return out, worker.NoEffect(worker.Final(CodeNotHeld, err))
	case !begun:
		return out, worker.NoEffect(worker.Retryable(CodeNotHeld, fmt.Errorf("the lease was not had: %w", err)))
	case errors.Is(err, lock.ErrLost) && !final(failed):
		return out, worker.Unknown(CodeLost, err)
	}
	return out, failed
}

// final reports whether a handler's error is a decision, which is believed.
func final(err error) bool {
	var stated *worker.Error
	return errors.As(err, &stated) && !stated.Retryable
}
