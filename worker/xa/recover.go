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
type Decision = worker.Decision

// The decisions. The zero value leaves a branch as it is.
const (
	Undecided = worker.Undecided
	Committed = worker.Committed
	Aborted   = worker.Aborted
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
	branches, err := p.InDoubt(ctx)
	if err != nil {
		return Recovered{}, err
	}
	return p.settle(ctx, branches, decide)
}

// settle ends branches as decided.
func (p *Participant) settle(ctx context.Context, branches []Branch, decide func(ctx context.Context, run string) (Decision, error)) (Recovered, error) {
	var done Recovered
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
