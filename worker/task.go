package worker

import (
	"context"
	"encoding/json"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

// TaskInfo is what a handler may know of the task that it performs.
type TaskInfo struct {
	RunID    string
	Workflow string
	Step     string // its name
	Service  string
	// Type is the task type as the definition names it, with its version.
	Type string
	// Version is the part of Type after its '@'; empty if it has none.
	Version string
	Phase   protocol.Phase
	// OnePhase, of a commit alone: the participant is the only one and was not
	// asked to prepare. A commit without it comes after a vote.
	OnePhase bool
	// Generation starts at 1 and grows when an operator retries with other
	// input. Attempt starts at 1.
	Generation uint32
	Attempt    uint32
	// IdempotencyKey is run/step/phase/generation: the same on every attempt.
	IdempotencyKey string
	RoutingKey     string
	Shard          uint32
	Epoch          uint64
	Worker         string    // id of the worker that performs it
	Deadline       time.Time // when the context ends
	NotAfter       time.Time // no attempt with this message starts later; zero: no bound
	Trace          string    // W3C traceparent, or empty
	// Progress is what an earlier attempt of the task reported last (see
	// [Progress]), as JSON; nil if nothing is known.
	Progress json.RawMessage
	// Tokens are the fencing tokens of the task: see [TaskInfo.Token].
	Tokens []protocol.Token
	// UndoesRun, of a compensation: what it undoes is a child run, not an
	// action of this service.
	UndoesRun bool
}

// Token is the task's fencing token of that name, a named lock that its run
// holds; 0 if there is none. The tokens of a name only grow. Give it to what
// can refuse a lower one than the highest it has seen: this worker may have been
// given up, and another run may hold the lock. Package inbox does so in the
// handler's own transaction.
func (t TaskInfo) Token(name string) uint64 {
	for i := range t.Tokens {
		if t.Tokens[i].Name == name {
			return t.Tokens[i].Token
		}
	}
	return 0
}

// TaskFrom returns the task that a handler's context belongs to; the zero
// TaskInfo if it belongs to none.
func TaskFrom(ctx context.Context) TaskInfo {
	if t, ok := ctx.Value(infoKey{}).(*task); ok {
		return t.info()
	}
	if info, ok := ctx.Value(infoKey{}).(TaskInfo); ok {
		return info
	}
	return TaskInfo{}
}

// WithTask returns a context from which [TaskFrom] returns info, for tests of
// handlers.
func WithTask(ctx context.Context, info TaskInfo) context.Context {
	return context.WithValue(ctx, infoKey{}, info)
}

type infoKey struct{}

// state is what became of a task here.
type state uint8

const (
	queued state = iota + 1
	running
	finished // answered, not yet known durable
	gone     // durable, or dropped: of no interest any more
)

// taskKey tells attempts apart, also those of different stores behind one
// broker.
type taskKey struct {
	protocol.TaskID
	run string
}

// task is one attempt at this worker. Its fields are guarded by Worker.mu,
// apart from: msg, which does not change; and, while it runs, result and
// payload, which belong to its executor.
//
// It is its handler's context as well, which spares an allocation.
type task struct {
	context.Context // nil until it runs
	msg             *protocol.Task
	worker          string
	handler         *handler
	state           state
	started         time.Time
	cancel          context.CancelFunc
	cancelled       bool
	progress        progress

	result *protocol.Result // immutable once the task is finished
	first  protocol.Result  // what result points to, unless it was renumbered
	to     *peer            // awaits the result
	inBox  bool             // in the outbox
	sent   time.Time        // last; zero: not sent, or known not to have arrived
}

func (t *task) key() taskKey { return taskKey{t.msg.TaskID, t.msg.RunID} }

// Value implements context.Context.
func (t *task) Value(key any) any {
	switch key {
	case infoKey{}:
		return t
	case progressKey{}:
		return &t.progress
	}
	return t.Context.Value(key)
}

func (t *task) info() TaskInfo {
	m := t.msg
	deadline, _ := t.Deadline()
	_, version := definitions.SplitTaskType(m.Type)
	return TaskInfo{
		RunID: m.RunID, Workflow: m.Workflow, Step: m.StepName, Service: m.Service, Type: m.Type, Version: version,
		Phase: m.Phase, OnePhase: m.OnePhase, Generation: m.Generation, Attempt: m.Attempt, IdempotencyKey: m.IdempotencyKey(),
		RoutingKey: m.RoutingKey, Shard: m.Shard, Epoch: m.Epoch, Worker: t.worker,
		Deadline: deadline, NotAfter: m.NotAfter, Trace: m.Trace,
		Progress: m.Progress, Tokens: m.Tokens, UndoesRun: m.UndoesRun,
	}
}

// margin is how long before its lease ends a handler's context does, so that
// the answer still arrives in time.
func margin(timeout time.Duration) time.Duration {
	return min(timeout/20, time.Second)
}

// answer fills in the result. The caller owns the task.
func (t *task) answer(v verdict, message string, payload []byte, took time.Duration) {
	m := t.msg
	t.first = protocol.Result{
		TaskID: m.TaskID, RunID: m.RunID, StepName: m.StepName, Shard: m.Shard, Worker: t.worker,
		Outcome: v.outcome, Retryable: v.retryable, Resent: m.Resent, Code: clip(v.code, protocol.MaxCodeBytes),
		Message: clip(message, protocol.MaxMessageBytes), Stack: v.stack,
		Duration: took, Trace: m.Trace, Payload: payload,
	}
	t.result = &t.first
}

// refusal is an answer without having run: no effect.
func (t *task) refusal(code, message string, retryable bool) {
	t.answer(verdict{outcome: protocol.OutcomeFailed, retryable: retryable, code: code}, message, nil, 0)
}

func (t *task) size() int64 {
	r := t.result
	return int64(len(r.Payload) + len(r.Message) + len(r.Stack))
}
