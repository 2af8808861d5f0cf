package machine

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// observer watches a run's events, and nothing else, and checks the invariants
// by what they say. It shares no code with the state.
type observer struct {
	wf     *definitions.Workflow
	steps  []observedStep
	status Status
	turned bool
	passed bool
	ended  EventKind
	waived bool
	locks  int  // that it wants and does not hold
	asked  bool // cancel or deadline
	last   time.Time

	signals []observedSignal
}

type observedSignal struct {
	name, id string
	taken    bool
}

type observedStep struct {
	items   []int // of a step that has fanned out
	fanned  bool
	of      int       // of an item: its step; else itself
	until   time.Time // when its wait ends by itself
	chosen  string    // case of a choice
	outcome string    // "", active, succeeded, skipped, failed, unknown
	undone  string    // "", active, compensated, waived, resolved
	stalled Phase
	task    [Compensate + 1]observedTask
}

type observedTask struct {
	generation, attempt uint32
	outstanding         bool
	made                int // ever, without those withdrawn
	round               int
	begun               time.Time
	until               time.Time
	ordered             bool // by an operator: no policy holds the next attempt
	deaths              int
	unknown             map[uint32]bool
}

func newObserver(wf *definitions.Workflow) *observer {
	o := &observer{wf: wf, steps: make([]observedStep, wf.Len())}
	for i := range o.steps {
		o.steps[i].of = i
	}
	return o
}

// def is the definition that a step follows, or the step of an item.
func (o *observer) def(i int) *definitions.Step { return o.wf.Step(o.steps[i].of) }

func (o *observer) descendants(i int, seen map[int]bool) map[int]bool {
	for _, j := range o.def(i).Succs {
		if !seen[j] {
			seen[j] = true
			o.descendants(j, seen)
		}
	}
	return seen
}

// calledFor tells whether the step is to be compensated, by what is known.
func (o *observer) calledFor(i int) bool {
	s := &o.steps[i]
	return !s.fanned && (s.outcome == "succeeded" || s.outcome == "unknown") && o.def(i).Compensation != ""
}

func (o *observer) undoOpen(i int) bool {
	if o.steps[i].fanned {
		return slices.ContainsFunc(o.steps[i].items, o.undoOpen)
	}
	return o.calledFor(i) && (o.steps[i].undone == "" || o.steps[i].undone == "active")
}

// see takes one event; the error names the invariant that it breaks.
func (o *observer) see(e Event) error {
	err := o.saw(e)
	o.join()
	return err
}

func (o *observer) saw(e Event) error {
	if o.ended != 0 {
		return fmt.Errorf("S1: %v after %v", e.Kind, o.ended)
	}
	o.last = e.At
	switch e.Kind {
	case LocksWanted:
		locks, err := decodeLocks(e.Payload)
		o.locks = len(locks)
		return err
	case LockGranted:
		o.locks--
	case AttemptScheduled:
		if err := o.window(e); err != nil {
			return err
		}
		return o.scheduled(e)
	case StepExpanded:
		return o.expanded(e)
	case AttemptSucceeded:
		return o.succeeded(e)
	case AttemptFailed, AttemptUnknown, AttemptLost, AttemptExpired, AttemptWithdrawn, AttemptClosed:
		return o.unsuccessful(e)
	case StepSkipped:
		o.steps[e.Step].outcome = "skipped"
		o.pass(e.Step)
	case WaitStarted, WaitEnded:
		return o.wait(e)
	case SignalReceived:
		return o.signal(e)
	case ChoiceMade:
		return o.choice(e)
	case StepFailed:
		t := &o.steps[e.Step].task[e.Phase]
		t.generation = e.Generation
		if e.Phase == Action {
			o.steps[e.Step].outcome = "failed"
		} else {
			o.steps[e.Step].undone = "active"
		}
	case StepStalled:
		s := &o.steps[e.Step]
		if e.Phase == Action && !o.passed && !(o.def(e.Step).Pivot && s.outcome == "unknown") {
			return fmt.Errorf("S7: action of %d stalled before the pivot", e.Step)
		}
		s.stalled = e.Phase
	case CancelRequested, DeadlinePassed:
		o.asked = true
	case TurnedBack:
		return o.turn(e)
	case RetryOrdered, SkipOrdered, StepResolved:
		return o.order(e)
	case RunSucceeded:
		return o.end(e, o.checkSucceeded())
	case RunCompensated:
		return o.end(e, o.checkCompensated())
	}
	return nil
}

