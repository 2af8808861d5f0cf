package machine

import "time"

// EventKind says what an event tells. The numbers are stored.
type EventKind uint8

// The kinds of event. The comments name the fields in use beside Seq, At, Kind.
const (
	RunStarted       EventKind = iota + 1 // RunID, Key, RetryOf, Priority, Parent, Until: deadline, Payload: input
	AttemptScheduled                      // Step, Phase, Generation, Attempt, RunID: of a child run, Payload: the task's input if not the default
	AttemptSucceeded                      // ..., Worker, Payload: output, Late
	AttemptFailed                         // ..., Worker, Code, Message, Stack, Until: next attempt (zero: none), Payload: progress, Late. No effect
	AttemptUnknown                        // ..., Worker, Code, Message, Stack, Until, Payload: progress
	AttemptLost                           // ..., Worker, Code, Until, Payload: progress
	AttemptExpired                        // ..., Code, Until, Sent
	AttemptWithdrawn                      // ...
	AttemptClosed                         // ..., Worker: an attempt of a step already settled came to its end
	StepSkipped                           // Step: its condition is false, or Code: why
	StepFailed                            // Step, Phase, Generation, Code, Message: an expression failed
	StepStalled                           // Step, Phase, Code: why
	TurnedBack                            // Step (or -1), Code: why, Message
	CancelRequested                       // By, Message: reason
	DeadlinePassed                        //
	RetryOrdered                          // Step, Phase, Generation, Payload: other input, By, Message
	SkipOrdered                           // Step, Phase, By, Message
	StepResolved                          // Step, Phase, Applied, Payload: output, By, Message
	OutputFailed                          // Code, Message: the run ends without output
	RunSucceeded                          // Payload: output
	RunCompensated                        //
	Checkpointed                          // Payload: the state

	// Of runs with participants.
	AttemptReadOnly  // Step, Phase, Generation, Attempt, Worker, Payload: output, Late
	HeuristicOutcome // Step, Phase, Generation, Attempt, Worker, Code: which, Message
	DecidedCommit    // Payload: the run's output
	DecidedAbort     // Step (or -1), Code: why, Message
	RunCommitted     //
	RunAborted       //

	// Of steps without a task.
	WaitStarted    // Step, Until: when it ends by itself (zero: never)
	WaitEnded      // Step; of a signal Name, ID: which was taken, or Code: timeout, Payload: output
	SignalReceived // Name, ID, By, Payload
	ChoiceMade     // Step, Name: of the case

	// Of sagas.
	StepExpanded // Step, Payload: a list, an item for each element

	// Of named locks.
	LocksWanted // Payload: their names, in the order in which the run asks for them
	LockGranted // Key: its name, Token
	kindEnd
)

var kindNames = [kindEnd]string{
	RunStarted:       "run_started",
	AttemptScheduled: "attempt_scheduled",
	AttemptSucceeded: "attempt_succeeded",
	AttemptFailed:    "attempt_failed",
	AttemptUnknown:   "attempt_unknown",
	AttemptLost:      "attempt_lost",
	AttemptExpired:   "attempt_expired",
	AttemptWithdrawn: "attempt_withdrawn",
	AttemptClosed:    "attempt_closed",
	StepSkipped:      "step_skipped",
	StepFailed:       "step_failed",
	StepStalled:      "step_stalled",
	TurnedBack:       "turned_back",
	CancelRequested:  "cancel_requested",
	DeadlinePassed:   "deadline_passed",
	RetryOrdered:     "retry_ordered",
	SkipOrdered:      "skip_ordered",
	StepResolved:     "step_resolved",
	OutputFailed:     "output_failed",
	RunSucceeded:     "run_succeeded",
	RunCompensated:   "run_compensated",
	Checkpointed:     "checkpointed",
	AttemptReadOnly:  "attempt_read_only",
	HeuristicOutcome: "heuristic_outcome",
	DecidedCommit:    "decided_commit",
	DecidedAbort:     "decided_abort",
	RunCommitted:     "run_committed",
	RunAborted:       "run_aborted",
	WaitStarted:      "wait_started",
	WaitEnded:        "wait_ended",
	StepExpanded:     "step_expanded",
	LocksWanted:      "locks_wanted",
	LockGranted:      "lock_granted",
	SignalReceived:   "signal_received",
	ChoiceMade:       "choice_made",
}

// String returns the kind as a stable word, such as "attempt_scheduled".
func (k EventKind) String() string {
	if k == 0 || k >= kindEnd {
		return "invalid"
	}
	return kindNames[k]
}

// ofAttempt tells whether events of this kind name one attempt.
func (k EventKind) ofAttempt() bool {
	return k >= AttemptScheduled && k <= AttemptClosed || k == AttemptReadOnly || k == HeuristicOutcome
}

// Codes of failures, turns and stalls that the core itself makes.
const (
	CodeCancelled     = "cancelled"         // turn: a cancel request
	CodeDeadline      = "deadline_exceeded" // turn: the run's deadline passed
	CodeOutput        = "output"            // the workflow's output expression failed
	CodeStepFailed    = "step_failed"       // turn: a step failed for good, or its outcome is unknown
	CodeVotedNo       = "voted_no"          // decision: a participant did not prepare, or its vote is unknown
	CodeLockRefused   = "lock_refused"      // turn, decision: too many runs wait for a lock
	CodeExpression    = "expression"        // failure: a condition or an input expression
	CodeQueueTimeout  = "queue_timeout"     // failure: no worker started the task in time
	CodeIsolated      = "isolated"          // stall or failure: three workers died under the task
	CodeExhausted     = "exhausted"         // stall: the retry policy has ended
	CodeSignalTimeout = "signal_timeout"    // failure or stall: a signal did not come in time
	CodeNoCase        = "no_case"           // failure or stall: no case of a choice applies
	CodeBranch        = "branch"            // skipped: its choice took another case
	CodeFinal         = "final_failure"     // stall: a failure that may not be retried
)

// Codes with which a participant answers commit or abort if it has decided by
// itself (OutcomeFailed). The run records it and is marked for ever.
const (
	CodeHeuristicCommit   = "heuristic_commit"
	CodeHeuristicRollback = "heuristic_rollback"
	CodeHeuristicMixed    = "heuristic_mixed"
)

// Event is a fact in a run's history. Which fields an event has follows from
// its kind. Times have ms precision and are in UTC.
type Event struct {
	Seq        uint64 // within the run, from 1, without gaps but for checkpoints
	At         time.Time
	Kind       EventKind
	Phase      Phase // of the task; 0 if none
	Late       bool  // the attempt was no longer outstanding
	Sent       bool  // of AttemptExpired: it may have reached a worker
	Applied    bool  // of StepResolved
	Step       int   // -1: the run as a whole
	Generation uint32
	Attempt    uint32
	Worker     string
	Code       string
	Message    string
	Stack      string
	By         string
	Until      time.Time
	Payload    []byte
	RunID      string
	Key        string // routing key, if it is not the run id; of a lock: its name
	RetryOf    string
	Priority   uint8
	Token      uint64 // of a lock
	Name       string // of a signal, or of a case
	ID         string // of a signal: its sender's
	Parent     Parent
}
