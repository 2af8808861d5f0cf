package protocol

import (
	"encoding/json"
	"errors"
	"strconv"
	"time"
)

// CapabilityBatch is announced by workers that understand batches.
const CapabilityBatch = "batch"

// Content types of messages that are not a single user payload.
const (
	ContentTypeBatch = "application/vnd.ringmaster.batch"
	ContentTypeJSON  = "application/json"
)

// ErrMalformed is wrapped by every decoding error of this package.
var ErrMalformed = errors.New("malformed message")

// ErrVersion is wrapped, beside ErrMalformed, by the error of a message of a peer
// that speaks no protocol version of this code's; see [VersionError].
var ErrVersion = errors.New("unsupported protocol version")

// Kind is the AMQP `type` property: what a message is.
type Kind string

// The kinds of message.
const (
	KindTask         Kind = "task"
	KindResult       Kind = "result"
	KindHeartbeat    Kind = "heartbeat"
	KindAnnouncement Kind = "announcement"
	KindControl      Kind = "control"
	KindRequest      Kind = "request"
	KindDecision     Kind = "decision"
)

// Phase is what a task asks of its step or participant.
type Phase uint8

// The phases. The zero value is not a phase.
const (
	PhaseAction Phase = iota + 1
	PhaseCompensate
	PhasePrepare
	PhaseCommit
	PhaseAbort
)

// Outcome is how an attempt ended, as its worker knows it.
type Outcome uint8

// The outcomes. OutcomeFailed asserts that the attempt had no effect;
// OutcomeUnknown says that it may have had one.
const (
	OutcomeSucceeded Outcome = iota + 1
	OutcomeFailed
	OutcomeUnknown
	// OutcomeReadOnly answers prepare: a vote of yes with nothing to commit or
	// abort, so that the participant hears no more of the run.
	OutcomeReadOnly
)

// TaskID names one attempt within the run that owns it.
type TaskID struct {
	Ref        int64  `json:"ref"`  // the engine's number of the run, not negative; opaque to workers, echoed
	Step       int32  `json:"step"` // index of the step in its workflow
	Phase      Phase  `json:"phase"`
	Generation uint32 `json:"generation"` // starts at 1; grows by an operator's retry with other input
	Attempt    uint32 `json:"attempt"`    // starts at 1
}

// Task is one message to a worker: one attempt of one phase of one step.
type Task struct {
	TaskID
	RunID      string
	Workflow   string // name of the workflow
	StepName   string
	Service    string
	Type       string // task type: which handler of the service is meant
	RoutingKey string // the string hashed onto the ring
	Shard      uint32
	Epoch      uint64        // of the shard; a worker refuses one below the highest it has seen of that shard
	Owner      string        // orchestrator incarnation that sent it, and that awaits the result
	Seq        uint64        // per (orchestrator incarnation, worker), from 1, without gaps
	Timeout    time.Duration // from the worker's start of the handler; always > 0; whole milliseconds, rounded up
	NotAfter   time.Time     // a worker does not start the task later than this; ms precision; zero: no bound
	Trace      string        // W3C traceparent, or empty
	// Resent: an earlier sending of this very attempt may have reached another
	// worker. The answer repeats it, because a failure here then does not prove
	// that the attempt had no effect.
	Resent bool
	// Progress is what an earlier attempt reported last; JSON of at most
	// MaxProgressBytes, nil if there is none.
	Progress []byte
	// OnePhase, of a commit alone: its participant is the only one, was not asked
	// to prepare, and its answer is the decision. A commit without it comes after
	// a vote, and a participant that does not know the vote has nothing to commit.
	OnePhase bool
	// Tokens are those of the named locks that the run holds, and of the routing
	// key's lease where the workflow is serial.
	Tokens []Token
	// UndoesRun, of a compensation: what it undoes is a child run, so that
	// there was no action at this service.
	UndoesRun bool
	Payload   []byte // JSON; nil if empty
}

// IdempotencyKey is the same on every attempt: run/step/phase/generation.
func (t *Task) IdempotencyKey() string {
	return IdempotencyKey(t.RunID, t.StepName, t.Phase, t.Generation)
}

// IdempotencyKey joins the parts of the key under which an effect happens once.
func IdempotencyKey(run, step string, p Phase, generation uint32) string {
	return run + "/" + step + "/" + p.String() + "/" + strconv.FormatUint(uint64(generation), 10)
}

// Result is a worker's answer to one task.
type Result struct {
	TaskID
	RunID     string
	StepName  string
	Shard     uint32
	Worker    string // worker incarnation
	Owner     string // orchestrator incarnation that it is sent to, in whose numbering Seq is
	Seq       uint64 // per (worker incarnation, orchestrator incarnation), from 1; a watermark says up to where results are durable
	Outcome   Outcome
	Resent    bool          // as the task said
	Retryable bool          // of a failed or unknown outcome: another attempt may help
	Code      string        // a short stable word of the handler's ("card_declined"); empty on success
	Message   string        // for people
	Stack     string        // of a panic
	Duration  time.Duration // how long the handler ran; µs precision
	Trace     string
	Payload   []byte // JSON output of a success, also of a read-only one; else the handler's last progress
}

