package machine

import (
	"errors"
	"time"
)

// Errors of inputs that the present state does not take. The state is
// unchanged.
var (
	ErrEnded      = errors.New("the run has ended")
	ErrNotStalled = errors.New("the step is not stalled")
	ErrNoStep     = errors.New("no such step")
	ErrNotAllowed = errors.New("not allowed in this state")
	// ErrRejected: the input itself is at fault, whatever the state: a routing
	// key that cannot be computed, a reason that is missing.
	ErrRejected = errors.New("rejected")
	// ErrRepeated: the run has received this signal before.
	ErrRepeated = errors.New("received before")
	// ErrTooMany: a limit is reached.
	ErrTooMany = errors.New("too many")
)

// Status of a run. The numbers are stable: they are stored.
type Status uint8

// The statuses. A run that has not started has status 0.
const (
	Running Status = iota + 1
	Compensating
	Stalled
	Succeeded
	Compensated
	Committed
	Aborted
)

// Final tells whether a run with this status has ended.
func (s Status) Final() bool { return s >= Succeeded }

// String returns the word that users see.
func (s Status) String() string {
	switch s {
	case Running:
		return "running"
	case Compensating:
		return "compensating"
	case Stalled:
		return "stalled"
	case Succeeded:
		return "succeeded"
	case Compensated:
		return "compensated"
	case Committed:
		return "committed"
	case Aborted:
		return "aborted"
	}
	return "none"
}

// Phase of a step's task. The numbers equal those of the protocol.
type Phase uint8

// The phases. The zero value is not a phase.
const (
	Action Phase = iota + 1
	Compensate
	Prepare
	Commit
	Abort
)

// String returns the protocol's word for the phase; "" for none.
func (p Phase) String() string {
	switch p {
	case Action:
		return "action"
	case Compensate:
		return "compensate"
	case Prepare:
		return "prepare"
	case Commit:
		return "commit"
	case Abort:
		return "abort"
	}
	return ""
}

// Outcome of one attempt, as its worker reported it.
type Outcome uint8

// The outcomes.
const (
	OutcomeSucceeded Outcome = iota + 1
	OutcomeFailed            // asserts: no effect
	OutcomeUnknown
	OutcomeReadOnly // of a participant's prepare: yes, with nothing to commit or abort
)

// LossReason says why an attempt will not answer, as far as the shell knows.
type LossReason uint8

// The reasons.
const (
	LostWorkerDied LossReason = iota + 1 // counts towards isolation after three
	LostTimeout
	LostVanished // its worker does not list it
)

// code is the reason as a failure code.
func (r LossReason) code() string {
	switch r {
	case LostWorkerDied:
		return "worker_died"
	case LostTimeout:
		return "timeout"
	}
	return "vanished"
}

// Input is what happens to a run: one of Start, Result, Lost, Expired,
// Withdrawn, Granted, Refused, Tick, Cancel, Retry, Skip, Resolve, Signal, or a pointer to one.
type Input interface{ input() }

func (Start) input()     {}
func (Result) input()    {}
func (Lost) input()      {}
func (Expired) input()   {}
func (Withdrawn) input() {}
func (Tick) input()      {}
func (Cancel) input()    {}
func (Retry) input()     {}
func (Skip) input()      {}
func (Resolve) input()   {}
func (Signal) input()    {}

// Start is the first input of every run.
type Start struct {
	RunID    string
	Input    []byte    // JSON; empty is null
	Key      string    // routing key; empty: the workflow's expression, else the run id
	Deadline time.Time // zero: the workflow's, counted from now
	RetryOf  string
	Priority uint8 // tasks of runs with a higher one go first where they wait

	// Parent is set of a child. Its key is that of its own workflow, and Key only
	// if that computes none; its deadline is the earlier one of Deadline and what
	// its workflow says.
	Parent Parent
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
	Output     []byte // of a success; else the progress that the handler reported last
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
	Progress   []byte // that its worker reported last
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

// Withdrawn answers a CancelTask or a Withdraw command: the attempt had never left the
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
// allowed only where every attempt so far is known to have had no effect, and
// never for a participant, whose tasks all have the input that it prepared.
type Retry struct {
	Step   int
	Input  []byte
	By     string
	Reason string
}

// Skip settles a stalled step by leaving it: a compensation skipped marks the
// run waived, and so does a commit or an abort; an action after the pivot counts
// as skipped. The pivot itself, and the commit of a single participant, cannot be
// skipped: say with Resolve whether it has happened.
type Skip struct {
	Step   int
	By     string
	Reason string // required
}

// Resolve settles a stalled step by the operator's knowledge of what happened:
// Applied says that the action (or the compensation, whichever is stalled) has
// taken effect, Output stands for its result. Not applied says it has not and
// will not: for a stalled unknown pivot the run then turns back, for a single
// participant's commit it is aborted; elsewhere it is not allowed.
type Resolve struct {
	Step    int
	Applied bool
	Output  []byte
	By      string
	Reason  string // required
}
