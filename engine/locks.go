package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ringmaster-dev/ringmaster/engine/lockqueue"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/store"
)

const (
	// askAgain is how long a run's shard waits for an answer to its request for
	// a lock before it repeats it.
	askAgain = 5 * time.Second
	// lockPhase marks, in the key of an alarm, that it is for that.
	lockPhase = protocol.Phase(255)
)

// lockVerb is what a lockMessage says.
type lockVerb uint8

const (
	lockAsk     lockVerb = iota + 1 // run to lock: I want it
	lockRelease                     // run to lock: I have ended
	lockGranted                     // lock to run: you hold it, under token
	lockWaits                       // lock to run: you stand in the queue
	lockRefused                     // lock to run: you do not; text says why
	lockProbe                       // lock to run: have you ended? Only that is answered
)

// lockMessage goes between the shard of a run and the shard of a lock. Each can
// be repeated, and comes to one that may have forgotten what it answers: both
// sides look at what is durable.
type lockMessage struct {
	verb   lockVerb
	name   string
	ref    int64 // of the run
	runID  string
	shared bool
	token  uint64
	text   string
}

// toRun tells whether the message is for the run's shard.
func (m *lockMessage) toRun() bool { return m.verb >= lockGranted }

// passOn hands a message to the shard that it is for.
func (e *Engine) passOn(m lockMessage) {
	if m.toRun() {
		msg := message{lock: &m}
		if m.verb != lockProbe { // for which it need not be in memory
			msg.ref = m.ref
		}
		e.send(shardIndex(m.ref), msg)
	} else {
		e.send(e.shardOf(m.name), message{lock: &m})
	}
}

// lockTable is the locks of a shard that are held.
type lockTable struct {
	queues map[string]*lockqueue.Queue
	bad    map[string]bool // rows that cannot be read, and are left alone
	dirty  map[string]bool // to be written with the part being gathered
	last   uint64          // the highest token given
	probed time.Duration   // when holders were asked last, by the engine's clock
}

// tokensPerEpoch is how many tokens an epoch has for itself. Epochs follow the
// clock, in seconds, so that the next one is above what this one gives out as
// long as it gives out less than a million a second.
const tokensPerEpoch = 1 << 20

// firstToken is below every token of an epoch, and above those of any before.
func firstToken(epoch uint64) uint64 { return epoch * tokensPerEpoch }

func newLockTable(epoch uint64) lockTable {
	return lockTable{queues: map[string]*lockqueue.Queue{}, bad: map[string]bool{}, dirty: map[string]bool{}, last: firstToken(epoch)}
}

// next gives out a token higher than any before, of any lock of the shard: so a
// row can be removed and its lock's tokens still only grow.
func (t *lockTable) next() uint64 {
	t.last++
	return t.last
}

// tokensOf are the tokens that the run's tasks carry.
func tokensOf(r *run) []protocol.Token {
	locks := r.state.Locks()
	if len(locks) == 0 {
		return nil
	}
	tokens := make([]protocol.Token, len(locks))
	for i, l := range locks {
		tokens[i] = protocol.Token{Name: l.Name, Token: l.Token}
	}
	return tokens
}

// wantLock has the run ask for its next lock, once what it wants is durable.
func (s *shard) wantLock(r *run) {
	l, ok := r.state.NextLock()
	if !ok || l.Name == r.asking {
		return
	}
	r.asking = l.Name
	s.askLock(r, l)
}

func (s *shard) askLock(r *run, l machine.LockView) {
	s.effects.locks = append(s.effects.locks, lockMessage{verb: lockAsk, name: l.Name, ref: r.row.Ref, runID: r.row.ID, shared: l.Shared})
	s.alarms.set(alarm{at: s.eng.clock.now().Add(askAgain).UnixMilli(), key: askAlarm(r.row.Ref)})
}

func askAlarm(ref int64) protocol.TaskID { return protocol.TaskID{Ref: ref, Phase: lockPhase} }

// askLockAgain repeats a request that has not been answered.
func (s *shard) askLockAgain(ref int64) error {
	r, err := s.resident(ref)
	if errors.Is(err, errUnreadable) {
		return nil
	}
	if err != nil || r == nil {
		return err
	}
	if l, ok := r.state.NextLock(); ok {
		s.askLock(r, l)
	}
	return nil
}

