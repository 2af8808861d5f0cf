package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

// arm sets the alarm for the run's next Tick, or clears it.
func (s *shard) arm(r *run) {
	w := r.state.Wake()
	at := int64(0)
	if !w.IsZero() && r.row.Wake.IsZero() {
		at = w.UnixMilli()
	}
	switch {
	case at == r.armed:
	case at == 0:
		s.alarms.clear(tickOf(r.row.Ref))
	default:
		s.alarms.set(alarm{at: at, key: tickOf(r.row.Ref)})
	}
	r.armed = at
}

// fireAlarms handles the alarms that are due.
func (s *shard) fireAlarms() error {
	now := s.eng.clock.now().UnixMilli()
	s.due = s.alarms.due(now, s.due[:0])
	for _, a := range s.due {
		if a.key.Phase == lockPhase {
			if err := s.askLockAgain(a.key.Ref); err != nil {
				return err
			}
			continue
		}
		if s.asked[a.key] != nil {
			if err := s.askAgain(a.key); err != nil {
				return err
			}
			continue
		}
		if a.key.Attempt != 0 {
			if err := s.expire(a.key); err != nil {
				return err
			}
			continue
		}
		r, err := s.resident(a.key.Ref)
		if errors.Is(err, errUnreadable) {
			continue
		}
		if err != nil {
			return err
		}
		if r == nil || r.row.Status.Final() {
			continue
		}
		r.armed = 0
		if err := s.step(r, machine.Tick{}); err != nil {
			s.eng.log.Error("tick refused", "run", r.row.ID, "error", err)
		}
		s.arm(r)
	}
	return nil
}

// expire ends the wait of an attempt that is still wanted and not started.
func (s *shard) expire(id protocol.TaskID) error {
	r, err := s.resident(id.Ref)
	if errors.Is(err, errUnreadable) {
		return nil
	}
	if err != nil || r == nil || !slices.Contains(r.dispatched, id) {
		return err
	}
	s.eng.dispatcher.expire(id, s.eng.dispatcher.class(r.state.Def(int(id.Step)), machine.Phase(id.Phase)), leaseName(r))
	return nil
}

// wakeSleepers turns wake-up times inside the horizon into alarms. It tells
// whether there may be more.
func (s *shard) wakeSleepers() (more bool, err error) {
	const page = 1000
	until := s.eng.clock.now().Add(horizon)
	refs, err := read(s, func(ctx context.Context) ([]int64, error) { return s.eng.cfg.Store.Due(ctx, s.id, until, page) })
	if err != nil {
		return false, fmt.Errorf("look for due runs: %w", err)
	}
	if err := s.load(slices.DeleteFunc(slices.Clone(refs), func(ref int64) bool { return s.runs.byRef[ref] != nil })); err != nil {
		return false, err
	}
	for _, ref := range refs {
		r := s.runs.get(ref)
		if r == nil || r.row.Wake.IsZero() {
			continue
		}
		// With the wake-up time gone from its row, the run counts as active:
		// a restart finds it among the unfinished ones.
		s.writeRow(r, s.eng.clock.now(), r.row.Status, time.Time{})
		r.part = s.number
		s.arm(r)
	}
	return len(refs) == page, nil
}
