package machine

import (
	"encoding/binary"
	"fmt"
	"time"
)

// snapshotVersion opens every snapshot.
const snapshotVersion = 1

// Checkpoint returns an event that, folded on top of the run's first record,
// yields this state. Its number follows Seq. It is not folded: Apply it once it
// is to be part of the history.
func (s *State) Checkpoint(now time.Time) Event {
	return Event{
		Kind: Checkpointed, Step: -1, Seq: s.seq + 1, At: fromMilli(milli(now)),
		Payload: s.appendSnapshot(nil),
	}
}

// AppendState appends a canonical encoding of the whole state: two states are
// the same exactly when these bytes are.
func (s *State) AppendState(b []byte) []byte {
	b = binary.AppendUvarint(b, s.seq)
	b = binary.AppendVarint(b, s.at)
	b = binary.AppendVarint(b, s.created)
	b = binary.AppendVarint(b, s.deadline)
	b = appendString(b, s.runID)
	b = appendString(b, s.key)
	b = appendString(b, s.retryOf)
	b = append(b, s.priority)
	b = appendParent(b, s.parent)
	b = appendBytes(b, s.input)
	return s.appendSnapshot(b)
}

// flags packs booleans, the first in the lowest bit.
func flags(on ...bool) (b byte) {
	for i, v := range on {
		if v {
			b |= 1 << i
		}
	}
	return b
}

// flags reads what the function flags packed.
func (r *reader) flags(into ...*bool) {
	b := r.byte()
	if int(b) >= 1<<len(into) {
		r.fail("unknown flags")
	}
	for i, p := range into {
		*p = b&(1<<i) != 0
	}
}

// appendSnapshot encodes all that follows from the events after the first.
func (s *State) appendSnapshot(b []byte) []byte {
	b = append(b, snapshotVersion, byte(s.status), flags(s.turned, s.passed, s.cancelled, s.overdue, s.waived, s.heuristic))
	b = binary.AppendVarint(b, int64(s.turnedBy))
	b = appendString(b, s.turnCode)
	b = appendString(b, s.turnMessage)
	b = appendString(b, s.cancelWhy)
	b = appendBytes(b, s.output)
	b = binary.AppendUvarint(b, uint64(len(s.fans)))
	for _, i := range s.fans {
		b = binary.AppendUvarint(b, uint64(i))
		b = appendBytes(b, s.steps[i].fan.list)
	}
	b = binary.AppendUvarint(b, uint64(len(s.steps)))
	for i := range s.steps {
		b = s.appendStep(b, &s.steps[i])
	}
	return appendLocks(appendSignals(b, s.signals), s.locks)
}

func appendSignals(b []byte, signals []signal) []byte {
	b = binary.AppendUvarint(b, uint64(len(signals)))
	for i := range signals {
		g := &signals[i]
		b = append(b, flags(g.taken))
		b = appendString(b, g.name)
		b = appendString(b, g.id)
		b = binary.LittleEndian.AppendUint64(b, g.sum)
		b = appendBytes(b, g.payload)
	}
	return b
}

func (r *reader) signals() (signals []signal) {
	for range r.upTo(1<<20, "number of signals") {
		var g signal
		r.flags(&g.taken)
		g.name, g.id = r.string(), r.string()
		for shift := range 8 {
			g.sum |= uint64(r.byte()) << (8 * shift)
		}
		g.payload = r.payload()
		if r.err != nil {
			return nil
		}
		if g.taken && (g.id == "" || g.payload != nil) || !g.taken && g.sum != checksum(g.payload) {
			r.fail("a signal that cannot be")
		}
		signals = append(signals, g)
	}
	return signals
}

func (s *State) appendStep(b []byte, st *step) []byte {
	b = append(b, byte(st.state), byte(st.undo), byte(st.stalled),
		flags(st.resolved, st.comp != nil, st.fail != nil, st.heuristic))
	b = binary.AppendVarint(b, st.started)
	b = binary.AppendVarint(b, st.ended)
	b = binary.AppendVarint(b, st.until)
	b = appendString(b, st.worker)
	if st.joined() {
		b = appendBytes(b, nil) // made of the items'
	} else {
		b = appendBytes(b, st.output)
	}
	if st.fail != nil {
		b = appendString(b, st.fail.code)
		b = appendString(b, st.fail.message)
		b = appendString(b, st.fail.stack)
	}
	b = appendTask(b, &st.action)
	if st.comp != nil {
		b = appendTask(b, st.comp)
	}
	return b
}