// Held is a task that a worker has, as its heartbeat lists it.
type Held struct {
	TaskID
	Shard uint32 `json:"shard"`
	// AgeMS is for how long the handler has been running, in milliseconds.
	AgeMS int64 `json:"age_ms,omitempty"`
	// Progress is what the handler reported last: JSON of at most
	// MaxProgressBytes.
	Progress json.RawMessage `json:"progress,omitempty"`
}

// Heartbeat is what a worker says of itself, about every second, to all
// orchestrators (fanout).
type Heartbeat struct {
	Version      int      `json:"version"`               // oldest protocol version that the worker speaks
	MaxVersion   int      `json:"max_version,omitempty"` // the newest; 0: Version
	Worker       string   `json:"worker"`                // identity: outlives reconnects, not restarts
	Name         string   `json:"name"`                  // chosen by its operator; placed on the ring under it
	Queue        string   `json:"queue"`                 // where its tasks go; changes with every reconnect
	Service      string   `json:"service"`
	TaskTypes    []string `json:"task_types"`
	Capabilities []string `json:"capabilities,omitempty"`
	Capacity     int      `json:"capacity"`          // handlers that run side by side
	Credit       int      `json:"credit"`            // tasks that each orchestrator may have outstanding at it
	Weight       int      `json:"weight"`            // share of the ring; 100 is ordinary
	Release      string   `json:"release,omitempty"` // version of the worker's own program
	Draining     bool     `json:"draining,omitempty"`
	Leaving      bool     `json:"leaving,omitempty"` // the last heartbeat of a clean shutdown
	IntervalMS   int64    `json:"interval_ms"`
	Sequence     uint64   `json:"sequence"` // of this worker's heartbeats, from 1
	// Received is, by orchestrator incarnation, the highest task sequence
	// number that has arrived.
	Received map[string]uint64 `json:"received,omitempty"`
	// Heard is, by orchestrator incarnation, the number of the last of its
	// announcements that the worker has taken in.
	Heard map[string]uint64 `json:"heard,omitzero"`
	// Floor is, by orchestrator incarnation, the lowest number that a result
	// from now on may have: lower ones are durable, or went to another owner
	// of their shard and will not come.
	Floor    map[string]uint64 `json:"floor,omitempty"`
	Queued   []Held            `json:"queued,omitempty"`
	Running  []Held            `json:"running,omitempty"`
	Finished []Held            `json:"finished,omitempty"` // answered, not yet known durable
}

// Announcement is what an orchestrator says of itself to all workers (fanout):
// with Hello set at its start, which workers answer at once with a heartbeat
// and with every result they hold, and then about every second.
type Announcement struct {
	Version      int    `json:"version"`               // oldest protocol version that the orchestrator speaks
	MaxVersion   int    `json:"max_version,omitempty"` // the newest; 0: Version
	Orchestrator string `json:"orchestrator"`          // incarnation
	Hello        bool   `json:"hello,omitempty"`
	Leaving      bool   `json:"leaving,omitempty"`
	// IntervalMS is when the next is due, in milliseconds; 0: it does not say.
	IntervalMS int64 `json:"interval_ms,omitempty"`
	// Seq numbers the orchestrator's announcements, from 1.
	Seq uint64 `json:"seq,omitempty"`
	// Standby: it takes no shards at present.
	Standby bool `json:"standby,omitempty"`
	// Shards that it owns, with their epochs: results of these go to it.
	Shards map[uint32]uint64 `json:"shards"`
	// Durable is, by worker incarnation, the watermark: its results up to this
	// sequence number are durable and may be forgotten.
	Durable map[string]uint64 `json:"durable,omitempty"`
}

// Control is an order to one worker, sent to its queue.
type Control struct {
	Version      int    `json:"version"`
	Orchestrator string `json:"orchestrator"`
	// Cancel asks to cancel the handlers' contexts of these attempts.
	Cancel []TaskID `json:"cancel,omitempty"`
	// Drain asks the worker to finish what it runs and to leave.
	Drain bool `json:"drain,omitempty"`
	// Durable is the watermark of this worker's results.
	Durable uint64 `json:"durable,omitempty"`
	// Refused says why the orchestrator sends this worker no tasks.
	Refused string `json:"refused,omitempty"`
}

// RequestType says what a request asks for.
type RequestType string

// The requests that may come through the broker.
const (
	RequestStart    RequestType = "run.start"
	RequestCancel   RequestType = "run.cancel"
	RequestSignal   RequestType = "run.signal"
	RequestRegister RequestType = "workflow.register"
	RequestDecision RequestType = "run.decision"
)

// Request is a start, a cancel, a signal, a registration or a question, sent to
// the shared requests queue, persistent and confirmed. Body is the JSON that the
// corresponding HTTP call takes; for all but RequestStart and RequestRegister,
// RunID names the run. The body of a signal has its name too. A RequestDecision
// is answered to the queue ReplyTo.
type Request struct {
	Type    RequestType
	RunID   string
	ReplyTo string
	Trace   string
	Body    []byte
}

// Decision is what was decided of a TCC or two-phase-commit run.
type Decision uint8

// The decisions. Once a run is committed or aborted it is that for ever;
// undecided promises nothing.
const (
	Undecided Decision = iota
	Committed
	Aborted
)

// Answer answers a RequestDecision.
type Answer struct {
	RunID        string
	Orchestrator string // incarnation
	Decision     Decision
	// Code, if not empty, says that the question cannot be answered, in a word
	// for programs; Message says so to people.
	Code    string
	Message string
}
