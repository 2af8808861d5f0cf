package xa

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/ringmaster-dev/ringmaster/worker"
)

// leastRound is how long a round may take at least.
const leastRound = 10 * time.Second

// decider says what was decided of a run.
type decider = func(ctx context.Context, run string) (Decision, error)

// attend has a worker settle the branches in doubt, whatever it handles.
func (p *Participant) attend(w *worker.Worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.opts.RecoverEvery < 0 || slices.Contains(p.workers, w) {
		return
	}
	p.workers = append(p.workers, w)
	decide := p.opts.Decide
	if decide == nil {
		decide = w.Decision
	}
	w.Background(func(ctx context.Context) { p.recoverLoop(ctx, decide) })
}

// recoverLoop settles the branches in doubt, round by round, until ctx ends. The
// first round takes all: a worker that comes back finds what it left. Later ones
// leave those alone that were not there the round before, since they are most
// likely about to be told by a task.
func (p *Participant) recoverLoop(ctx context.Context, decide decider) {
	var before map[string]bool
	for {
		before = p.round(ctx, before, decide)
		// Workers that were started at once shall not ask at once for ever.
		pause := time.NewTimer(p.opts.RecoverEvery*3/4 + rand.N(p.opts.RecoverEvery/2+1))
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
	}
}

// round settles the branches that are in before, all if that is nil, and
// returns the names of those that were prepared when it began.
func (p *Participant) round(ctx context.Context, before map[string]bool, decide decider) map[string]bool {
	ctx, cancel := context.WithTimeout(ctx, max(p.opts.RecoverEvery, leastRound))
	defer cancel()
	found, err := p.InDoubt(ctx)
	if err != nil {
		p.opts.Logger.Warn("looking for branches in doubt", slog.Any("error", err))
		return before
	}
	now := map[string]bool{}
	var old []Branch
	for _, br := range found {
		now[br.GID] = true
		if before == nil || before[br.GID] {
			old = append(old, br)
		}
	}
	if len(old) == 0 {
		return now
	}
	done, err := p.settle(ctx, old, decide)
	level := slog.LevelInfo
	if err != nil {
		level = slog.LevelWarn
	}
	p.opts.Logger.Log(ctx, level, "branches in doubt", slog.String("database", p.database), slog.Int("committed", done.Committed),
		slog.Int("aborted", done.Aborted), slog.Int("left", done.Left), slog.Any("error", err))
	return now
}