func appendTask(b []byte, t *task) []byte {
	b = append(b, flags(t.outstanding, t.waiting, t.ordered), t.deaths)
	for _, v := range [...]uint32{t.generation, t.attempt, t.total, t.round, t.unknown, t.lost} {
		b = binary.AppendUvarint(b, uint64(v))
	}
	b = binary.AppendVarint(b, t.roundAt)
	b = binary.AppendVarint(b, t.scheduled)
	b = binary.AppendVarint(b, t.retryAt)
	b = appendBytes(b, t.input)
	return appendBytes(b, t.progress)
}

// restore folds a checkpoint: it replaces all but what the first event said.
func (s *State) restore(e *Event) error {
	if s.seq == 0 || e.Seq <= s.seq || s.status.Final() {
		return fmt.Errorf("%w: checkpoint %d out of place after event %d", ErrCorrupt, e.Seq, s.seq)
	}
	n := State{
		wf: s.wf, order: s.order, maxItems: s.maxItems, participants: s.participants, single: s.single,
		runID: s.runID, key: s.key, retryOf: s.retryOf, priority: s.priority, parent: s.parent, input: s.input,
		created: s.created, deadline: s.deadline,
		seq: e.Seq, at: milli(e.At),
	}
	r := reader{data: e.Payload}
	r.snapshot(&n)
	if r.err != nil {
		return fmt.Errorf("checkpoint %d: %w", e.Seq, r.err)
	}
	*s = n
	return nil
}

func (r *reader) snapshot(s *State) {
	if r.byte() != snapshotVersion {
		r.fail("unknown version of a snapshot")
	}
	s.status = Status(r.byte())
	r.flags(&s.turned, &s.passed, &s.cancelled, &s.overdue, &s.waived, &s.heuristic)
	turnedBy := r.varint()
	s.turnCode = r.string()
	s.turnMessage = r.string()
	s.cancelWhy = r.string()
	s.output = r.payload()
	s.steps = make([]step, s.wf.Len())
	r.fans(s)
	if n := r.uvarint(); n != uint64(len(s.steps)) || turnedBy < -1 || turnedBy >= int64(len(s.steps)) {
		r.fail("snapshot of another workflow")
		return
	}
	s.turnedBy = int(turnedBy)
	for i := range s.steps {
		r.step(&s.steps[i])
		if p := s.steps[i].stalled; p != 0 && !s.has(p) {
			r.fail("stalled in a phase that it does not have")
		}
		if st := &s.steps[i]; st.until != 0 && (st.state != stepActive || s.def(i).Kind.HasTask()) {
			r.fail("a wait of a step that does not wait")
		}
		if s.steps[i].stalled != 0 {
			s.stalls++
		}
	}
	s.recount()
	s.signals = r.signals()
	s.locks = r.locks()
	if r.more() {
		r.fail("bytes after the snapshot")
	}
	if s.status != s.present() && !s.mayEndAs(s.status) {
		r.fail("status that does not fit the snapshot")
	}
	if _, two := s.phases(); s.participants {
		if s.passed && s.turned {
			r.fail("two decisions")
		}
		for i := range s.steps {
			if s.steps[i].comp != nil && two == 0 {
				r.fail("phase two without a decision")
			}
		}
	}
}

func (r *reader) step(st *step) {
	st.state, st.undo, st.stalled = stepState(r.byte()), undoState(r.byte()), Phase(r.byte())
	var comp, fail bool
	r.flags(&st.resolved, &comp, &fail, &st.heuristic)
	if st.state >= stepStateEnd || st.undo >= undoStateEnd || st.stalled > Abort || st.undo != undoNone && !comp {
		r.fail("unknown state of a step")
	}
	st.started = r.milli(0)
	st.ended = r.milli(0)
	st.until = r.milli(0)
	st.worker = r.string()
	st.output = r.payload()
	if fail {
		st.fail = &failure{code: r.string(), message: r.string(), stack: r.string()}
	}
	r.task(&st.action)
	if comp {
		st.comp = &task{}
		r.task(st.comp)
	}
}

func (r *reader) task(t *task) {
	r.flags(&t.outstanding, &t.waiting, &t.ordered)
	t.deaths = r.byte()
	for _, p := range [...]*uint32{&t.generation, &t.attempt, &t.total, &t.round, &t.unknown, &t.lost} {
		*p = uint32(r.upTo(1<<32-1, "count"))
	}
	t.roundAt = r.milli(0)
	t.scheduled = r.milli(0)
	t.retryAt = r.milli(0)
	t.input = r.payload()
	t.progress = r.payload()
}

// payload is bytes, nil if there are none.
func (r *reader) payload() []byte {
	if p := r.bytes(); len(p) > 0 {
		return p
	}
	return nil
}
