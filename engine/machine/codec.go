package machine

import (
	"encoding/binary"
	"fmt"
	"time"
)

// recordVersion opens every record.
const recordVersion = 1

// maxRecordEvents bounds the events of one record. A Step emits at most a few
// per step of the workflow.
const maxRecordEvents = 1 << 16

// Presence bits of an event. A field without its bit has its usual value; one
// with it has another, so that every event has one encoding.
const (
	hasStep       = 1 << iota // usual: -1
	hasWorker                 // usual: empty
	hasPayload                // usual: empty
	hasAttempt                // usual: 1 for kinds of attempts, else 0
	hasPhase                  // usual: Action if there is a step, else 0
	hasElapsed                // ms since the event before; usual: 0
	hasUntil                  // relative to At; usual: the zero time
	hasCode                   // this and the rest usually empty
	hasMessage                // ...
	hasStack                  // ...
	hasBy                     // ...
	hasGeneration             // usual: 1 for kinds of attempts, else 0
	isLate
	isSent
	isApplied
	hasRunID
	hasKey
	hasRetryOf
	hasPriority // usual: 0
	hasToken    // usual: 0
	hasName
	hasID
	hasParent // of whom the run is a child: id, step and depth
	bitsEnd
)

// AppendEvents encodes events for a history record and returns the extended
// buffer. The events' numbers follow one another, as those of one Step do.
func AppendEvents(buf []byte, events []Event) []byte {
	if len(events) == 0 {
		return buf
	}
	at := milli(events[0].At)
	buf = append(buf, recordVersion)
	buf = binary.AppendUvarint(buf, events[0].Seq)
	buf = binary.AppendVarint(buf, at)
	for i := range events {
		e := &events[i]
		buf = appendEvent(buf, e, at)
		at = milli(e.At)
	}
	return buf
}

// usual returns the values that an event of this kind has without presence bits.
func usual(k EventKind, step int) (p Phase, generation, attempt uint32) {
	if step >= 0 {
		p = Action
	}
	if k.ofAttempt() {
		return p, 1, 1
	}
	return p, 0, 0
}

func presence(e *Event, before int64) (bits uint64) {
	set := func(on bool, bit uint64) {
		if on {
			bits |= bit
		}
	}
	phase, generation, attempt := usual(e.Kind, e.Step)
	set(e.Step >= 0, hasStep)
	set(e.Worker != "", hasWorker)
	set(len(e.Payload) > 0, hasPayload)
	set(e.Attempt != attempt, hasAttempt)
	set(e.Phase != phase, hasPhase)
	set(milli(e.At) != before, hasElapsed)
	set(milli(e.Until) != 0, hasUntil)
	set(e.Code != "", hasCode)
	set(e.Message != "", hasMessage)
	set(e.Stack != "", hasStack)
	set(e.By != "", hasBy)
	set(e.Generation != generation, hasGeneration)
	set(e.Late, isLate)
	set(e.Sent, isSent)
	set(e.Applied, isApplied)
	set(e.RunID != "", hasRunID)
	set(e.Key != "", hasKey)
	set(e.RetryOf != "", hasRetryOf)
	set(e.Priority != 0, hasPriority)
	set(e.Token != 0, hasToken)
	set(e.Name != "", hasName)
	set(e.ID != "", hasID)
	set(e.Parent != Parent{}, hasParent)
	return bits
}

func appendEvent(buf []byte, e *Event, before int64) []byte {
	bits := presence(e, before)
	at := milli(e.At)
	buf = append(buf, byte(e.Kind))
	buf = binary.AppendUvarint(buf, bits)
	if bits&hasElapsed != 0 {
		buf = binary.AppendVarint(buf, at-before)
	}
	if bits&hasStep != 0 {
		buf = binary.AppendUvarint(buf, uint64(e.Step))
	}
	if bits&hasPhase != 0 {
		buf = append(buf, byte(e.Phase))
	}
	if bits&hasGeneration != 0 {
		buf = binary.AppendUvarint(buf, uint64(e.Generation))
	}
	if bits&hasAttempt != 0 {
		buf = binary.AppendUvarint(buf, uint64(e.Attempt))
	}
	if bits&hasUntil != 0 {
		buf = binary.AppendVarint(buf, milli(e.Until)-at)
	}
	if bits&hasPriority != 0 {
		buf = append(buf, e.Priority)
	}
	for _, f := range [...]struct {
		bit  uint64
		text string
	}{
		{hasWorker, e.Worker}, {hasCode, e.Code}, {hasMessage, e.Message}, {hasStack, e.Stack},
		{hasBy, e.By}, {hasRunID, e.RunID}, {hasKey, e.Key}, {hasRetryOf, e.RetryOf},
		{hasName, e.Name}, {hasID, e.ID},
	} {
		if bits&f.bit != 0 {
			buf = appendString(buf, f.text)
		}
	}
	if bits&hasParent != 0 {
		buf = appendParent(buf, e.Parent)
	}
	if bits&hasPayload != 0 {
		buf = appendBytes(buf, e.Payload)
	}
	if bits&hasToken != 0 {
		buf = binary.AppendUvarint(buf, e.Token)
	}
	return buf
}

