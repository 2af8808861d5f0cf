package engine

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/ring"
	"github.com/ringmaster-dev/ringmaster/store"
)

// startOrder is a checked request for a run, on its way to the run's shard.
type startOrder struct {
	wf       *workflow
	id       string
	input    []byte // compact JSON
	hash     [16]byte
	key      string
	tags     map[string]string
	retryOf  string
	deadline time.Time
	priority uint8
	parent   machine.Parent
	sought   bool // that it does not exist was found out by its shard
	// fresh says that the id was made here, so that no other run can have it.
	// Otherwise the store had no run and no tombstone of this id at lookedUp.
	fresh    bool
	lookedUp time.Duration
	reply    func(rest.Started, error) // called once, when the answer is durable
}

// refuse answers an order that is not carried out.
func (o *startOrder) refuse(why error) { o.reply(rest.Started{}, why) }

// inputHash identifies what a start asks for, so that a repetition is told
// from a conflict.
func inputHash(workflow string, input []byte) (h [16]byte) {
	d := sha256.New()
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], uint64(len(workflow)))
	d.Write(n[:])
	d.Write([]byte(workflow))
	d.Write(input)
	copy(h[:], d.Sum(nil))
	return h
}

// lookupValid is how long a lookup of an id in the store stays good: starts
// decided here are remembered for at least as long.
const lookupValid = time.Second

// recentStarts remembers the ids that a shard started or buried within the last
// second at least, and until they have been durable for that long, which closes the
// gap between a caller's lookup in the store and the shard's decision, also where
// the commit that the lookup has missed takes its time.
type recentStarts struct {
	young, old map[string]int64 // id -> ref, or buriedRef
	turned     time.Duration
	last       uint64 // submission that makes all of young durable
	oldLast    uint64 // the same of old
	oldDurable bool   // known since settled
	settled    time.Duration
}

func newRecentStarts() recentStarts {
	return recentStarts{young: map[string]int64{}, old: map[string]int64{}}
}

// buriedRef stands in recentStarts for an id that has a tombstone.
const buriedRef = 0

// add remembers a start that submission number makes durable; durable is the
// last that is.
func (r *recentStarts) add(id string, ref int64, now time.Duration, number, durable uint64) {
	r.turn(now, durable)
	r.young[id], r.last = ref, number
}

// turn forgets what is old enough.
func (r *recentStarts) turn(now time.Duration, durable uint64) {
	if !r.oldDurable && r.oldLast <= durable {
		r.oldDurable, r.settled = true, now
	}
	if now-r.turned > lookupValid && r.oldDurable && now-r.settled > lookupValid {
		r.old, r.oldLast = r.young, r.last
		r.oldDurable, r.settled = r.oldLast <= durable, now
		r.young, r.turned = map[string]int64{}, now
	}
}

func (r *recentStarts) empty() bool { return len(r.young)+len(r.old) == 0 }

func (r *recentStarts) find(id string) (int64, bool) {
	if ref, ok := r.young[id]; ok {
		return ref, true
	}
	ref, ok := r.old[id]
	return ref, ok
}

// start decides on a new run.
func (s *shard) start(o *startOrder) error {
	if !o.fresh && !o.sought {
		known, err := s.alreadyStarted(o)
		if known || err != nil {
			return err
		}
	}
	now := s.eng.clock.now()
	r := &run{
		wf: o.wf.wf, series: o.wf.series, state: s.eng.newState(o.wf.wf), part: s.number, records: 1,
		row: store.Run{
			Ref: s.nextRef, ID: o.id, Shard: s.id, Workflow: o.wf.wf.Name(), Version: o.wf.wf.Version(),
			InputHash: o.hash, Tags: o.tags, RetryOf: o.retryOf,
			Parent: o.parent.RunID, ParentStep: o.parent.Step, Created: now,
		},
	}
	events, err := r.state.Step(machine.Start{
		RunID: o.id, Input: o.input, Key: o.key, Deadline: o.deadline, RetryOf: o.retryOf, Priority: o.priority, Parent: o.parent,
	}, now)
	if err != nil {
		o.reply(rest.Started{}, &Error{Kind: KindInvalid, Code: "start_rejected", Field: "input", Message: err.Error(), Err: err})
		return nil //nolint:nilerr // it is the caller's, not the shard's
	}
	if err := checkID("key", r.state.RoutingKey(), MaxKeyBytes); err != nil {
		o.reply(rest.Started{}, err)
		return nil
	}
	if n := len(r.state.Locks()); n > s.eng.cfg.Limits.MaxLocks {
		o.reply(rest.Started{}, invalid("too_many_locks", "input", "asks for %d locks; at most %d", n, s.eng.cfg.Limits.MaxLocks))
		return nil
	}
	s.nextRef++
	s.runs.add(r)
	if !o.fresh {
		s.recent.add(o.id, r.row.Ref, s.eng.clock.since(), s.number, s.durable.Load())
	}
	s.part.Append = append(s.part.Append, store.Record{Ref: r.row.Ref, Seq: events[0].Seq, Data: machine.AppendEvents(nil, events)})
	r.series.count(r.wf, events)
	s.command(r)
	s.wantLock(r)
	status := store.Status(r.state.Status())
	s.census.transition(r.series, 0, status)
	s.fillRow(r, now, status, s.sleepUntil(r, now))
	r.row.Key = r.state.RoutingKey()
	if !r.row.Wake.IsZero() {
		s.asleep = append(s.asleep, r)
	}
	s.part.Create = append(s.part.Create, r.row)
	s.statusChanged(r, now)
	s.arm(r)
	answer := startedOf(&r.row, true)
	s.reply(func(lost error) {
		if lost != nil {
			o.reply(rest.Started{}, lost)
			return
		}
		o.reply(answer, nil)
	})
	return nil
}