func (o *observer) end(e Event, err error) error {
	o.ended = e.Kind
	return err
}

func (o *observer) pass(i int) {
	if o.def(i).Pivot && !o.turned {
		o.passed = true
	}
}

func (o *observer) scheduled(e Event) error {
	s := &o.steps[e.Step]
	t := &s.task[e.Phase]
	switch {
	case o.locks > 0:
		return fmt.Errorf("step %d starts while %d locks are not held", e.Step, o.locks)
	case t.outstanding:
		return fmt.Errorf("two attempts outstanding of step %d", e.Step)
	case s.stalled != 0:
		return fmt.Errorf("S8: attempt of stalled step %d", e.Step)
	case e.Generation == t.generation && e.Attempt != t.attempt+1:
		return fmt.Errorf("attempt %d follows %d", e.Attempt, t.attempt)
	case e.Generation < t.generation:
		return fmt.Errorf("generation %d follows %d", e.Generation, t.generation)
	}
	var err error
	if e.Phase == Action {
		err = o.mayAct(e)
	} else {
		err = o.mayUndo(e)
	}
	if err != nil {
		return err
	}
	if e.Generation != t.generation {
		t.unknown = nil
	}
	t.generation, t.attempt, t.outstanding = e.Generation, e.Attempt, true
	t.made++
	if t.round++; t.round == 1 {
		t.begun = e.At
	}
	policy := o.def(e.Step).Retry
	if e.Phase == Compensate {
		policy = o.def(e.Step).CompensationRetry
	}
	switch {
	case policy.MaxAttempts > 0 && t.round > policy.MaxAttempts:
		return fmt.Errorf("S8: attempt %d of a round, policy allows %d", t.round, policy.MaxAttempts)
	case !t.ordered && e.At.Before(t.until):
		return fmt.Errorf("S8: attempt at %v, not before %v", e.At, t.until)
	case t.deaths >= 3:
		return fmt.Errorf("S8: attempt of an isolated task")
	}
	t.ordered = false
	return nil
}

func (o *observer) mayAct(e Event) error {
	s := &o.steps[e.Step]
	if o.turned {
		return fmt.Errorf("S4: action of %d starts after the turn", e.Step)
	}
	if o.offBranch(e.Step) {
		return fmt.Errorf("step %d starts off its branch", e.Step)
	}
	for _, p := range o.def(e.Step).Preds {
		if out := o.steps[p].outcome; out != "succeeded" && out != "skipped" {
			return fmt.Errorf("S3: step %d starts while %d is %q", e.Step, p, out)
		}
	}
	if s.outcome != "" && s.outcome != "active" {
		return fmt.Errorf("S9: action of %d starts though it is %s", e.Step, s.outcome)
	}
	s.outcome = "active"
	return nil
}

