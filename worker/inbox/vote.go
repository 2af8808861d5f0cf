package inbox

import (
	"context"

	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// voteReadOnly stores a participant's vote that it has changed nothing, so that
// a duplicate of its prepare gives the same vote and changes nothing either.
// What the handler did is rolled back; the vote has a transaction of its own.
func (a *attempt) voteReadOnly(ctx context.Context) ([]byte, error) {
	// An error of Rollback changes nothing: without a commit the database rolls
	// back.
	_ = a.tx.Rollback()
	tx, err := a.db.BeginTxx(ctx, nil)
	if err != nil {
		return nil, failure("beginning a transaction", err)
	}
	a.tx = tx
	fresh, err := a.claim(ctx, protocol.PhasePrepare, readOnly)
	if err != nil {
		return nil, failure("writing the vote", err)
	}
	if !fresh {
		// Another delivery was faster: its vote counts.
		return a.stored(ctx)
	}
	if err := a.tx.Commit(); err != nil {
		return a.lookup(ctx, err)
	}
	return nil, worker.ErrReadOnly
}
