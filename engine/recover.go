package engine

import (
	"context"
	"fmt"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/ring"
	"github.com/ringmaster-dev/ringmaster/store"
)

// recover folds the shard's unfinished runs and takes up what their states
// still ask for. Runs that sleep past the horizon stay in the store.
func (s *shard) recover(ctx context.Context) error {
	if err := s.recoverLocks(ctx); err != nil {
		return err
	}
	const page = 500
	after := store.RefBase(s.id)
	for {
		runs, err := s.eng.cfg.Store.Unfinished(ctx, s.id, after, s.eng.clock.now().Add(horizon), page)
		if err != nil {
			return fmt.Errorf("shard %d: %w", s.id, err)
		}
		for _, u := range runs {
			after = u.Run.Ref
			r, err := s.eng.fold(u)
			if err != nil {
				s.eng.unreadable(u.Run.ID, err)
				continue
			}
			s.resume(r)
		}
		s.runs.shrink(int(s.eng.residentPerShard.Load()), s.number)
		if len(runs) < page {
			s.residents = len(s.runs.byRef)
			s.eng.resident.Add(int64(s.residents))
			return nil
		}
	}
}

// resume takes up one recovered run.
func (s *shard) resume(r *run) {
	s.runs.add(r)
	s.cmds = r.state.Commands(s.cmds[:0])
	tasks := make([]limboTask, 0, len(s.cmds))
	for _, c := range s.cmds { // of an attempt, Dispatch comes first
		if isChild(r, c.Step, c.Phase) {
			s.resumeChild(r, c)
			continue
		}
		known := len(tasks) > 0 && tasks[len(tasks)-1].id == taskID(r.row.Ref, c)
		switch {
		case c.Kind == machine.Dispatch:
			tasks = append(tasks, s.limboTask(r, c))
		case c.Kind == machine.CancelTask && known:
			tasks[len(tasks)-1].cancel = true
		case c.Kind == machine.CancelTask:
			t := s.limboTask(r, c)
			t.cancel = true
			tasks = append(tasks, t)
		}
	}
	s.eng.dispatcher.recovered(tasks)
	r.asking = ""
	s.wantLock(r)
	s.arm(r)
}

func (s *shard) limboTask(r *run, c machine.Command) limboTask {
	step := r.state.Def(c.Step)
	id := taskID(r.row.Ref, c)
	_, timeout := machine.TaskOf(step, c.Phase)
	t := limboTask{timeout: timeout, scheduled: c.Scheduled, offer: offer{
		entry: entry{id: id, hash: ring.Hash(r.state.RoutingKey()), priority: r.state.Priority(), single: r.state.Deaths(c.Step, c.Phase) > 0},
		class: s.eng.dispatcher.class(step, c.Phase), serial: leaseName(r),
	}}
	s.alarmQueueTimeout(step, c, id)
	return t
}

// alarmQueueTimeout bounds how long an action or a prepare waits before a worker starts it.
func (s *shard) alarmQueueTimeout(step *definitions.Step, c machine.Command, id protocol.TaskID) {
	if step.QueueTimeout > 0 && (c.Phase == machine.Action || c.Phase == machine.Prepare) {
		s.alarms.set(alarm{at: c.Scheduled.Add(step.QueueTimeout).UnixMilli(), key: id})
	}
}
