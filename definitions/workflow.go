package definitions

import (
	"slices"
	"strconv"
	"time"
)

// Limits of a definition.
const (
	MaxSteps           = 256
	MaxNameLength      = 64      // characters of the name of a workflow, step, service or task type
	MaxVersionLength   = 32      // characters of the version of a task type
	MaxTextBytes       = 1024    // of a description or a reason
	MaxDefinitionBytes = 1 << 20 // of its JSON
	MaxExpressionBytes = 4096
	MaxNonRetryable    = 64      // codes in a retry policy
	MaxCodeBytes       = 128     // of such a code
	MaxRoutingKeyBytes = 255     // of an evaluated routing key
	MaxResultBytes     = 1 << 20 // of the JSON that an expression yields
	MaxRetryAttempts   = 1_000_000
	MaxMultiplier      = 100.0

	// MinDuration and MaxDuration bound every duration that is not zero.
	MinDuration = time.Millisecond
	MaxDuration = 366 * 24 * time.Hour
)

// DefaultTimeout bounds an attempt of a step that sets no timeout.
const DefaultTimeout = time.Minute

// Kind is the protocol that a workflow follows.
type Kind string

// The kinds.
const (
	// KindSaga: steps with compensations.
	KindSaga Kind = "saga"
	// KindTwoPhase: participants that prepare, and then all commit or all abort.
	KindTwoPhase Kind = "2pc"
	// KindTCC: the same protocol under the names try, confirm and cancel, with
	// participants that reserve by means of their own.
	KindTCC Kind = "tcc"
)

// HasParticipants tells whether workflows of this kind consist of participants,
// rather than of a saga's steps.
func (k Kind) HasParticipants() bool { return k == KindTwoPhase || k == KindTCC }

// Placement is how a worker is chosen for a step's tasks.
type Placement uint8

const (
	// Bounded follows the ring by routing key, but spills to the next worker
	// where one holds more than its share. It is the default.
	Bounded Placement = iota
	// Ring follows the ring strictly: the same key, the same worker.
	Ring
	// LeastLoaded ignores the routing key.
	LeastLoaded
)

// String returns the name as in JSON: bounded, ring or least-loaded.
func (p Placement) String() string {
	switch p {
	case Bounded:
		return "bounded"
	case Ring:
		return "ring"
	case LeastLoaded:
		return "least-loaded"
	}
	return "placement(" + strconv.Itoa(int(p)) + ")"
}

// Workflow is an immutable, validated and compiled definition. All methods are
// safe for concurrent use.
type Workflow struct {
	kind     Kind
	name     string
	text     string
	version  string
	json     []byte
	deadline time.Duration
	steps    []Step
	index    map[string]int
	pivot    int

	readsOutputs bool // whether any expression refers to a step
	routingKey   *expression
	output       *expression
	locks        []lockExpression
	serial       bool
	exprs        []stepExpressions
}

// Step is the compiled view of a step or, in a workflow whose kind
// HasParticipants, of a participant, with defaults resolved. It is read-only:
// its slices are shared.
//
// A participant has Prepare, Commit and Abort, and the settings of these, in
// place of Action and Compensation; it has no Preds and no Succs. A step whose
// Kind has no task has neither the one nor the other.
type Step struct {
	Index          int
	Name           string
	Kind           StepKind
	Service        string // empty: the kind has no task
	Action         string
	Workflow       string // of a child run, in place of Action
	Compensation   string // empty: nothing undoes the action
	NoCompensation string // the reason

	Pivot      bool
	AfterPivot bool // a descendant of the pivot

	Preds []int // the steps it comes after directly, ascending
	Succs []int // the steps that come after it directly, ascending

	Retry               RetryPolicy // of the action, or of prepare
	CompensationRetry   RetryPolicy
	Timeout             time.Duration
	CompensationTimeout time.Duration
	QueueTimeout        time.Duration // 0: none
	Placement           Placement

	Prepare       string // the task types of a participant
	Commit        string
	Abort         string
	PhaseTwoRetry RetryPolicy // of commit and abort; of prepare, and of a commit in one phase: Retry
	CommitTimeout time.Duration
	AbortTimeout  time.Duration

	Sleep         time.Duration // of a sleep; 0: until the time that SleepUntil yields
	HasSleepUntil bool
	// Of a step that fans out: how many of its items are under way at once, and
	// how many it takes (0: what the orchestrator allows).
	ForEach  bool
	Parallel int
	MaxItems int

	Signal           string // that a step of this kind waits for; its Timeout is 0 if there is none
	HasTimeoutOutput bool

	Cases  []Case // of a choice
	Branch Branch // that any step may be on

	HasWhen              bool
	HasInput             bool
	HasCompensationInput bool
}

// Name returns the workflow's name.
func (w *Workflow) Name() string { return w.name }

// Description returns the text for people.
func (w *Workflow) Description() string { return w.text }

// Version returns 32 hexadecimal digits: the first 16 bytes of the SHA-256 of
// JSON.
func (w *Workflow) Version() string { return w.version }

// Kind returns the workflow's kind.
func (w *Workflow) Kind() Kind { return w.kind }

// JSON returns a copy of the canonical JSON.
func (w *Workflow) JSON() []byte { return slices.Clone(w.json) }

// Deadline returns how long a run may take; 0: no deadline.
func (w *Workflow) Deadline() time.Duration { return w.deadline }

// Len returns the number of steps or participants.
func (w *Workflow) Len() int { return len(w.steps) }

// Step returns step i, 0 <= i < Len, in the order written. It must not be
// changed.
func (w *Workflow) Step(i int) *Step { return &w.steps[i] }

// StepIndex returns the index of the named step, or -1.
func (w *Workflow) StepIndex(name string) int {
	if i, ok := w.index[name]; ok {
		return i
	}
	return -1
}

// PivotIndex returns the index of the pivot, or -1.
func (w *Workflow) PivotIndex() int { return w.pivot }

// HasOutput reports whether the workflow has an output expression.
func (w *Workflow) HasOutput() bool { return w.output != nil }
