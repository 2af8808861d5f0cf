package protocol

import (
	"fmt"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
)

// EncodeTask lays out one task as one message to a worker's queue: everything
// in headers, the payload as the body. [SetDurable] adds the watermark. v is the
// version to write in, which the worker speaks.
func EncodeTask(v int, queue string, t *Task) broker.Message {
	h := make(map[string]any, 24)
	putTaskID(h, v, &t.TaskID, t.RunID, t.StepName)
	h[HeaderWorkflow] = t.Workflow
	h[HeaderService] = t.Service
	h[HeaderTaskType] = t.Type
	h[HeaderRoutingKey] = t.RoutingKey
	h[HeaderShard] = int64(t.Shard)
	h[HeaderEpoch] = int64(t.Epoch)
	h[HeaderOwner] = t.Owner
	h[HeaderSeq] = int64(t.Seq)
	h[HeaderTimeout] = timeoutMS(t.Timeout)
	h[HeaderIdempotencyKey] = t.IdempotencyKey()
	if !t.NotAfter.IsZero() {
		h[HeaderNotAfter] = t.NotAfter.UnixMilli()
	}
	if t.Resent {
		h[HeaderResent] = true
	}
	putText(h, HeaderTokens, formatTokens(t.Tokens))
	putText(h, HeaderProgress, string(cleanProgress(t.Progress)))
	if t.OnePhase {
		h[HeaderOnePhase] = true
	}
	if t.UndoesRun {
		h[HeaderUndoesRun] = true
	}
	putTrace(h, t.Trace)
	return broker.Message{
		Key:           queue,
		Mandatory:     true,
		CorrelationID: cut(t.RunID, MaxNameBytes),
		Type:          string(KindTask),
		ContentType:   ContentTypeJSON,
		AppID:         cut(t.Owner, MaxNameBytes),
		Headers:       h,
		Body:          t.Payload,
	}
}

// SetDurable puts the watermark of the receiving worker's results on a task's
// message of the single form. A batch has it from [EncodeTasks].
func SetDurable(m *broker.Message, durable uint64) { m.Headers[HeaderDurable] = int64(durable) }

// EncodeResult lays out one result as one message to the results exchange.
// Code, message and stack are cut to their limits. v is the version to write
// in, which the owner speaks.
func EncodeResult(v int, exchange string, r *Result) broker.Message {
	h := make(map[string]any, 20)
	putTaskID(h, v, &r.TaskID, r.RunID, r.StepName)
	h[HeaderShard] = int64(r.Shard)
	h[HeaderWorker] = r.Worker
	putText(h, HeaderOwner, r.Owner)
	h[HeaderSeq] = int64(r.Seq)
	h[HeaderOutcome] = r.Outcome.String()
	h[HeaderDuration] = durationUS(r.Duration)
	if r.Retryable {
		h[HeaderRetryable] = true
	}
	if r.Resent {
		h[HeaderResent] = true
	}
	putText(h, HeaderCode, cleanCode(r.Code))
	putText(h, HeaderMessage, cleanText(r.Message, MaxMessageBytes))
	putText(h, HeaderStack, cleanText(r.Stack, MaxStackBytes))
	putTrace(h, r.Trace)
	return broker.Message{
		Exchange:      exchange,
		Key:           ShardKey(r.Shard),
		Mandatory:     true,
		CorrelationID: cut(r.RunID, MaxNameBytes),
		Type:          string(KindResult),
		ContentType:   ContentTypeJSON,
		AppID:         cut(r.Worker, MaxNameBytes),
		Headers:       h,
		Body:          r.Payload,
	}
}

func putTaskID(h map[string]any, v int, id *TaskID, run, step string) {
	StampVersion(h, v)
	h[HeaderRef] = id.Ref
	h[HeaderRun] = run
	h[HeaderStep] = step
	h[HeaderStepIndex] = int64(id.Step)
	h[HeaderPhase] = id.Phase.String()
	h[HeaderGeneration] = int64(id.Generation)
	h[HeaderAttempt] = int64(id.Attempt)
}

func putText(h map[string]any, key, s string) {
	if s != "" {
		h[key] = s
	}
}

func putTrace(h map[string]any, trace string) { putText(h, HeaderTrace, cleanTrace(trace)) }

// timeoutMS rounds up, so that a timeout never becomes none.
func timeoutMS(d time.Duration) int64 {
	ms := int64(d / time.Millisecond)
	if d%time.Millisecond > 0 && ms < maxTimeoutMS {
		ms++
	}
	return max(ms, 0)
}

