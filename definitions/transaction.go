package definitions

import (
	"slices"
	"time"
)

// TransactionBuilder collects a two-phase commit or a TCC. It is not safe for
// concurrent use.
type TransactionBuilder struct {
	doc          document
	participants []*ParticipantBuilder
}

// TwoPhase begins the definition of a two-phase commit. For the name the rules
// of [Saga] hold.
func TwoPhase(name string) *TransactionBuilder {
	return &TransactionBuilder{doc: document{kind: KindTwoPhase, name: name}}
}

// TCC begins the definition of a TCC (try, confirm, cancel). The protocol is
// that of [TwoPhase]; for the name the rules of [Saga] hold.
func TCC(name string) *TransactionBuilder {
	return &TransactionBuilder{doc: document{kind: KindTCC, name: name}}
}

// Description sets a text for people; at most MaxTextBytes.
func (b *TransactionBuilder) Description(text string) *TransactionBuilder {
	b.doc.description = text
	return b
}

// Service sets the service of all participants that name none of their own.
func (b *TransactionBuilder) Service(name string) *TransactionBuilder {
	b.doc.service = name
	return b
}

// RoutingKey sets the expression for the string that is hashed onto the ring.
// It sees input alone, and yields a string or an integer. Default: the run id.
func (b *TransactionBuilder) RoutingKey(expr string) *TransactionBuilder {
	b.doc.routingKey = expr
	return b
}

// Deadline sets how long a run may take until it is decided; one that is not
// decided by then aborts. Default 0: no deadline.
func (b *TransactionBuilder) Deadline(d time.Duration) *TransactionBuilder {
	b.doc.deadline = d
	return b
}

// Output sets the expression for the output of a run that commits. It sees
// input, and as output of each participant what its prepare yielded (of a
// single participant, its commit). It is evaluated before the decision: where
// it fails the run aborts. Default: null.
func (b *TransactionBuilder) Output(expr string) *TransactionBuilder {
	b.doc.output = expr
	return b
}

// Participant adds a participant. The order of participants means nothing: they
// prepare side by side. A single one is committed in one phase, by its Commit.
func (b *TransactionBuilder) Participant(name string) *ParticipantBuilder {
	p := &ParticipantBuilder{doc: stepDocument{name: name}}
	b.participants = append(b.participants, p)
	return p
}

// Build validates and compiles the definition. Its error is an *Invalid that
// lists every fault. The builder may be used further; the workflow keeps
// nothing of it.
func (b *TransactionBuilder) Build() (*Workflow, error) {
	doc := b.doc
	doc.locks = slices.Clone(b.doc.locks)
	doc.steps = make([]stepDocument, len(b.participants))
	for i, p := range b.participants {
		doc.steps[i] = p.doc
	}
	return compile(doc, nil)
}

// MustBuild is Build for definitions in package variables; it panics on an
// invalid one.
func (b *TransactionBuilder) MustBuild() *Workflow {
	wf, err := b.Build()
	if err != nil {
		panic(err)
	}
	return wf
}

// ParticipantBuilder collects a participant. Of two calls that set the same
// thing the later one counts.
type ParticipantBuilder struct {
	doc stepDocument
}

// Service sets the service whose workers run the participant's tasks. Default:
// the workflow's.
func (p *ParticipantBuilder) Service(name string) *ParticipantBuilder {
	p.doc.service = name
	return p
}

// Prepare sets the task type that prepares and votes. It is required, as are
// Commit and Abort, and the three differ.
func (p *ParticipantBuilder) Prepare(taskType string) *ParticipantBuilder {
	p.doc.participant.prepare = taskType
	return p
}

// Commit sets the task type that makes what was prepared take effect.
func (p *ParticipantBuilder) Commit(taskType string) *ParticipantBuilder {
	p.doc.participant.commit, p.doc.participant.commitService = taskType, ""
	return p
}

