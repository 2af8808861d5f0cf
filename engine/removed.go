package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store"
)

// CodeRemoved is the code of the error about a run that has ended and was removed.
const CodeRemoved = "run_removed"

// tombstone returns the tombstone of an id; nil if it has none.
func (e *Engine) tombstone(ctx context.Context, id string) (*store.Tombstone, error) {
	tombs, err := e.cfg.Store.Tombstones(ctx, []string{id})
	if err != nil || len(tombs) == 0 {
		return nil, storeError("look for a tombstone", err)
	}
	return &tombs[0], nil
}

// absent is the error about a run that is not there: it was removed, or is not
// known.
func (e *Engine) absent(ctx context.Context, id string) error {
	tomb, err := e.tombstone(ctx, id)
	switch {
	case err != nil:
		return err
	case tomb == nil || tomb.Workflow == "":
		return unknownRun(id)
	}
	r := removedOf(tomb)
	return &Error{
		Kind: KindGone, Code: CodeRemoved, Field: "id", Removed: &r,
		Message: fmt.Sprintf("run %q of workflow %s ended as %s at %s, and was removed at %s because of its age",
			id, r.Workflow, r.Status, r.Ended.Format(time.RFC3339), r.Removed.Format(time.RFC3339)),
		Hint: "its input and history are gone from the store; look into the archive, if one is kept, or start a new run under another id",
	}
}

func removedOf(t *store.Tombstone) rest.Removed {
	return rest.Removed{
		Workflow: t.Workflow, Version: t.Version, Status: machine.Status(t.Status).String(), Waived: t.Waived,
		Created: t.Created, Ended: t.Ended, Removed: t.Buried, KnownUntil: optional(t.Until),
	}
}

// removedRun tells of an error whether it is about a run that was removed, and
// returns what is known of that.
func removedRun(id string, err error) (rest.Run, bool) {
	var own *Error
	if !errors.As(err, &own) || own.Removed == nil {
		return rest.Run{}, false
	}
	r := own.Removed
	return rest.Run{
		ID: id, Workflow: r.Workflow, Version: r.Version, Status: r.Status, Waived: r.Waived,
		Created: r.Created, Ended: &r.Ended, Removed: &r.Removed,
	}, true
}

// repeatedRemoved answers a start whose id has a tombstone.
func repeatedRemoved(t *store.Tombstone, o *startOrder) (rest.Started, error) {
	switch {
	case t.Workflow == "":
		return rest.Started{}, errBuried()
	case t.InputHash != o.hash:
		return rest.Started{}, errTaken("a run with this id, with another workflow or input, has ended and was removed")
	}
	return rest.Started{
		ID: t.ID, Workflow: t.Workflow, Version: t.Version, Status: machine.Status(t.Status).String(),
	}, nil
}
