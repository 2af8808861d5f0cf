package engine

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/store"
)

const (
	// horizon divides alarms kept in memory from wake-up times kept in rows.
	horizon = time.Minute
	// duePeriod is how often rows are asked for wake-up times inside the horizon.
	duePeriod = 20 * time.Second
	// checkpointAfter is the number of history records of a run, beside one for
	// each of its steps, after which a checkpoint replaces them, so that no
	// history grows without bound.
	checkpointAfter = 256
)

// message is one thing for a shard to do; which, is told by the field set.
type message struct {
	ref     int64
	runID   string                 // of a result: whose it is; checked, since a store may be made anew
	stray   bool                   // of a result: no worker was known to have the attempt
	input   machine.Input          // something happened to run ref
	settled settledResult          // input is this result of a worker
	start   *startOrder            // a new run
	lock    *lockMessage           // about a named lock
	turn    *turnMessage           // about the turn of a serial workflow's task
	child   *childRequest          // a run is wanted as a child
	word    *childWord             // of a child
	moved   *uint32                // a shard has a new owner
	fetch   *assignment            // dispatch a task of run ref that is not in memory
	remove  *removal               // ended runs and tombstones are to go
	reply   func(store.Run, error) // after the input's events are durable; may be nil

	decision *decisionOrder // what was decided of run ref, or of a run that there is not
}

// shard owns a part of all runs. One goroutine folds inputs into them.
type shard struct {
	eng     *Engine
	id      uint32
	epoch   uint64
	inbox   *mailbox[message]
	durable atomic.Uint64     // number of the last submission that is durable
	before  map[string]string // workers that may hold tasks of the owner before, with their services
	since   time.Duration     // when it was taken, by the engine's clock
	cancel  context.CancelFunc
	ended   chan struct{}   // closed when the loop is over
	gone    chan struct{}   // closed when drop is through
	stale   chan struct{}   // closed when another owner was heard of, or found by a commit
	once    sync.Once       // closes stale
	lease   <-chan struct{} // closed when the shard's lease is lost; nil where shards are not shared
	void    bool            // a commit has found another owner; the committer's

	// What follows belongs to the shard's goroutine.
	ctx      context.Context
	bad      map[int64]bool // runs that cannot be read
	nextRef  int64
	runs     *cache
	past     []*run // ended, and in memory until that is durable
	asleep   []*run // in memory until that they sleep is durable
	alarms   alarms
	census   census
	recent   recentStarts
	locks    lockTable
	keeper   keeper
	asked    map[protocol.TaskID]*asked // children that runs here wait for
	awaited  map[string]protocol.TaskID // runs here whose parents wait to hear of their end
	looked   map[string]found           // for the batch at hand
	lookedAt time.Duration
	part     store.Part
	effects  effects
	number   uint64 // of the submission being gathered

	cmds []machine.Command
	// Attempts that the state asks for, while they are compared with those that
	// it asked for before.
	dispatched, cancelled []protocol.TaskID
	due                   []alarm
	residents             int // runs in memory, as counted last
}

func newShard(e *Engine, id uint32, epoch uint64, lastRef int64) *shard {
	return &shard{
		eng: e, id: id, epoch: epoch, nextRef: lastRef + 1, number: 1, since: e.clock.since(),
		ended: make(chan struct{}), gone: make(chan struct{}), stale: make(chan struct{}),
		census: census{metrics: e.metrics, total: &e.unfinished, counts: map[*workflowSeries]*[store.StatusSucceeded]int64{}},
		inbox:  newMailbox[message](), runs: newCache(), recent: newRecentStarts(), locks: newLockTable(epoch), keeper: newKeeper(epoch),
		asked: map[protocol.TaskID]*asked{}, awaited: map[string]protocol.TaskID{}, looked: map[string]found{}, alarms: newAlarms(), bad: map[int64]bool{}, ctx: e.background,
	}
}

// supersede notes that the shard has another owner.
func (s *shard) supersede() { s.once.Do(func() { close(s.stale) }) }

