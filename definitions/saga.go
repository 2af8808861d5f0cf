package definitions

import (
	"slices"
	"time"
)

// SagaBuilder collects a saga. It is not safe for concurrent use.
type SagaBuilder struct {
	doc   document
	steps []*StepBuilder
}

// Saga begins the definition of a saga. The name identifies the workflow; it
// consists of letters, digits, '.', '_' and '-', starts with a letter or digit,
// and has at most MaxNameLength characters. The same holds for the names of
// steps, services and task types; a task type may name a version as well (see
// [SplitTaskType]).
func Saga(name string) *SagaBuilder {
	return &SagaBuilder{doc: document{kind: KindSaga, name: name}}
}

// Description sets a text for people; at most MaxTextBytes.
func (b *SagaBuilder) Description(text string) *SagaBuilder {
	b.doc.description = text
	return b
}

// Service sets the service of all steps that name none of their own.
func (b *SagaBuilder) Service(name string) *SagaBuilder {
	b.doc.service = name
	return b
}

// RoutingKey sets the expression for the string that is hashed onto the ring.
// It sees input alone, and yields a string or an integer. Default: the run id.
func (b *SagaBuilder) RoutingKey(expr string) *SagaBuilder {
	b.doc.routingKey = expr
	return b
}

// Deadline sets how long a run may take before it turns to backward recovery.
// Default 0: no deadline.
func (b *SagaBuilder) Deadline(d time.Duration) *SagaBuilder {
	b.doc.deadline = d
	return b
}

// Output sets the expression for the output of a run that succeeded. It sees
// input and the output of every step. Default: null.
func (b *SagaBuilder) Output(expr string) *SagaBuilder {
	b.doc.output = expr
	return b
}

// Step adds a step.
func (b *SagaBuilder) Step(name string) *StepBuilder {
	s := &StepBuilder{doc: stepDocument{name: name}}
	b.steps = append(b.steps, s)
	return s
}

// Build validates and compiles the definition. Its error is an *Invalid that
// lists every fault. The builder may be used further; the workflow keeps
// nothing of it.
func (b *SagaBuilder) Build() (*Workflow, error) {
	doc := b.doc
	doc.locks = slices.Clone(b.doc.locks)
	doc.steps = make([]stepDocument, len(b.steps))
	for i, s := range b.steps {
		doc.steps[i] = s.doc
	}
	return compile(doc, nil)
}

// MustBuild is Build for definitions in package variables; it panics on an
// invalid one.
func (b *SagaBuilder) MustBuild() *Workflow {
	wf, err := b.Build()
	if err != nil {
		panic(err)
	}
	return wf
}

// StepBuilder collects a step. Of two calls that set the same thing the later
// one counts.
type StepBuilder struct {
	doc stepDocument
}

// Service sets the service whose workers run the step's action and
// compensation. Default: the saga's.
func (s *StepBuilder) Service(name string) *StepBuilder {
	s.doc.service = name
	return s
}

// Action sets the task type of the action. It is required. With a version,
// "payments.charge@2", only workers that serve this version get its tasks.
func (s *StepBuilder) Action(taskType string) *StepBuilder {
	s.doc.action = taskType
	return s
}

// Compensation sets the task type that undoes the action.
func (s *StepBuilder) Compensation(taskType string) *StepBuilder {
	s.doc.compensation = taskType
	s.doc.undoService = ""
	return s
}

// NoCompensation says that the action is not undone, and why; the reason is
// shown to operators.
func (s *StepBuilder) NoCompensation(reason string) *StepBuilder {
	s.doc.noCompensation = reason
	s.doc.hasNoCompensation = true
	return s
}

// Do sets service and action from a typed task.
func (s *StepBuilder) Do(t TaskRef) *StepBuilder {
	s.doc.service = t.TaskService()
	s.doc.action = t.TaskType()
	return s
}

// Undo sets the compensation from a typed task. It must be one of the same
// service as the action.
func (s *StepBuilder) Undo(t TaskRef) *StepBuilder {
	s.doc.compensation = t.TaskType()
	s.doc.undoService = t.TaskService()
	return s
}

// Input sets the expression for the action's input. It sees input and the
// outputs of the step's ancestors. Default: the run's input.
func (s *StepBuilder) Input(expr string) *StepBuilder {
	s.doc.input = expr
	return s
}

// CompensationInput sets the expression for the compensation's input. It sees
// what Input sees, and the step's own output, which is null where the
// outcome of the action is unknown. Default: the action's input as it was sent.
func (s *StepBuilder) CompensationInput(expr string) *StepBuilder {
	s.doc.compensationInput = expr
	return s
}

// When sets a condition; where it is false the step is skipped. It sees what
// Input sees. Default: the step runs.
func (s *StepBuilder) When(expr string) *StepBuilder {
	s.doc.when = expr
	return s
}

// After names the steps that must have succeeded or been skipped before this
// one starts. Without a call it is the step written before; with no names the
// step waits for none.
func (s *StepBuilder) After(names ...string) *StepBuilder {
	s.doc.after = append([]string{}, names...)
	s.doc.hasAfter = true
	return s
}

// Pivot makes the step the saga's point of no return.
func (s *StepBuilder) Pivot() *StepBuilder {
	s.doc.pivot = true
	return s
}

// Retry sets the retry policy of the action.
func (s *StepBuilder) Retry(p RetryPolicy) *StepBuilder {
	p.NonRetryable = slices.Clone(p.NonRetryable)
	s.doc.retry = p
	return s
}

// CompensationRetry sets the retry policy of the compensation.
func (s *StepBuilder) CompensationRetry(p RetryPolicy) *StepBuilder {
	p.NonRetryable = slices.Clone(p.NonRetryable)
	s.doc.compensationRetry = p
	return s
}

// Timeout bounds one attempt of the action, from the moment a worker starts
// it. 0 means DefaultTimeout. Of a step that waits for a signal, it bounds the
// wait; 0 means none.
func (s *StepBuilder) Timeout(d time.Duration) *StepBuilder {
	s.doc.timeout = d
	return s
}

// CompensationTimeout bounds one attempt of the compensation. 0 means
// DefaultTimeout.
func (s *StepBuilder) CompensationTimeout(d time.Duration) *StepBuilder {
	s.doc.compensationTimeout = d
	return s
}

// QueueTimeout bounds how long an attempt may wait before a worker starts it.
// Default 0: no bound.
func (s *StepBuilder) QueueTimeout(d time.Duration) *StepBuilder {
	s.doc.queueTimeout = d
	return s
}

// Placement sets how a worker is chosen. Default: Bounded.
func (s *StepBuilder) Placement(p Placement) *StepBuilder {
	s.doc.placement = p
	return s
}
