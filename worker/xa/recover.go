package xa

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// Decision is what was decided of a run.
type Decision int

// The decisions. The zero value leaves a branch as it is.
const (
	Undecided Decision = iota
	Committed
	Aborted
)

// Branch is a prepared branch.
type Branch struct {
	GID string
	// Run and Step are empty if the database has no note of the branch: then it
	// has been removed by hand, and an operator has to know what to do.
	Run, Step string
	// Prepared is when it was, by the database's clock. MySQL does not know; there
	// it is when the first attempt began, by the worker's clock, and zero for a
	// branch without a note.
	Prepared time.Time
	// Voted is false for a branch whose vote was never answered.
	Voted bool
}

// InDoubt lists the branches of the participant's namespace and database that
// are prepared, the oldest first.
func (p *Participant) InDoubt(ctx context.Context) ([]Branch, error) {
	found, err := p.server.list(ctx, p.db, p.prefix)
	if err != nil {
		return nil, fmt.Errorf("xa: listing the prepared branches: %w", err)
	}
	votes, err := p.votes(ctx, found)
	if err != nil {
		return nil, err
	}
	var all []Branch
	for _, l := range found {
		v := votes[l.GID]
		br := Branch{GID: l.GID, Run: v.RunID, Step: v.Step, Prepared: l.Prepared, Voted: v.State == voted}
		if br.Prepared.IsZero() && v.CreatedAt != 0 {
			br.Prepared = time.UnixMilli(v.CreatedAt)
		}
		all = append(all, br)
	}
	slices.SortStableFunc(all, func(a, b Branch) int {
		if a.Prepared.IsZero() != b.Prepared.IsZero() { // of unknown age: last
			return cmp.Compare(b.Prepared.Unix(), a.Prepared.Unix())
		}
		return a.Prepared.Compare(b.Prepared)
	})
	return all, nil
}

// noteRow is what is noted of a branch.
type noteRow struct {
	GID       string `db:"gid"`
	RunID     string `db:"run_id"`
	Step      string `db:"step"`
	State     string `db:"state"`
	CreatedAt int64  `db:"created_at"`
}

// votes reads what is noted of branches.
func (p *Participant) votes(ctx context.Context, of []listed) (map[string]noteRow, error) {
	votes := map[string]noteRow{}
	for some := range slices.Chunk(of, 500) {
		var gids []string
		for _, l := range some {
			gids = append(gids, l.GID)
		}
		query, args, err := sqlx.In(p.sql.votes, gids)
		if err != nil {
			return nil, err
		}
		var rows []noteRow
		if err := p.db.SelectContext(ctx, &rows, p.db.Rebind(query), args...); err != nil {
			return nil, fmt.Errorf("xa: reading the votes of the prepared branches: %w", err)
		}
		for _, r := range rows {
			votes[r.GID] = r
		}
	}
	return votes, nil
}

// Recovered counts what [Participant.Recover] did.
type Recovered struct {
	Committed, Aborted int
	Left               int // undecided, or without a run, or failed
}

// Recover ends each branch in doubt by what decide says of its run, and leaves
// those that are undecided and those whose run is not known. It goes on where
// one fails, and returns the errors together. To call it while workers are at
// work does no harm: what it does is what the task of the decision does.
func (p *Participant) Recover(ctx context.Context, decide func(ctx context.Context, run string) (Decision, error)) (Recovered, error) {
	var done Recovered
	branches, err := p.InDoubt(ctx)
	if err != nil {
		return done, err
	}
	var errs []error
	for _, br := range branches {
		d, err := p.recover(ctx, br, decide)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("xa: branch %s of run %q, step %q: %w", br.GID, br.Run, br.Step, err))
			done.Left++
		case d == Committed:
			done.Committed++
		case d == Aborted:
			done.Aborted++
		default:
			done.Left++
		}
	}
	return done, errors.Join(errs...)
}

func (p *Participant) recover(ctx context.Context, br Branch, decide func(ctx context.Context, run string) (Decision, error)) (Decision, error) {
	if br.Run == "" {
		return Undecided, errors.New("nothing is known of its run; it is left as it is")
	}
	d, err := decide(ctx, br.Run)
	if err != nil {
		return Undecided, fmt.Errorf("asking for the decision: %w", err)
	}
	info := worker.TaskInfo{RunID: br.Run, Step: br.Step, Generation: 1}
	switch d {
	case Undecided:
		return d, nil
	case Committed:
		info.Phase = protocol.PhaseCommit
		_, err = p.Commit(worker.WithTask(ctx, info), nil)
	case Aborted:
		info.Phase = protocol.PhaseAbort
		err = p.Abort(worker.WithTask(ctx, info))
	default:
		err = fmt.Errorf("%d is no decision", d)
	}
	return d, err
}

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