// owned tells whether this is still the shard's owner, as far as can be told
// without asking.
func (s *shard) owned() bool {
	select {
	case <-s.stale:
		return false
	case <-s.lease:
		return false
	default:
		return true
	}
}

// loop runs until ctx ends; what had come by then has been handed to the
// committer.
func (s *shard) loop(ctx context.Context) error {
	s.ctx = ctx
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	lookedForDue := s.eng.clock.since() - duePeriod
	var batch []message
	for {
		if s.eng.clock.since()-lookedForDue >= duePeriod {
			more, err := s.wakeSleepers()
			if err != nil {
				return err
			}
			if s.eng.clock.since()-s.locks.probed >= duePeriod {
				s.probeHolders(duePeriod)
			}
			s.submit()
			lookedForDue = s.eng.clock.since()
			if more {
				lookedForDue -= duePeriod - time.Second
			}
		}
		timer.Reset(min(s.nextAlarm(), s.countLate(), max(0, lookedForDue+duePeriod-s.eng.clock.since())))
		stopping := false
		select {
		case <-s.inbox.wake:
		case <-timer.C:
		case <-ctx.Done():
			stopping = true
		}
		batch = s.inbox.take(batch)
		if err := s.round(batch); err != nil || stopping {
			return err
		}
	}
}

// round handles what has come, and hands it to the committer. If it cannot,
// nothing comes of what has not been handed over, and whoever waits for that is
// told so.
func (s *shard) round(batch []message) (err error) {
	handled := 0
	defer func() {
		if err != nil {
			s.refuse(batch[handled:])
		}
	}()
	if err := s.prefetch(batch); err != nil {
		return err
	}
	if err := s.lookForChildren(batch); err != nil {
		return err
	}
	for i := range batch {
		if err := s.handle(&batch[i]); err != nil {
			return err
		}
		handled++
	}
	if err := s.fireAlarms(); err != nil {
		return err
	}
	s.submit()
	s.tidy()
	return nil
}

// refuse gives up on messages, and on what was gathered.
func (s *shard) refuse(batch []message) {
	for i := range batch {
		batch[i].refuse(errMoved())
	}
	for _, reply := range s.effects.replies {
		reply(errMoved())
	}
	s.part, s.effects = store.Part{}, effects{}
}

// nextAlarm is how long the shard may sleep.
func (s *shard) nextAlarm() time.Duration {
	wait := duePeriod.Milliseconds()
	if at, ok := s.alarms.next(); ok {
		wait = min(wait, at-s.eng.clock.now().UnixMilli())
	}
	if !s.recent.empty() {
		wait = min(wait, lookupValid.Milliseconds())
	}
	return time.Duration(max(wait, 0)) * time.Millisecond
}

// submit hands what was gathered to the committer.
func (s *shard) submit() {
	s.lockRows()
	p := &s.part
	if p.Rows() == 0 && s.effects.empty() {
		return
	}
	p.Shard, p.Epoch = s.id, s.epoch
	s.effects.shard, s.effects.number = s, s.number
	s.eng.committer.queue.put(submission{part: *p, effects: s.effects, at: s.eng.clock.since()})
	s.part, s.effects = store.Part{}, effects{}
	s.number++
}

// tidy forgets ended runs that are durable, and whatever is over the limit.
func (s *shard) tidy() {
	durable := s.durable.Load()
	s.recent.turn(s.eng.clock.since(), durable)
	kept := s.past[:0]
	for _, r := range s.past {
		if r.part > durable {
			kept = append(kept, r)
		} else if s.runs.byRef[r.row.Ref] == r {
			s.runs.remove(r)
		}
	}
	clear(s.past[len(kept):])
	s.past = kept
	s.letSleep(durable)
	s.runs.shrink(int(s.eng.residentPerShard.Load()), durable)
	s.eng.resident.Add(int64(len(s.runs.byRef) - s.residents))
	s.residents = len(s.runs.byRef)
}