// releaseLocks lets go of all that an ended run holds or has asked for.
func (s *shard) releaseLocks(r *run) {
	for _, l := range r.state.Locks() {
		s.effects.locks = append(s.effects.locks, s.release(r.row.Ref, r.row.ID, l.Name))
		if l.Token == 0 {
			s.alarms.clear(askAlarm(r.row.Ref))
			return // what comes after was not asked for
		}
	}
}

func (s *shard) release(ref int64, runID, name string) lockMessage {
	return lockMessage{verb: lockRelease, name: name, ref: ref, runID: runID}
}

// lockMessage takes in a message about a lock.
func (s *shard) lockMessage(m *lockMessage) error {
	switch m.verb {
	case lockAsk:
		s.lockAsked(m)
	case lockRelease:
		s.lockReleased(m)
	case lockProbe:
		return s.lockProbed(m)
	default:
		return s.lockAnswered(m)
	}
	return nil
}

// lockAsked is a run's request, at the lock's shard.
func (s *shard) lockAsked(m *lockMessage) {
	answer := *m
	if s.locks.bad[m.name] {
		answer.verb, answer.text = lockRefused, fmt.Sprintf("lock %s: its queue cannot be read; see the orchestrator's log", m.name)
		s.effects.locks = append(s.effects.locks, answer)
		return
	}
	q := s.locks.queues[m.name]
	if q == nil {
		q = &lockqueue.Queue{}
		s.locks.queues[m.name] = q
	}
	most := s.eng.cfg.Limits.MaxLockWaiters
	before := newLockCount(q)
	a, token, changed := q.Ask(lockqueue.Entry{
		Ref: m.ref, RunID: m.runID, Shared: m.shared, Asked: s.eng.clock.now().UnixMilli(),
	}, most, s.locks.next)
	if changed {
		s.lockChanged(m.name, q, before)
	}
	switch a {
	case lockqueue.Granted:
		answer.verb, answer.token = lockGranted, token
		if changed {
			s.eng.metrics.lockWait.Observe(0)
		}
	case lockqueue.Waits:
		answer.verb = lockWaits
	default:
		answer.verb, answer.text = lockRefused, fmt.Sprintf("lock %s: %d runs wait for it, which is the limit", m.name, most)
		s.eng.metrics.shed.WithLabelValues("lock_waiters").Inc()
	}
	s.effects.locks = append(s.effects.locks, answer)
}

// lockReleased is a run's farewell, at the lock's shard.
func (s *shard) lockReleased(m *lockMessage) {
	q := s.locks.queues[m.name]
	if q == nil {
		return
	}
	now := s.eng.clock.now().UnixMilli()
	before := newLockCount(q)
	granted, changed := q.Release(m.ref, now, s.locks.next)
	if !changed {
		return
	}
	s.lockChanged(m.name, q, before)
	for _, e := range granted {
		s.eng.metrics.lockWait.Observe(float64(e.Got-e.Asked) / 1000)
		s.effects.locks = append(s.effects.locks, lockMessage{verb: lockGranted, name: m.name, ref: e.Ref, runID: e.RunID, token: e.Token})
	}
}

// lockChanged has the queue be written, and keeps count.
func (s *shard) lockChanged(name string, q *lockqueue.Queue, before lockCount) {
	s.locks.dirty[name] = true
	after := newLockCount(q)
	s.eng.locksHeld.Add(after.held - before.held)
	s.eng.locksWaiting.Add(after.waiting - before.waiting)
	if q.Empty() {
		delete(s.locks.queues, name)
	}
}

// lockCount is what a queue adds to the metrics.
type lockCount struct{ held, waiting int64 }

func newLockCount(q *lockqueue.Queue) lockCount {
	return lockCount{int64(len(q.Holders())), int64(len(q.Waiters()))}
}

// lockRows puts the queues that have changed into the part being gathered.
func (s *shard) lockRows() {
	for name := range s.locks.dirty {
		row := store.Lock{Name: name}
		if q := s.locks.queues[name]; q != nil {
			row.Data = q.Append(nil)
		}
		s.part.Locks = append(s.part.Locks, row)
	}
	clear(s.locks.dirty)
}