// alreadyStarted answers an order whose id is taken. Answers wait for the
// commit under way, which may hold the run that they speak of.
func (s *shard) alreadyStarted(o *startOrder) (taken bool, err error) {
	row, tomb, err := s.known(o.id, o.lookedUp)
	if err != nil || row == nil && tomb == nil {
		return false, err
	}
	var (
		answer  rest.Started
		refused error
	)
	if row != nil {
		answer, refused = repeated(row, o)
	} else {
		answer, refused = repeatedRemoved(tomb, o)
	}
	s.reply(func(lost error) { o.reply(answer, cmp.Or(lost, refused)) })
	return true, nil
}

// known returns the run of an id if there is one, or else its tombstone; nil if
// it has none either. The store had neither at lookedUp.
func (s *shard) known(id string, lookedUp time.Duration) (row *store.Run, tomb *store.Tombstone, err error) {
	ref, recent := s.recent.find(id)
	switch {
	case recent && ref == buriedRef:
		return nil, &store.Tombstone{ID: id, Status: store.StatusAborted}, nil
	case recent:
		r, err := s.resident(ref)
		if err != nil {
			return nil, nil, err
		}
		if r != nil {
			return &r.row, nil, nil
		}
		// It has ended, and was removed in the meantime.
	case lookedUp > s.since && s.eng.clock.since()-lookedUp <= lookupValid:
		return nil, nil, nil
	}
	rows, err := read(s, func(ctx context.Context) ([]store.Run, error) { return s.eng.cfg.Store.Lookup(ctx, []string{id}) })
	if err != nil {
		return nil, nil, err
	}
	if len(rows) > 0 {
		return &rows[0], nil, nil
	}
	tombs, err := read(s, func(ctx context.Context) ([]store.Tombstone, error) {
		return s.eng.cfg.Store.Tombstones(ctx, []string{id})
	})
	if err != nil || len(tombs) == 0 {
		return nil, nil, err
	}
	return nil, &tombs[0], nil
}

// repeated answers a start whose id exists.
func repeated(row *store.Run, o *startOrder) (rest.Started, error) {
	if row.InputHash != o.hash {
		return rest.Started{}, errTaken("a run with this id exists, with another workflow or input")
	}
	return startedOf(row, false), nil
}

func errTaken(message string) *Error {
	return &Error{
		Kind: KindConflict, Code: "id_taken", Field: "id", Message: message,
		Hint: "the id is the idempotency key: use another for another request",
	}
}

func startedOf(row *store.Run, created bool) rest.Started {
	return rest.Started{
		ID: row.ID, Workflow: row.Workflow, Version: row.Version,
		Status: machine.Status(row.Status).String(), Created: created,
	}
}

// dispatch prepares the task of an attempt, to be offered once it is durable, or
// asks for the run that it is.
func (s *shard) dispatch(r *run, id protocol.TaskID, c machine.Command) {
	if isChild(r, c.Step, c.Phase) {
		s.askChild(r, id, c, false)
		return
	}
	// A worker may have answered before it was asked: the store is a copy of one
	// that knew more. That answer's attempt is not over, but wanted now.
	s.effects.cancel = slices.DeleteFunc(s.effects.cancel, func(o cancelOrder) bool { return o.ended && o.id == id })
	step := r.state.Def(c.Step)
	s.effects.dispatch = append(s.effects.dispatch, offer{
		entry: entry{id: id, hash: ring.Hash(r.state.RoutingKey()), priority: r.state.Priority(), task: s.task(r, step, id), single: r.state.Deaths(c.Step, c.Phase) > 0},
		class: s.eng.dispatcher.class(step, c.Phase), serial: leaseName(r),
	})
	s.alarmQueueTimeout(step, c, id)
}

func (s *shard) cancelOrder(r *run, id protocol.TaskID, gentle bool) cancelOrder {
	return cancelOrder{id: id, gentle: gentle, serial: leaseName(r), class: s.eng.dispatcher.class(r.state.Def(int(id.Step)), machine.Phase(id.Phase))}
}

// task builds what is sent to a worker.
func (s *shard) task(r *run, step *definitions.Step, id protocol.TaskID) *protocol.Task {
	phase := machine.Phase(id.Phase)
	typ, timeout := machine.TaskOf(step, phase)
	return &protocol.Task{
		TaskID: id, RunID: r.row.ID, Workflow: r.row.Workflow, StepName: step.Name, Service: step.Service,
		Type: typ, Timeout: timeout, RoutingKey: r.state.RoutingKey(), Shard: s.id, Epoch: s.epoch,
		Owner: s.eng.id, OnePhase: r.state.OnePhase(phase),
		UndoesRun: phase == machine.Compensate && step.Kind == definitions.StepChild, Tokens: tokensOf(r),
		Progress: r.state.Progress(int(id.Step), phase), Payload: r.state.TaskInput(int(id.Step), phase),
	}
}

// fetch dispatches the task of a run that had been out of memory.
func (s *shard) fetch(ref int64, a *assignment) error {
	r, err := s.resident(ref)
	if err != nil && !errors.Is(err, errUnreadable) {
		return err
	}
	if r != nil {
		for _, id := range r.dispatched {
			if id == a.id {
				s.eng.dispatcher.assign(a, s.task(r, r.state.Def(int(id.Step)), id))
				return nil
			}
		}
	}
	s.eng.dispatcher.assign(a, nil)
	return nil
}