// letSleep forgets runs that only wait, and are to do so for a while: they are
// rows with a wake-up time.
func (s *shard) letSleep(durable uint64) {
	kept := s.asleep[:0]
	for _, r := range s.asleep {
		switch {
		case r.row.Wake.IsZero() || s.runs.byRef[r.row.Ref] != r: // woken, or gone
		case r.part > durable:
			kept = append(kept, r)
		default:
			s.runs.remove(r)
		}
	}
	clear(s.asleep[len(kept):])
	s.asleep = kept
}

func (s *shard) handle(m *message) error {
	switch {
	case m.start != nil:
		return s.start(m.start)
	case m.decision != nil:
		return s.decide(m.decision)
	case m.fetch != nil:
		return s.fetch(m.ref, m.fetch)
	case m.lock != nil:
		return s.lockMessage(m.lock)
	case m.turn != nil:
		s.turn(m.turn)
		return nil
	case m.child != nil:
		return s.wantChild(m.child)
	case m.remove != nil:
		s.remove(m)
		return nil
	case m.word != nil:
		return s.childHeard(m.word)
	case m.moved != nil:
		return s.ownerMoved(*m.moved)
	}
	r, err := s.resident(m.ref)
	if errors.Is(err, errUnreadable) {
		// Its results stay with their workers.
		if m.reply != nil {
			m.reply(store.Run{}, err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	if m.settled.worker != "" {
		s.effects.settled = append(s.effects.settled, m.settled)
	}
	if r != nil && m.runID != "" && m.runID != r.row.ID {
		s.eng.log.Warn("result of a run that this store does not have", "run", m.runID)
		return nil
	}
	if r == nil {
		if m.reply != nil {
			m.reply(store.Run{}, store.ErrNotFound)
		}
		return nil
	}
	err = s.step(r, m.input)
	if res, ok := m.input.(machine.Result); ok && m.stray && res.Step < r.state.NumSteps() {
		o := s.cancelOrder(r, protocol.TaskID{
			Ref: m.ref, Step: int32(res.Step), Phase: protocol.Phase(res.Phase), Generation: res.Generation, Attempt: res.Attempt,
		}, false)
		o.ended = true
		s.effects.cancel = append(s.effects.cancel, o)
	}
	if reply := m.reply; reply != nil {
		row := r.row // as the order left it
		s.reply(func(lost error) { reply(row, cmp.Or(lost, err)) })
	}
	return nil
}

// reply has f called once all that was decided until now is durable, or lost
// with the shard.
func (s *shard) reply(f func(lost error)) { s.effects.replies = append(s.effects.replies, f) }

// step has the core decide on an input, and gathers what follows. The error is
// the core's refusal, for whoever asked.
func (s *shard) step(r *run, in machine.Input) error {
	now := s.eng.clock.now()
	events, err := r.state.Step(in, now)
	if err != nil {
		if _, ok := in.(machine.Result); ok {
			s.eng.log.Warn("result refused", "run", r.row.ID, "error", err)
		}
		return err
	}
	if len(events) == 0 {
		return nil
	}
	s.record(r, events, now)
	s.command(r)
	s.wantLock(r)
	if r.state.Status().Final() {
		s.abandon(r, in)
		s.releaseLocks(r)
	}
	s.updateRow(r, now)
	s.arm(r)
	return nil
}

// record appends events to the run's history.
func (s *shard) record(r *run, events []machine.Event, now time.Time) {
	r.part = s.number
	r.series.count(r.wf, events)
	s.part.Append = append(s.part.Append, store.Record{
		Ref: r.row.Ref, Seq: events[0].Seq, Data: machine.AppendEvents(nil, events),
	})
	if r.records++; r.records < checkpointAfter+r.state.NumSteps() || r.row.Status.Final() {
		return
	}
	cp := r.state.Checkpoint(now)
	if err := r.state.Apply(cp); err != nil {
		s.eng.log.Error("checkpoint refused", "run", r.row.ID, "error", err)
		return
	}
	s.part.Append = append(s.part.Append, store.Record{
		Ref: r.row.Ref, Seq: cp.Seq, Data: machine.AppendEvents(nil, []machine.Event{cp}), DropFrom: 2,
	})
	r.records = 2
}

// command acts on the commands of the state that are new. Commands come in the
// order of their attempts, and so does what is remembered of them: one pass tells
// what is new and what is gone, however many there are.
func (s *shard) command(r *run) {
	s.cmds = r.state.Commands(s.cmds[:0])
	if r.state.Status().Final() {
		r.overtaken = slices.Concat(r.dispatched, r.cancelled)
	}
	dispatched, cancelled := attempts{known: r.dispatched}, attempts{known: r.cancelled}
	s.dispatched, s.cancelled = s.dispatched[:0], s.cancelled[:0]
	for _, c := range s.cmds {
		id := taskID(r.row.Ref, c)
		switch c.Kind {
		case machine.Dispatch:
			s.dispatched = append(s.dispatched, id)
			if !dispatched.has(id) {
				s.dispatch(r, id, c) // or, of a child, ask for it
			}
		case machine.CancelTask, machine.Withdraw:
			s.cancelled = append(s.cancelled, id)
			if !cancelled.has(id) {
				s.giveUp(r, id, c)
			}
		}
	}
	dispatched.rest()
	for _, id := range dispatched.gone {
		s.alarms.clear(id) // of its queue timeout, or of the request for a child
		s.forgetChild(id)
	}
	r.dispatched = append(r.dispatched[:0], s.dispatched...)
	r.cancelled = append(r.cancelled[:0], s.cancelled...)
}

// giveUp takes an attempt back, or has whoever performs it give up. A pivot that
// is a child run is let be: it has been asked for already.
func (s *shard) giveUp(r *run, id protocol.TaskID, c machine.Command) {
	switch child := isChild(r, c.Step, c.Phase); {
	case child && c.Kind == machine.CancelTask:
		s.cancelChild(r, id)
	case !child:
		s.effects.cancel = append(s.effects.cancel, s.cancelOrder(r, id, c.Kind == machine.Withdraw))
	}
}

// attempts goes over a list of attempts in step with another.
type attempts struct {
	known []protocol.TaskID
	gone  []protocol.TaskID // that the other list does not have
}

// has tells whether the list has an attempt; they are asked for in order.
func (a *attempts) has(id protocol.TaskID) bool {
	for len(a.known) > 0 && compareAttempts(a.known[0], id) < 0 {
		a.gone, a.known = append(a.gone, a.known[0]), a.known[1:]
	}
	if len(a.known) == 0 || a.known[0] != id {
		return false
	}
	a.known = a.known[1:]
	return true
}

func (a *attempts) rest() { a.gone = append(a.gone, a.known...) }

// compareAttempts is the order in which a state gives its commands.
func compareAttempts(a, b protocol.TaskID) int {
	return cmp.Or(cmp.Compare(a.Step, b.Step), cmp.Compare(a.Phase, b.Phase),
		cmp.Compare(a.Generation, b.Generation), cmp.Compare(a.Attempt, b.Attempt))
}

// abandon takes back the attempts that are outstanding when their run ends:
// those overtaken by an earlier one's late success. in is the input that ended
// the run; the attempt that it answers is no longer outstanding.
func (s *shard) abandon(r *run, in machine.Input) {
	for _, id := range r.overtaken {
		if isChild(r, int(id.Step), machine.Phase(id.Phase)) {
			continue // a run's attempt that is a run ends before it
		}
		if res, ok := in.(machine.Result); ok && int(id.Step) == res.Step && uint8(id.Phase) == uint8(res.Phase) &&
			id.Generation == res.Generation && id.Attempt == res.Attempt {
			continue
		}
		o := s.cancelOrder(r, id, false)
		o.ended = true
		s.effects.cancel = append(s.effects.cancel, o)
	}
	r.overtaken = nil
}
