package machine

import (
	"errors"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// Errors of inputs that the present state does not take. The state is
// unchanged.
var (
	ErrEnded      = errors.New("the run has ended")
	ErrNotStalled = errors.New("the step is not stalled")
	ErrNoStep     = errors.New("no such step")
	ErrNotAllowed = errors.New("not allowed in this state")
)

// Status of a run. The numbers are stable: they are stored.
type Status uint8

const (
	Running Status = iota + 1
	Compensating
	Stalled
	Succeeded
	Compensated
	Committed
	Aborted
)

// Phase of a step's task. The numbers equal those of the protocol.
type Phase uint8

const (
	Action Phase = iota + 1
	Compensate
	Prepare
	Commit
	Abort
)

// Outcome of one attempt, as its worker reported it.
type Outcome uint8

const (
	OutcomeSucceeded Outcome = iota + 1
	OutcomeFailed            // asserts: no effect
	OutcomeUnknown
)

// LossReason says why an attempt will not answer, as far as the shell knows.
type LossReason uint8

const (
	LostWorkerDied LossReason = iota + 1 // counts towards isolation after three
	LostTimeout
	LostVanished // its worker does not list it
)

// Input is what happens to a run: one of Start, Result, Lost, Expired,
// Withdrawn, Tick, Cancel, Retry, Skip, Resolve.
type Input interface{ input() }

// Start is the first input of every run.
type Start struct {
	RunID    string
	Input    []byte    // JSON
	Deadline time.Time // zero: the workflow's, counted from now
	RetryOf  string
}

// Result is a worker's answer to an attempt.
type Result struct {
	Step       int
	Phase      Phase
	Generation uint32
	Attempt    uint32
	Outcome    Outcome
	Retryable  bool
	Code       string
	Message    string
	Stack      string
	Worker     string
	Output     []byte
}

// Lost says that an attempt that was sent will not answer; whether it had an
// effect is unknown.
type Lost struct {
	Step       int
	Phase      Phase
	Generation uint32
	Attempt    uint32
	Reason     LossReason
	Worker     string
}

// Expired says that an attempt waited longer than its queue timeout before a
// worker started it. Sent: it may have reached a worker, so its effect is unknown.
type Expired struct {
	Step       int
	Phase      Phase
	Generation uint32
	Attempt    uint32
	Sent       bool
}

// Withdrawn answers a CancelTask command: the attempt had never left the
// engine, and will not; it had no effect.
type Withdrawn struct {
	Step       int
	Phase      Phase
	Generation uint32
	Attempt    uint32
}

// Tick says that the time has come that State.Wake named.
type Tick struct{}

// Cancel asks for backward recovery. It is idempotent.
type Cancel struct {
	By     string
	Reason string
}

// Retry settles a stalled step: its task is tried again, with a fresh policy.
// Input, if not nil, replaces the step's input under a new generation; that is
// allowed only where every attempt so far is known to have had no effect.
type Retry struct {
	Step   int
	Input  []byte
	By     string
	Reason string
}

// Skip settles a stalled step by leaving it: a compensation skipped marks the
// run waived; an action after the pivot counts as skipped.
type Skip struct {
	Step   int
	By     string
	Reason string // required
}

// Resolve settles a stalled step by the operator's knowledge of what happened:
// Applied says that the action (or the compensation, whichever is stalled) has
// taken effect, Output stands for its result. Not applied says it has not and
// will not: for a stalled unknown pivot the run then turns back; elsewhere it
// is not allowed.
type Resolve struct {
	Step    int
	Applied bool
	Output  []byte
	By      string
	Reason  string // required
}

// CommandKind is what a Command asks for.
type CommandKind uint8

const (
	Dispatch   CommandKind = iota + 1 // have a worker perform this attempt
	CancelTask                        // withdraw it if unsent (answer Withdrawn), else tell its worker to give up
)

// Command is one thing that the state asks the shell to do. An attempt that
// is outstanding has a Dispatch; after the turn to backward recovery an
// outstanding action has a CancelTask as well.
type Command struct {
	Kind       CommandKind
	Step       int
	Phase      Phase
	Generation uint32
	Attempt    uint32
	Scheduled  time.Time // when the attempt was decided
}

// NewState returns the state of a run before its Start.
func NewState(wf *definitions.Workflow) *State { panic("contract only") }

// State is the fold of a run's events. It is not safe for concurrent use.
type State struct{}

// Step decides on an input at time now, folds the resulting events into the
// state and returns them; none means that the input changes nothing. The
// events alias memory of the input (payloads).
func (s *State) Step(in Input, now time.Time) ([]Event, error) { panic("contract only") }

// Apply folds one event of the history.
func (s *State) Apply(e Event) error { panic("contract only") }

// Commands appends to buf what the state asks for, in a stable order.
func (s *State) Commands(buf []Command) []Command { panic("contract only") }

// Wake is when a Tick is wanted; zero if never.
func (s *State) Wake() time.Time { panic("contract only") }

// Seq is the number of the last event folded; 0 before Start.
func (s *State) Seq() uint64 { panic("contract only") }

// TaskInput is the payload of a step's task of the given phase and generation.
func (s *State) TaskInput(step int, p Phase) []byte { panic("contract only") }

// Checkpoint returns an event that, folded on top of the run's first record,
// yields this state. Its number follows Seq.
func (s *State) Checkpoint(now time.Time) Event { panic("contract only") }

// Event is a fact in a run's history.
type Event struct{}

// AppendEvents encodes events for a history record; DecodeEvents is the reverse.
func AppendEvents(buf []byte, events []Event) []byte { panic("contract only") }
func DecodeEvents(data []byte) ([]Event, error)      { panic("contract only") }
