package definitions

import "time"

// DefaultChildAttempts is how many child runs a step starts at most that is a
// workflow and sets no Retry.
const DefaultChildAttempts = 1

// Workflow makes the step a child run: of the version of that workflow, of
// whatever kind, that is active when the step starts. Its input is what Input
// says, its output the output of the step, its failure the failure of the step.
//
// A child that has ended undone or aborted had no effect, and the step has
// failed; one of which a part was left by an operator, or decided by itself,
// makes the outcome of the step unknown. What the child did is undone by the
// step's own compensation, an ordinary task of the step's service: a run that
// has succeeded is never undone by itself.
//
// By default there is one attempt, also after the pivot (DefaultChildAttempts).
// With Retry each attempt is another run. Timeout bounds the child, as a
// deadline of its own does; by default only the parent's deadline and the
// child's own do. A child step has no QueueTimeout.
func (s *StepBuilder) Workflow(name string) *StepBuilder {
	s.doc.workflow, s.doc.hasWorkflow = name, true
	return s
}

// childDocument is what a step has that is a child run, in place of an action.
type childDocument struct {
	workflow    string
	hasWorkflow bool
}

// child checks what is particular to a step that is a child run.
func (v *validator) child(i int) {
	s := &v.doc.steps[i]
	v.name(i, "workflow", s.workflow, "the name of the workflow is wanted of which a run is started")
	if s.queueTimeout != 0 {
		v.fault(i, "queue_timeout", RuleKind, "a child run waits for no worker: leave it out")
	}
	if s.compensation != "" {
		return
	}
	if s.service != "" {
		v.fault(i, "service", RuleKind, "only the compensation of a child run has a service, and there is none: leave it out")
	}
	if s.placement != Bounded {
		v.fault(i, "placement", RuleKind, "only the compensation of a child run is placed, and there is none: leave it out")
	}
}

// readChild reads what a step that is a child run has in place of an action.
func (f *fields) readChild() childDocument {
	return childDocument{workflow: f.text("workflow"), hasWorkflow: f.has("workflow")}
}

// defaultAttempts is how many attempts a step has that sets no number.
func (k StepKind) defaultAttempts(afterPivot bool) int {
	switch {
	case k == StepChild:
		return DefaultChildAttempts
	case afterPivot:
		return Unlimited
	}
	return DefaultMaxAttempts
}

// defaultTimeout is that of an attempt that sets none; 0: none.
func (k StepKind) defaultTimeout() time.Duration {
	if k == StepChild {
		return 0
	}
	return DefaultTimeout
}
