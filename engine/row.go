package engine

import (
	"time"

	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/store"
)

// updateRow brings the run's row in line with its state.
func (s *shard) updateRow(r *run, now time.Time) {
	row := &r.row
	status := store.Status(r.state.Status())
	wake := s.sleepUntil(r, now)
	if status == row.Status && status != store.StatusStalled && wake.Equal(row.Wake) && r.state.Waived() == row.Waived {
		return
	}
	s.writeRow(r, now, status, wake)
}

// sleepUntil is when a run acts next by itself, if that is all it waits for
// and is past the horizon, or never if it waits for a signal alone; else zero.
// s.cmds are its commands.
func (s *shard) sleepUntil(r *run, now time.Time) time.Time {
	if _, asks := r.state.NextLock(); asks {
		return time.Time{} // a restart must find it, and ask again
	}
	switch w := r.state.Wake(); {
	case len(s.cmds) > 0:
		return time.Time{}
	case w.Sub(now) > horizon:
		return w
	case w.IsZero() && r.state.Status() == machine.Running && r.state.AwaitsSignal():
		return never
	}
	return time.Time{}
}

// writeRow writes the run's row and, if its status is another, tells so once
// that is durable.
func (s *shard) writeRow(r *run, now time.Time, status store.Status, wake time.Time) {
	row := &r.row
	changed := status != row.Status
	if changed {
		s.census.transition(r.series, row.Status, status)
	}
	if !wake.IsZero() {
		s.asleep = append(s.asleep, r)
	}
	s.fillRow(r, now, status, wake)
	s.part.Update = append(s.part.Update, store.Update{
		Ref: row.Ref, Status: status, Waived: row.Waived, Updated: now, Ended: row.Ended,
		Wake: wake, FailedStep: row.FailedStep, Error: row.Error,
	})
	if changed {
		s.statusChanged(r, now)
	}
}

func (s *shard) fillRow(r *run, now time.Time, status store.Status, wake time.Time) {
	row := &r.row
	row.Status, row.Wake, row.Waived, row.Updated = status, wake, r.state.Waived(), now
	if step := r.failedStep(); step != "" {
		row.FailedStep = step
	}
	row.Error = failureText(r)
	if status.Final() {
		row.Ended = now
	}
}

func (s *shard) statusChanged(r *run, now time.Time) {
	if r.row.Status.Final() {
		s.past = append(s.past, r)
		s.tellParent(r)
		r.series.ended(r, now)
	}
	s.effects.changed = append(s.effects.changed, r.row)
}
