package machine

import (
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// stepState is how far the action of a step is.
type stepState uint8

const (
	stepPending   stepState = iota
	stepActive              // started, and not settled: an attempt is outstanding or waits
	stepSucceeded           // or resolved as applied
	stepSkipped             // by its condition, or by an operator
	stepFailed              // settled: no effect
	stepUnknown             // settled: may have had its effect
	stepStateEnd
)

// undoState is how far the compensation of a step is.
type undoState uint8

const (
	undoNone undoState = iota
	undoActive
	undoDone
	undoWaived   // skipped by an operator
	undoResolved // resolved by an operator as applied
	undoStateEnd
)

// task is one phase of a step: its attempts.
type task struct {
	generation uint32
	attempt    uint32 // number of the last attempt of the generation
	total      uint32 // attempts over all generations, as users see them
	round      uint32 // attempts since the retry policy began anew
	unknown    uint32 // attempts of the generation whose outcome is unknown
	lost       uint32 // the last of these if it was declared lost and may still answer
	deaths     uint8  // workers that died under it since the policy began anew

	outstanding bool // the last attempt is scheduled and not answered
	waiting     bool // the next attempt is due at retryAt
	ordered     bool // input was given by an operator

	roundAt   int64 // when the policy began anew, ms
	scheduled int64 // when the last attempt was
	retryAt   int64
	input     []byte // if it is not the default
	progress  []byte // what an attempt that did not succeed had reported last
}

// failure is the last failure of a step.
type failure struct{ code, message, stack string }

// step is the state of one step or participant. A participant has its vote in
// the place of the action, and its commit or abort in that of the compensation;
// a single one, its commit in the place of the action.
type step struct {
	state    stepState
	undo     undoState
	stalled  Phase // which phase needs an operator; 0: none
	resolved bool  // the action was, by an operator

	heuristic bool // the participant decided by itself
	action    task
	comp      *task // nil until the compensation begins
	output    []byte
	worker    string // that answered last
	fail      *failure
	fan       *fan  // of a step that has fanned out
	of        int32 // of an item: its step
	class     class // of an item: for what its step's fan counts it
	started   int64
	ended     int64
	until     int64 // when the step's wait ends by itself; 0: it does not wait
}

// State is the fold of a run's events. It is not safe for concurrent use.
type State struct {
	wf *definitions.Workflow

	participants bool // the workflow's kind has them
	single       bool // there is one: its commit is the decision

	// What the first event says.
	runID, key, retryOf string
	priority            uint8
	parent              Parent
	input               []byte
	created             int64
	deadline            int64 // 0: none

	// What the rest says; a checkpoint holds all of it.
	seq         uint64
	at          int64 // of the last event
	status      Status
	turned      bool // to backward recovery, or abort was decided
	passed      bool // the pivot has succeeded or was skipped, or commit was decided: only forward
	cancelled   bool // a cancel was asked for
	overdue     bool // the deadline has passed
	waived      bool
	heuristic   bool // of a participant's outcome
	stalls      int  // steps that need an operator
	turnedBy    int  // step that turned the run; -1
	turnCode    string
	turnMessage string
	cancelWhy   string
	output      []byte
	locks       []LockView
	steps       []step // of the workflow, then their items
	fans        []int  // steps that have fanned out, in that order
	maxItems    int
	signals     []signal // in the order of their coming

	// What is made from the above when needed.
	scope *definitions.Scope
	order []int // steps, each after those it comes after
}

// NewState returns the state of a run before its Start.
func NewState(wf *definitions.Workflow) *State {
	participants := wf.Kind().HasParticipants()
	return &State{
		wf: wf, turnedBy: -1, maxItems: DefaultMaxItems, steps: make([]step, wf.Len()),
		participants: participants, single: participants && wf.Len() == 1,
	}
}

// Fold returns the state after events, which begin with a run's first.
func Fold(wf *definitions.Workflow, events []Event) (*State, error) {
	s := NewState(wf)
	for i := range events {
		if err := s.apply(&events[i]); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// task returns the attempts of a phase of a step; nil if there are none yet.
func (s *State) task(i int, p Phase) *task {
	if !s.first(p) {
		return s.steps[i].comp
	}
	return &s.steps[i].action
}

// first tells whether p is the phase with which a step or participant begins.
func (s *State) first(p Phase) bool {
	return p == Action || p == Prepare || p == Commit && s.single
}

// ensure is task for writing.
func (s *State) ensure(i int, p Phase) *task {
	st := &s.steps[i]
	if s.first(p) {
		return &st.action
	}
	if st.comp == nil {
		st.comp = &task{}
	}
	return st.comp
}

// settled tells whether the phase of a step has come to its outcome. A stalled
// one has not.
func (s *State) settled(i int, p Phase) bool {
	st := &s.steps[i]
	if !s.first(p) {
		return st.undo >= undoDone || s.participants && !s.concerned(i)
	}
	return st.state > stepActive && st.stalled != p
}

// Workflow returns the definition of the run.
func (s *State) Workflow() *definitions.Workflow { return s.wf }

// Seq is the number of the last event folded; 0 before Start.
func (s *State) Seq() uint64 { return s.seq }

// Status of the run; 0 before Start.
func (s *State) Status() Status { return s.status }

// RunID is the id that Start gave.
func (s *State) RunID() string { return s.runID }

// RoutingKey is the string to hash onto the ring: what Start or the workflow
// said, else the run id.
func (s *State) RoutingKey() string {
	if s.key == "" {
		return s.runID
	}
	return s.key
}

// Priority says before which other runs its tasks go where they wait: higher
// ones first.
func (s *State) Priority() uint8 { return s.priority }

// RetryOf is the id of the run that this one retries; or empty.
func (s *State) RetryOf() string { return s.retryOf }

// Input is the run's input; empty is null.
func (s *State) Input() []byte { return s.input }

// Output is the run's output, once it has succeeded or its commit was decided;
// empty is null.
func (s *State) Output() []byte { return s.output }

// Created is when the run started.
func (s *State) Created() time.Time { return fromMilli(s.created) }

// Updated is when its last event happened.
func (s *State) Updated() time.Time { return fromMilli(s.at) }

// Deadline is when the run turns back if it has not passed its pivot, or aborts
// if it is not decided; zero if never.
func (s *State) Deadline() time.Time { return fromMilli(s.deadline) }

// Waived tells whether an effect stays that should have been compensated: an
// operator skipped the compensation, or said that a pivot had not happened
// whose success came in later. Of a run with participants: an operator skipped a
// commit or an abort.
func (s *State) Waived() bool { return s.waived }

// CancelRequested tells whether a cancel was asked for, whether or not it could
// be followed.
func (s *State) CancelRequested() bool { return s.cancelled }

// FailedStep is the step that needs an operator (the first of them), else the
// one that turned the run to backward recovery or made it abort; -1 if there is
// none.
func (s *State) FailedStep() int {
	if s.stalls > 0 {
		for i := range s.live() {
			if s.steps[i].stalled != 0 {
				return i
			}
		}
	}
	return s.turnedBy
}

// Failure is the code and the message of what FailedStep speaks of, or of a
// turn that was no step's doing; empty if nothing failed for good.
func (s *State) Failure() (code, message string) {
	if s.stalls > 0 {
		if f := s.steps[s.FailedStep()].fail; f != nil {
			return f.code, f.message
		}
		return "", ""
	}
	return s.turnCode, s.turnMessage
}

// StalledSteps appends the steps that need an operator to buf.
func (s *State) StalledSteps(buf []int) []int {
	for i := range s.live() {
		if s.steps[i].stalled != 0 {
			buf = append(buf, i)
		}
	}
	return buf
}

// TaskInput is the payload of a step's task of the given phase, in its present
// generation: what the definition's expression or an operator made of it, else
// the run's input for an action (for an item's, the item), and the action's input for a compensation.
func (s *State) TaskInput(step int, p Phase) []byte {
	if step < 0 || step >= len(s.steps) {
		return nil
	}
	if p == Compensate {
		if c := s.steps[step].comp; c != nil && len(c.input) > 0 {
			return c.input
		}
	}
	if in := s.steps[step].action.input; len(in) > 0 {
		return in
	}
	if step >= s.wf.Len() {
		return s.item(step).Value
	}
	return orNull(s.input)
}

// Progress is what the last attempt of a step's phase that did not succeed had
// reported; empty if nothing is known, or the phase has succeeded since.
func (s *State) Progress(step int, p Phase) []byte {
	if step < 0 || step >= len(s.steps) {
		return nil
	}
	if t := s.task(step, p); t != nil {
		return t.progress
	}
	return nil
}

// Deaths is how many workers have died under a step's phase since its policy
// began anew.
func (s *State) Deaths(step int, p Phase) int {
	if step < 0 || step >= len(s.steps) {
		return 0
	}
	if t := s.task(step, p); t != nil {
		return int(t.deaths)
	}
	return 0
}

// Wake is when a Tick is wanted; zero if never.
func (s *State) Wake() time.Time {
	if s.status == 0 || s.status.Final() {
		return time.Time{}
	}
	var wake int64
	found := false
	earliest := func(ms int64) {
		if !found || ms < wake {
			wake, found = ms, true
		}
	}
	if s.deadline != 0 && !s.overdue && !s.turned {
		earliest(s.deadline)
	}
	if s.more() {
		earliest(s.at)
	}
	for i := range s.live() {
		st := &s.steps[i]
		if st.action.waiting && !s.turned {
			earliest(st.action.retryAt)
		}
		if st.until != 0 {
			earliest(st.until)
		}
		if st.comp != nil && st.comp.waiting {
			earliest(st.comp.retryAt)
		}
	}
	if !found {
		return time.Time{}
	}
	return time.UnixMilli(wake).UTC()
}

// orNull is the JSON text p, null if it is empty.
func orNull(p []byte) []byte {
	if len(p) == 0 {
		return []byte("null")
	}
	return p
}

// getScope returns what expressions see now.
func (s *State) getScope() *definitions.Scope {
	if s.scope == nil {
		s.scope = s.wf.NewScope(orNull(s.input))
		for i := range s.wf.Len() {
			if out := s.steps[i].output; len(out) > 0 {
				s.scope.SetOutput(i, out)
			}
		}
	}
	return s.scope
}
