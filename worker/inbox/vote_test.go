package inbox_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/inbox"
)

// T11: a read-only vote stays what it is. A duplicate of the prepare does not
// change its mind, and an abort finds nothing to undo.
func TestT11AReadOnlyVoteIsGivenAgain(t *testing.T) {
	onEach(t, inbox.Options{}, func(t *testing.T, b bench) {
		calls := 0
		prepare := func(attempt uint32) error {
			_, err := b.box.Do(task(t.Context(), "r", protocol.PhasePrepare, 1, attempt),
				func(ctx context.Context, tx *sqlx.Tx) ([]byte, error) {
					calls++
					if _, err := b.apply(ctx, tx); err != nil {
						return nil, err
					}
					if attempt == 1 {
						return nil, worker.ErrReadOnly
					}
					return nil, nil
				})
			return err
		}
		for attempt := uint32(1); attempt <= 2; attempt++ {
			if err := prepare(attempt); !errors.Is(err, worker.ErrReadOnly) {
				t.Fatalf("attempt %d: %v", attempt, err)
			}
		}
		if calls != 1 || b.effects(t, "r", protocol.PhasePrepare) != 0 {
			t.Fatalf("%d calls, %d effects", calls, b.effects(t, "r", protocol.PhasePrepare))
		}
		out, err := b.box.Do(task(t.Context(), "r", protocol.PhaseAbort, 1, 1), b.apply)
		if err != nil || string(out) != "null" || b.effects(t, "r", protocol.PhaseAbort) != 0 {
			t.Fatalf("abort: %s, %v", out, err)
		}
		if err := prepare(3); !errors.Is(err, worker.ErrReadOnly) {
			t.Fatalf("after the abort: %v", err)
		}
	})
}

// In another phase than prepare it is an error like any other.
func TestReadOnlyIsNoVoteElsewhere(t *testing.T) {
	onEach(t, inbox.Options{}, func(t *testing.T, b bench) {
		_, err := b.box.Do(task(t.Context(), "r", action, 1, 1), func(context.Context, *sqlx.Tx) ([]byte, error) {
			return nil, worker.ErrReadOnly
		})
		if !errors.Is(err, worker.ErrReadOnly) || b.rows(t) != 0 {
			t.Fatalf("%v, %d rows", err, b.rows(t))
		}
	})
}