// Abort sets the task type that gives up what was prepared. It may come ahead of
// the prepare, which is to be refused from then on, and without one.
func (p *ParticipantBuilder) Abort(taskType string) *ParticipantBuilder {
	p.doc.participant.abort, p.doc.participant.abortService = taskType, ""
	return p
}

// Try is the TCC's word for Prepare.
func (p *ParticipantBuilder) Try(taskType string) *ParticipantBuilder { return p.Prepare(taskType) }

// Confirm is the TCC's word for Commit.
func (p *ParticipantBuilder) Confirm(taskType string) *ParticipantBuilder { return p.Commit(taskType) }

// Cancel is the TCC's word for Abort.
func (p *ParticipantBuilder) Cancel(taskType string) *ParticipantBuilder { return p.Abort(taskType) }

// PrepareTask sets service and prepare from a typed task.
func (p *ParticipantBuilder) PrepareTask(t TaskRef) *ParticipantBuilder {
	p.doc.service, p.doc.participant.prepare = t.TaskService(), t.TaskType()
	return p
}

// CommitTask sets commit from a typed task. It must be one of the same service
// as prepare.
func (p *ParticipantBuilder) CommitTask(t TaskRef) *ParticipantBuilder {
	p.doc.participant.commit, p.doc.participant.commitService = t.TaskType(), t.TaskService()
	return p
}

// AbortTask sets abort from a typed task. It must be one of the same service as
// prepare.
func (p *ParticipantBuilder) AbortTask(t TaskRef) *ParticipantBuilder {
	p.doc.participant.abort, p.doc.participant.abortService = t.TaskType(), t.TaskService()
	return p
}

// Input sets the expression for the input of all three tasks. It sees the run's
// input alone. Default: the run's input.
func (p *ParticipantBuilder) Input(expr string) *ParticipantBuilder {
	p.doc.input = expr
	return p
}

// Timeout bounds one attempt to prepare, from the moment a worker starts it. 0
// means DefaultTimeout.
func (p *ParticipantBuilder) Timeout(d time.Duration) *ParticipantBuilder {
	p.doc.timeout = d
	return p
}

// CommitTimeout bounds one attempt to commit. 0 means DefaultTimeout.
func (p *ParticipantBuilder) CommitTimeout(d time.Duration) *ParticipantBuilder {
	p.doc.participant.commitTimeout = d
	return p
}

// AbortTimeout bounds one attempt to abort. 0 means DefaultTimeout.
func (p *ParticipantBuilder) AbortTimeout(d time.Duration) *ParticipantBuilder {
	p.doc.participant.abortTimeout = d
	return p
}

// QueueTimeout bounds how long an attempt to prepare may wait before a worker
// starts it; one that waited longer is a vote of no. Default 0: no bound.
func (p *ParticipantBuilder) QueueTimeout(d time.Duration) *ParticipantBuilder {
	p.doc.queueTimeout = d
	return p
}

// Retry sets the retry policy of prepare, and of a commit in one phase. By
// default there are DefaultPrepareAttempts attempts.
func (p *ParticipantBuilder) Retry(policy RetryPolicy) *ParticipantBuilder {
	policy.NonRetryable = slices.Clone(policy.NonRetryable)
	p.doc.retry = policy
	return p
}

// PhaseTwoRetry sets the retry policy of commit and abort. By default attempts
// never run out. A failure is tried again even if the worker called it final,
// unless the policy names its code; where the policy ends the run stalls.
func (p *ParticipantBuilder) PhaseTwoRetry(policy RetryPolicy) *ParticipantBuilder {
	policy.NonRetryable = slices.Clone(policy.NonRetryable)
	p.doc.participant.phaseTwoRetry = policy
	return p
}

// Placement sets how a worker is chosen. Default: Bounded.
func (p *ParticipantBuilder) Placement(placement Placement) *ParticipantBuilder {
	p.doc.placement = placement
	return p
}