// lockAnswered is what a lock's shard says, at the run's.
func (s *shard) lockAnswered(m *lockMessage) error {
	r, err := s.resident(m.ref)
	if errors.Is(err, errUnreadable) {
		return nil // it may hold what it holds
	}
	if err != nil {
		return err
	}
	switch {
	case r == nil || r.row.ID != m.runID, m.verb == lockGranted && r.state.Status().Final():
		// After what the run's end calls for, which may not be durable yet.
		s.effects.locks = append(s.effects.locks, s.release(m.ref, m.runID, m.name))
		return nil
	case r.asking != m.name:
		return nil // an answer to a repeated request
	}
	s.alarms.clear(askAlarm(m.ref))
	switch m.verb {
	case lockGranted:
		err = s.step(r, machine.Granted{Lock: m.name, Token: m.token})
	case lockRefused:
		err = s.step(r, machine.Refused{Lock: m.name, Message: m.text})
	}
	if err != nil {
		s.eng.log.Error("answer of a lock refused", "run", m.runID, "lock", m.name, "error", err)
	}
	return nil
}

// lockProbed looks whether a run that holds a lock has ended, or was never
// there, and its farewell was lost.
func (s *shard) lockProbed(m *lockMessage) error {
	if r := s.runs.byRef[m.ref]; r != nil && r.row.ID == m.runID {
		if r.state.Status().Final() {
			s.effects.locks = append(s.effects.locks, s.release(m.ref, m.runID, m.name))
		}
		return nil
	}
	row, err := read(s, func(ctx context.Context) (store.Run, error) {
		row, err := s.eng.cfg.Store.RunByRef(ctx, m.ref)
		if errors.Is(err, store.ErrNotFound) {
			return store.Run{}, nil
		}
		return row, err
	})
	if err != nil {
		return fmt.Errorf("look for the holder of a lock: %w", err)
	}
	if row.ID != m.runID || row.Status.Final() {
		s.effects.locks = append(s.effects.locks, s.release(m.ref, m.runID, m.name))
	}
	return nil
}

// recoverLocks reads the locks of the shard that are held.
func (s *shard) recoverLocks(ctx context.Context) error {
	const page = 500
	for after := ""; ; {
		rows, err := s.eng.cfg.Store.Locks(ctx, s.id, after, page)
		if err != nil {
			return fmt.Errorf("shard %d: read locks: %w", s.id, err)
		}
		for _, row := range rows {
			after = row.Name
			q, err := decodeLock(row.Data)
			if err != nil {
				s.locks.bad[row.Name] = true
				s.eng.metrics.unreadable.Inc()
				s.eng.log.Error("lock cannot be read and is left alone; runs that want it are refused", "lock", row.Name, "error", err)
				continue
			}
			s.locks.queues[row.Name] = q
			s.locks.last = max(s.locks.last, q.Holders()[0].Token)
			n := newLockCount(q)
			s.eng.locksHeld.Add(n.held)
			s.eng.locksWaiting.Add(n.waiting)
		}
		if len(rows) < page {
			break
		}
	}
	s.probeHolders(0)
	return nil
}

// probeHolders asks the shards of runs that have held a lock for as long as
// that whether they still are under way. A waiter need not be asked: when its
// turn comes, its shard says so.
func (s *shard) probeHolders(held time.Duration) {
	s.locks.probed = s.eng.clock.since()
	before := s.eng.clock.now().Add(-held).UnixMilli()
	for name, q := range s.locks.queues {
		for _, e := range q.Holders() {
			if e.Got <= before {
				s.eng.passOn(lockMessage{verb: lockProbe, name: name, ref: e.Ref, runID: e.RunID})
			}
		}
	}
}

// decodeLock reads the row of a lock. A lock that nobody holds has no row.
func decodeLock(data []byte) (*lockqueue.Queue, error) {
	q, err := lockqueue.Decode(data)
	if err == nil && q.Empty() {
		err = fmt.Errorf("%w: nobody holds the lock", lockqueue.ErrCorrupt)
	}
	return q, err
}
