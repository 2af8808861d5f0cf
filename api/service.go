package api

import (
	"context"
	"io"
	"time"

	"github.com/ringmaster-dev/ringmaster/archive"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store"
)

// Service is what the API serves; *engine.Engine is one. Its methods are safe
// for concurrent use. An error that is an *engine.Error is answered with its
// kind, code, field and message; any other is an internal error, whose text
// goes to the log and not to the caller.
type Service interface {
	StartRun(ctx context.Context, s rest.Start) (rest.Started, error)
	StartRuns(ctx context.Context, s []rest.Start) []rest.StartOutcome
	Run(ctx context.Context, id string) (rest.RunDetail, error)
	History(ctx context.Context, id string) ([]rest.Event, error)
	Runs(ctx context.Context, f store.Filter) (rest.RunPage, error)
	// Items returns a page of the items of a step that fans out.
	Items(ctx context.Context, id, step string, f engine.ItemFilter) (rest.ItemPage, error)
	// Export writes a page of an export, in lines of JSON, and returns the cursor of
	// the next; "" after the last.
	Export(ctx context.Context, f archive.Filter, cursor string, w io.Writer) (next string, err error)
	// Wait returns the run as it is when it ended, stalled, or the timeout passed.
	Wait(ctx context.Context, id string, timeout time.Duration) (rest.Run, error)
	// Decision tells what was decided of a run, once that is durable. Of a run
	// that there is not, the answer is aborted, and no run of this id can be
	// started after it.
	Decision(ctx context.Context, id string) (rest.Decision, error)
	Cancel(ctx context.Context, id string, c rest.Cancel) (rest.Run, error)
	// Signal gives a run a signal of that name.
	Signal(ctx context.Context, id, name string, s rest.Signal) (rest.Signalled, error)
	Retry(ctx context.Context, id string, s rest.Settle) (rest.Run, error)
	Skip(ctx context.Context, id string, s rest.Settle) (rest.Run, error)
	Resolve(ctx context.Context, id string, s rest.Settle) (rest.Run, error)

	RegisterWorkflow(ctx context.Context, definition []byte) (rest.Workflow, error)
	ActivateWorkflow(ctx context.Context, name, version string) error
	Workflows(ctx context.Context) ([]rest.Workflow, error)
	// Workflow returns one version with its definition; "" is the active one.
	Workflow(ctx context.Context, name, version string) (rest.Workflow, error)

	Workers(ctx context.Context) ([]rest.Worker, error)
	DrainWorker(ctx context.Context, id string) error
	// Locks returns a page of the named locks that are held.
	Locks(ctx context.Context, f rest.LockFilter) (rest.LockPage, error)
	// Ring returns a service's ring; with a key, also where that key goes.
	Ring(ctx context.Context, service, taskType, key string) (rest.Ring, error)
	Stats(ctx context.Context) (rest.Stats, error)
	Health(ctx context.Context) rest.Health
}
