package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/ringmaster-dev/ringmaster/store"
)

// prefetch loads the runs of a batch that are not resident, in one read.
func (s *shard) prefetch(batch []message) error {
	var refs []int64
	for i := range batch {
		if ref := batch[i].ref; ref != 0 && s.runs.byRef[ref] == nil {
			refs = append(refs, ref)
		}
	}
	if len(refs) == 0 {
		return nil
	}
	slices.Sort(refs)
	return s.load(slices.Compact(refs))
}

// load makes runs resident. Those that the store does not have stay absent, and
// so do those that cannot be folded: they are reported, and left alone.
func (s *shard) load(refs []int64) error {
	loaded, err := read(s, func(ctx context.Context) ([]store.Unfinished, error) { return s.eng.cfg.Store.Load(ctx, refs) })
	if err != nil {
		return fmt.Errorf("load runs: %w", err)
	}
	for _, u := range loaded {
		r, err := s.eng.fold(u)
		if err != nil {
			s.eng.unreadable(u.Run.ID, err)
			s.bad[u.Run.Ref] = true
			continue
		}
		if w := r.state.Wake(); !w.IsZero() && r.row.Wake.IsZero() {
			r.armed = w.UnixMilli()
			s.alarms.set(alarm{at: r.armed, key: tickOf(r.row.Ref)})
		}
		s.runs.add(r)
		if r.row.Status.Final() {
			s.past = append(s.past, r)
		}
	}
	return nil
}

// read reads from the store for a shard, again and again until it succeeds or
// the shard stops: what is on disk is not in doubt, as it is after a failed
// commit.
func read[T any](s *shard, f func(context.Context) (T, error)) (T, error) {
	return backoff.Retry(s.ctx, func() (T, error) { return f(s.ctx) },
		backoff.WithBackOff(backoff.NewExponentialBackOff()), backoff.WithMaxElapsedTime(0),
		backoff.WithNotify(func(err error, wait time.Duration) {
			s.eng.metrics.storeErrors.Inc()
			s.eng.log.Error("reading from the store failed", "shard", s.id, "error", err, "again_in", wait)
		}))
}

// errUnreadable: the run is there, and cannot be folded.
var errUnreadable = errors.New("the run's history cannot be read")

// resident returns a run from memory, or from the store; nil if there is none.
func (s *shard) resident(ref int64) (*run, error) {
	if r := s.runs.get(ref); r != nil {
		return r, nil
	}
	if err := s.load([]int64{ref}); err != nil {
		return nil, err
	}
	if s.bad[ref] {
		return nil, errUnreadable
	}
	return s.runs.get(ref), nil
}