// DecodeEvents is the reverse of AppendEvents. Payloads alias data. It is
// strict: what it accepts encodes to the same bytes again. Errors wrap
// ErrCorrupt.
func DecodeEvents(data []byte) ([]Event, error) {
	r := reader{data: data}
	if v := r.byte(); r.err == nil && v != recordVersion {
		return nil, fmt.Errorf("%w: record version %d, want %d", ErrCorrupt, v, recordVersion)
	}
	seq := r.upTo(1<<62, "event number")
	if seq == 0 {
		r.fail("event number out of range")
	}
	at := r.milli(0)
	if !r.more() {
		r.fail("record without events")
	}
	events := make([]Event, 0, 4)
	for r.more() {
		if len(events) == maxRecordEvents {
			r.fail("too many events")
			break
		}
		events = append(events, Event{Seq: seq + uint64(len(events))})
		first := at
		at = r.event(&events[len(events)-1], at)
		if len(events) == 1 && at != first {
			r.fail("first event at another time than its record")
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	return events, nil
}

// event reads into e, and returns its time.
func (r *reader) event(e *Event, at int64) int64 {
	e.Kind = EventKind(r.byte())
	if e.Kind == 0 || e.Kind >= kindEnd {
		r.fail("unknown kind of event")
	}
	bits := r.upTo(bitsEnd-1, "presence bits")
	if bits&hasElapsed != 0 {
		before := at
		if at = r.milli(before); at == before {
			r.fail("field with its usual value")
		}
	}
	e.At = time.UnixMilli(at).UTC()
	if at == 0 {
		e.At = time.Time{}
	}
	e.Step = -1
	if bits&hasStep != 0 {
		e.Step = int(r.upTo(1<<31-1, "step"))
	}
	r.attemptOf(e, bits)
	if bits&hasUntil != 0 {
		ms := r.milli(at)
		if ms == 0 {
			r.fail("field with its usual value")
		}
		e.Until = fromMilli(ms)
	}
	if bits&hasPriority != 0 {
		if e.Priority = r.byte(); e.Priority == 0 {
			r.fail("field with its usual value")
		}
	}
	for _, f := range [...]struct {
		bit  uint64
		text *string
	}{
		{hasWorker, &e.Worker}, {hasCode, &e.Code}, {hasMessage, &e.Message}, {hasStack, &e.Stack},
		{hasBy, &e.By}, {hasRunID, &e.RunID}, {hasKey, &e.Key}, {hasRetryOf, &e.RetryOf},
		{hasName, &e.Name}, {hasID, &e.ID},
	} {
		if bits&f.bit == 0 {
			continue
		}
		if *f.text = r.string(); *f.text == "" {
			r.fail("field with its usual value")
		}
	}
	if bits&hasParent != 0 {
		if e.Parent = r.parent(); e.Parent == (Parent{}) {
			r.fail("field with its usual value")
		}
	}
	if bits&hasPayload != 0 {
		if e.Payload = r.bytes(); len(e.Payload) == 0 {
			r.fail("field with its usual value")
		}
	}
	if bits&hasToken != 0 {
		if e.Token = r.uvarint(); e.Token == 0 {
			r.fail("field with its usual value")
		}
	}
	e.Late = bits&isLate != 0
	e.Sent = bits&isSent != 0
	e.Applied = bits&isApplied != 0
	return at
}

// attemptOf reads phase, generation and attempt.
func (r *reader) attemptOf(e *Event, bits uint64) {
	phase, generation, attempt := usual(e.Kind, e.Step)
	e.Phase, e.Generation, e.Attempt = phase, generation, attempt
	if bits&hasPhase != 0 {
		if e.Phase = Phase(r.byte()); e.Phase == phase || e.Phase > Abort {
			r.fail("bad phase")
		}
	}
	if bits&hasGeneration != 0 {
		if e.Generation = uint32(r.upTo(1<<32-1, "generation")); e.Generation == generation {
			r.fail("field with its usual value")
		}
	}
	if bits&hasAttempt != 0 {
		if e.Attempt = uint32(r.upTo(1<<32-1, "attempt")); e.Attempt == attempt {
			r.fail("field with its usual value")
		}
	}
}
