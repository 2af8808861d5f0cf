package inbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
)

// DefaultCleanupBatch is how many rows Cleanup takes at a time.
const DefaultCleanupBatch = 500

const maxCleanupBatch = 10_000

// Cleanup deletes rows that nothing can need any more, and returns how many. It
// takes batch of them at a time (0: DefaultCleanupBatch; at most 10,000), each
// in a statement of its own. Call it now and then; several processes may.
//
// Tokens that nobody has raised for the horizon go as well; they do not count.
//
// A row goes once it is older than the horizon and the time is past up to which
// its task might have been started.
//
// With Options.Ended, its run must also have ended, that horizon ago: the
// horizon then has to be longer than the engine's task lifetime (24 h by
// default). Without, age alone decides, and the horizon has to be longer than
// that and the longest life of a run, stalled ones included, together: a
// compensation that finds its action's row deleted takes it for one that never
// ran, and does nothing.
func (b *Inbox) Cleanup(ctx context.Context, horizon time.Duration, batch int) (int64, error) {
	if horizon <= 0 {
		return 0, fmt.Errorf("inbox: horizon: must be positive, is %v", horizon)
	}
	if batch <= 0 {
		batch = DefaultCleanupBatch
	}
	batch = min(batch, maxCleanupBatch)
	now := time.Now()
	before := now.Add(-horizon)
	if err := b.cleanTokens(ctx, before, batch); err != nil {
		return 0, fmt.Errorf("inbox: deleting old tokens: %w", err)
	}
	var total int64
	var last agedRow
	for {
		var rows []agedRow
		if err := b.db.SelectContext(ctx, &rows, b.sql.aged, before.UnixMilli(), now.UnixMilli(),
			last.CreatedAt, last.Key, batch); err != nil {
			return total, fmt.Errorf("inbox: looking for old rows: %w", err)
		}
		if len(rows) == 0 {
			return total, nil
		}
		last = rows[len(rows)-1]
		keys, err := b.removable(ctx, rows, before)
		if err != nil {
			return total, err
		}
		n, err := b.remove(ctx, keys)
		total += n
		if err != nil {
			return total, fmt.Errorf("inbox: deleting old rows: %w", err)
		}
		if len(rows) < batch {
			return total, nil
		}
	}
}

// cleanTokens deletes the tokens that were last raised before that time. No task
// that old may begin any more.
func (b *Inbox) cleanTokens(ctx context.Context, before time.Time, batch int) error {
	for {
		var names []string
		if err := b.db.SelectContext(ctx, &names, b.sql.oldTokens, before.UnixMilli(), batch); err != nil || len(names) == 0 {
			return err
		}
		if _, err := b.delete(ctx, b.sql.removeTokens, before.UnixMilli(), names); err != nil {
			return err
		}
	}
}

type agedRow struct {
	Key       string
	RunID     string `db:"run_id"`
	CreatedAt int64  `db:"created_at"`
}

// removable leaves out the rows of runs that did not end before that time.
func (b *Inbox) removable(ctx context.Context, rows []agedRow, before time.Time) ([]string, error) {
	var ended map[string]time.Time
	if b.opts.Ended != nil {
		seen := make(map[string]bool, len(rows))
		runs := make([]string, 0, len(rows))
		for _, r := range rows {
			if !seen[r.RunID] {
				seen[r.RunID] = true
				runs = append(runs, r.RunID)
			}
		}
		var err error
		if ended, err = b.opts.Ended(ctx, runs); err != nil {
			return nil, fmt.Errorf("inbox: asking which runs have ended: %w", err)
		}
	}
	keys := make([]string, 0, len(rows))
	for _, r := range rows {
		if b.opts.Ended != nil {
			if at, ok := ended[r.RunID]; !ok || !at.Before(before) {
				continue
			}
		}
		keys = append(keys, r.Key)
	}
	return keys, nil
}

func (b *Inbox) remove(ctx context.Context, keys []string) (int64, error) {
	if len(keys) == 0 {
		return 0, nil
	}
	return b.delete(ctx, b.sql.remove, keys)
}

// delete runs a statement with a list among its arguments.
func (b *Inbox) delete(ctx context.Context, statement string, with ...any) (int64, error) {
	query, args, err := sqlx.In(statement, with...)
	if err != nil {
		return 0, err
	}
	query = b.dialect.rebind(query)
	for try := 0; ; try++ {
		res, err := b.db.ExecContext(ctx, query, args...)
		if err == nil {
			return res.RowsAffected()
		}
		if !b.dialect.transient(err) || !pause(ctx, try) {
			return 0, err
		}
	}
}
