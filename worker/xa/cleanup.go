package xa

import (
	"context"
	"fmt"
	"time"
)

const cleanupBatch = 500

// agedVote is a vote that may be removed.
type agedVote struct {
	GID       string `db:"gid"`
	RunID     string `db:"run_id"`
	CreatedAt int64  `db:"created_at"`
}

// Cleanup removes what is known of branches that ended at least horizon ago, in
// small batches, and returns of how many. Prepared branches stay, and those
// whose tasks could still arrive; so do those of runs that have not ended where
// the options name Ended. Without it the horizon has to be longer than any run
// takes: a commit that comes again finds nothing.
func (p *Participant) Cleanup(ctx context.Context, horizon time.Duration) (int, error) {
	now := time.Now()
	before := now.Add(-horizon).UnixMilli()
	removed := 0
	prepared, err := p.prepared(ctx)
	if err != nil {
		return 0, err
	}
	var last agedVote
	for {
		var batch []agedVote
		if err := p.db.SelectContext(ctx, &batch, p.sql.aged, before, now.UnixMilli(), last.CreatedAt, last.GID, cleanupBatch); err != nil {
			return removed, fmt.Errorf("xa: reading old votes: %w", err)
		}
		if len(batch) == 0 {
			return removed, nil
		}
		last = batch[len(batch)-1]
		var runs []string
		for _, r := range batch {
			runs = append(runs, r.RunID)
		}
		ended, err := p.ended(ctx, runs)
		if err != nil {
			return removed, err
		}
		for _, r := range batch {
			if prepared[r.GID] {
				continue
			}
			if at, ok := ended[r.RunID]; p.opts.Ended != nil && (!ok || at.UnixMilli() >= before) {
				continue
			}
			if err := p.forget(ctx, r.GID); err != nil {
				return removed, err
			}
			removed++
		}
	}
}

// prepared are the names of the prepared branches. A vote that is old does not
// begin anew: its tasks have expired.
func (p *Participant) prepared(ctx context.Context) (map[string]bool, error) {
	found, err := p.server.list(ctx, p.db, p.prefix)
	if err != nil {
		return nil, fmt.Errorf("xa: listing the prepared branches: %w", err)
	}
	names := map[string]bool{}
	for _, l := range found {
		names[l.GID] = true
	}
	return names, nil
}

func (p *Participant) ended(ctx context.Context, runs []string) (map[string]time.Time, error) {
	if p.opts.Ended == nil {
		return nil, nil
	}
	ended, err := p.opts.Ended(ctx, runs)
	if err != nil {
		return nil, fmt.Errorf("xa: asking which runs have ended: %w", err)
	}
	return ended, nil
}

func (p *Participant) forget(ctx context.Context, gid string) error {
	// The vote goes last: what is left by a crash is found again.
	for _, stmt := range []string{p.sql.dropRow, p.sql.dropVote} {
		if _, err := p.db.ExecContext(ctx, stmt, gid); err != nil {
			return fmt.Errorf("xa: removing branch %s: %w", gid, err)
		}
	}
	return nil
}