func (o *observer) mayUndo(e Event) error {
	s := &o.steps[e.Step]
	switch {
	case !o.turned:
		return fmt.Errorf("S4: compensation of %d before the turn", e.Step)
	case o.passed:
		return fmt.Errorf("S7: compensation of %d after the pivot", e.Step)
	case !o.calledFor(e.Step):
		return fmt.Errorf("S2: compensation of %d which is %q", e.Step, s.outcome)
	case s.undone != "" && s.undone != "active":
		return fmt.Errorf("S2: compensation of %d which is %s", e.Step, s.undone)
	}
	for i := range o.steps {
		if o.steps[i].task[Action].outstanding {
			return fmt.Errorf("S4: compensation of %d while action of %d is in flight", e.Step, i)
		}
	}
	if s.undone == "" {
		for j := range o.descendants(e.Step, map[int]bool{}) {
			if o.undoOpen(j) {
				return fmt.Errorf("S4: compensation of %d before that of %d", e.Step, j)
			}
		}
	}
	s.undone = "active"
	return nil
}

func (o *observer) succeeded(e Event) error {
	s := &o.steps[e.Step]
	t := &s.task[e.Phase]
	if t.generation == e.Generation && t.attempt == e.Attempt {
		t.outstanding = false
	}
	if s.stalled == e.Phase {
		s.stalled = 0
	}
	if e.Phase == Compensate {
		if s.undone != "active" {
			return fmt.Errorf("S2: compensation of %d succeeds when %q", e.Step, s.undone)
		}
		s.undone = "compensated"
		return nil
	}
	if s.outcome == "succeeded" || s.outcome == "skipped" {
		return fmt.Errorf("S9: step %d succeeds when %s", e.Step, s.outcome)
	}
	s.outcome = "succeeded"
	o.pass(e.Step)
	return nil
}

func (t *observedTask) anyUnknown() bool {
	for _, u := range t.unknown {
		if u {
			return true
		}
	}
	return false
}

func (t *observedTask) verdict() string {
	if t.anyUnknown() {
		return "unknown"
	}
	return "failed"
}

func (o *observer) unsuccessful(e Event) error {
	s := &o.steps[e.Step]
	t := &s.task[e.Phase]
	if e.Late {
		if e.Kind != AttemptFailed || s.stalled != 0 || e.Phase == Action && (o.turned || s.outcome != "active") {
			return fmt.Errorf("S9: late %v of step %d which is %s", e.Kind, e.Step, s.outcome)
		}
		if !t.unknown[e.Attempt] {
			return fmt.Errorf("S9: late failure of attempt %d that was not unknown", e.Attempt)
		}
		t.unknown[e.Attempt] = false
		return nil
	}
	if !t.outstanding || t.generation != e.Generation || t.attempt != e.Attempt {
		return fmt.Errorf("S9: %v of attempt %d which is not outstanding", e.Kind, e.Attempt)
	}
	t.outstanding = false
	if e.Kind == AttemptClosed {
		return nil
	}
	t.until = e.Until
	switch {
	case e.Kind == AttemptWithdrawn:
		t.made--
		t.round--
	case e.Kind == AttemptUnknown, e.Kind == AttemptLost, e.Kind == AttemptExpired && e.Sent:
		if t.unknown == nil {
			t.unknown = map[uint32]bool{}
		}
		t.unknown[e.Attempt] = true
	}
	if e.Kind == AttemptLost && (e.Code == "worker_died" || e.Code == CodeIsolated) {
		t.deaths++
	}
	if e.Phase == Action && (o.turned || e.Until.IsZero()) {
		s.outcome = t.verdict()
		if t.made == 0 {
			s.outcome = ""
		}
	}
	return nil
}

func (o *observer) turn(e Event) error {
	if o.turned || o.passed {
		return fmt.Errorf("S7: turned back though turned %v, passed %v", o.turned, o.passed)
	}
	if p := o.wf.PivotIndex(); p >= 0 {
		s := &o.steps[p]
		if s.task[Action].outstanding || s.outcome == "unknown" || s.outcome == "active" && s.task[Action].anyUnknown() {
			return fmt.Errorf("S7: turned back while the pivot is in the balance")
		}
	}
	o.turned = true
	for i := range o.steps {
		if s := &o.steps[i]; s.outcome == "active" && !s.fanned && !s.task[Action].outstanding {
			s.outcome = s.task[Action].verdict()
			if s.task[Action].made == 0 {
				s.outcome = ""
			}
		}
	}
	return nil
}