func durationUS(d time.Duration) int64 { return max(int64(d/time.Microsecond), 0) }

func notAfter(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func (f *fields) taskID() (id TaskID, run, step string) {
	id.Ref = f.int(HeaderRef, 0, maxNumber)
	id.Step = int32(f.int(HeaderStepIndex, 0, 1<<31-1))
	id.Generation = uint32(f.int(HeaderGeneration, 1, 1<<32-1))
	id.Attempt = uint32(f.int(HeaderAttempt, 1, 1<<32-1))
	if err := id.Phase.UnmarshalText([]byte(f.raw(HeaderPhase))); err != nil {
		f.fail(HeaderPhase, "%.40q is not a phase", f.raw(HeaderPhase))
	}
	return id, f.name(HeaderRun, MaxNameBytes), f.name(HeaderStep, MaxNameBytes)
}

func (f *fields) payload(m *broker.Message) []byte {
	switch {
	case len(m.Body) > MaxPayloadBytes:
		if f.err == nil {
			f.err = fmt.Errorf("%w: payload: %d bytes, at most %d", ErrMalformed, len(m.Body), MaxPayloadBytes)
		}
		return nil
	case len(m.Body) == 0:
		return nil
	default:
		return m.Body
	}
}

func decodeTask(m *broker.Message) (t Task, durable uint64, err error) {
	f := fields{h: m.Headers}
	t.TaskID, t.RunID, t.StepName = f.taskID()
	t.Workflow = f.name(HeaderWorkflow, MaxNameBytes)
	t.Service = f.name(HeaderService, MaxNameBytes)
	t.Type = f.name(HeaderTaskType, MaxNameBytes)
	t.RoutingKey = f.raw(HeaderRoutingKey)
	if !goodName(t.RoutingKey, MaxRoutingKeyBytes) {
		f.fail(HeaderRoutingKey, "%s (at most %d bytes)", nameFault(t.RoutingKey, MaxRoutingKeyBytes), MaxRoutingKeyBytes)
	}
	t.Shard = uint32(f.int(HeaderShard, 0, MaxShards-1))
	t.Epoch = uint64(f.int(HeaderEpoch, 0, maxNumber))
	t.Owner = f.name(HeaderOwner, MaxNameBytes)
	t.Seq = uint64(f.int(HeaderSeq, 1, maxNumber))
	t.Timeout = time.Duration(f.int(HeaderTimeout, 1, maxTimeoutMS)) * time.Millisecond
	t.NotAfter = notAfter(f.intOr(HeaderNotAfter, 0, 1, maxUnixMS))
	t.Trace = cleanTrace(f.raw(HeaderTrace))
	t.Resent, t.OnePhase = f.bool(HeaderResent), f.bool(HeaderOnePhase)
	tokens, fault := parseTokens(f.raw(HeaderTokens))
	if fault != "" {
		f.fail(HeaderTokens, "%s", fault)
	}
	t.Tokens = tokens
	t.Progress = cleanProgress([]byte(f.raw(HeaderProgress)))
	t.UndoesRun = f.bool(HeaderUndoesRun)
	durable = uint64(f.intOr(HeaderDurable, 0, 0, maxNumber))
	t.Payload = f.payload(m)
	return t, durable, f.err
}

func decodeResult(m *broker.Message) (r Result, err error) {
	f := fields{h: m.Headers}
	r.TaskID, r.RunID, r.StepName = f.taskID()
	r.Shard = uint32(f.int(HeaderShard, 0, MaxShards-1))
	r.Worker = f.name(HeaderWorker, MaxNameBytes)
	r.Owner = f.optional(HeaderOwner, MaxNameBytes)
	r.Seq = uint64(f.int(HeaderSeq, 1, maxNumber))
	if err := r.Outcome.UnmarshalText([]byte(f.raw(HeaderOutcome))); err != nil {
		f.fail(HeaderOutcome, "%.40q is not an outcome", f.raw(HeaderOutcome))
	}
	r.Retryable, r.Resent = f.bool(HeaderRetryable), f.bool(HeaderResent)
	r.Code = cleanCode(f.raw(HeaderCode))
	r.Message = cleanText(f.raw(HeaderMessage), MaxMessageBytes)
	r.Stack = cleanText(f.raw(HeaderStack), MaxStackBytes)
	r.Duration = time.Duration(f.intOr(HeaderDuration, 0, 0, maxDurUS)) * time.Microsecond
	r.Trace = cleanTrace(f.raw(HeaderTrace))
	r.Payload = f.payload(m)
	return r, f.err
}