func (o *observer) order(e Event) error {
	s := &o.steps[e.Step]
	t := &s.task[e.Phase]
	if s.stalled != e.Phase {
		return fmt.Errorf("%v of step %d which is not stalled", e.Kind, e.Step)
	}
	s.stalled = 0
	switch {
	case e.Kind == RetryOrdered:
		if len(e.Payload) > 0 {
			if t.anyUnknown() {
				return fmt.Errorf("S5: new generation of %d though an attempt is unknown", e.Step)
			}
			t.generation, t.attempt = e.Generation, 0
		}
		t.round, t.deaths, t.ordered = 0, 0, true
		if e.Phase == Action {
			s.outcome = "active"
		}
	case e.Kind == SkipOrdered && e.Phase == Action:
		s.outcome = "skipped"
	case e.Kind == SkipOrdered:
		s.undone = "waived"
		o.waived = true
	case e.Phase == Compensate:
		s.undone = "resolved"
	case e.Applied && o.def(e.Step).Kind == definitions.StepChoice:
		s.outcome, s.chosen = "succeeded", strings.Trim(string(e.Payload), `"`)
	case e.Applied:
		s.outcome = "succeeded"
		o.pass(e.Step)
	default:
		s.outcome = "failed"
	}
	return nil
}

func (o *observer) checkSucceeded() error {
	for i := range o.steps {
		s := &o.steps[i]
		if s.outcome != "succeeded" && s.outcome != "skipped" {
			return fmt.Errorf("S2: succeeded, but step %d is %q", i, s.outcome)
		}
		if s.task[Compensate].made > 0 {
			return fmt.Errorf("S2: succeeded, but step %d was compensated", i)
		}
	}
	return nil
}

func (o *observer) checkCompensated() error {
	for i := range o.steps {
		if o.undoOpen(i) {
			return fmt.Errorf("S2: compensated, but step %d is %s and not undone", i, o.steps[i].outcome)
		}
		if o.steps[i].task[Action].outstanding {
			return fmt.Errorf("S4: compensated, but the action of %d is in flight", i)
		}
	}
	return nil
}

// word is what the step may be called.
func (o *observer) word(i int) []string {
	s := &o.steps[i]
	switch {
	case s.fanned:
		return o.fanWords(s)
	case s.stalled != 0:
		return []string{"stalled"}
	case s.undone == "active":
		return []string{"compensating"}
	case s.undone != "":
		return []string{s.undone}
	case s.outcome == "":
		return []string{"pending"}
	case s.outcome == "active" && s.task[Action].outstanding:
		return []string{"running"}
	case s.outcome == "active" && !o.def(i).Kind.HasTask():
		return []string{map[definitions.StepKind]string{definitions.StepSleep: "sleeping", definitions.StepSignal: "waiting"}[o.def(i).Kind]}
	case s.outcome == "active":
		return []string{"retrying"}
	case s.outcome == "succeeded":
		return []string{"succeeded", "resolved"}
	}
	return []string{s.outcome}
}

// transitions are the legal ones of S1.
var transitions = map[Status][]Status{
	0:            {Running, Compensating, Stalled, Succeeded, Compensated},
	Running:      {Running, Compensating, Stalled, Succeeded, Compensated},
	Compensating: {Compensating, Stalled, Compensated},
	Stalled:      {Stalled, Running, Compensating, Succeeded, Compensated},
	Succeeded:    {Succeeded},
	Compensated:  {Compensated},
}

// moved checks the status after a step.
func (o *observer) moved(to Status) error {
	from := o.status
	o.status = to
	if !slices.Contains(transitions[from], to) || o.turned && (to == Running || to == Succeeded) {
		return fmt.Errorf("S1: from %v to %v", from, to)
	}
	return nil
}
