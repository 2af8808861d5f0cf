package definitions

import (
	"slices"

	"cel.dev/cel-go/common/types/ref"
)

// participant checks one participant.
func (v *validator) participant(i int) {
	s := &v.doc.steps[i]
	p := &s.participant
	v.identity(i)
	v.taskType(i, "prepare", p.prepare, "a participant needs a task that prepares")
	v.taskType(i, "commit", p.commit, "a participant needs a task that commits")
	v.taskType(i, "abort", p.abort, "a participant needs a task that aborts")
	for n, t := range [...]struct{ field, name, service string }{
		{"commit", p.commit, p.commitService}, {"abort", p.abort, p.abortService},
	} {
		if t.service != "" && t.service != v.service(i) {
			v.fault(i, t.field, RuleParticipant, "a task of service %q, but the participant is of %q; they must be of the same",
				t.service, v.service(i))
		}
		if slices.ContainsFunc([]string{p.prepare, p.commit}[:n+1], func(other string) bool { return sameTask(t.name, other) }) {
			v.fault(i, t.field, RuleParticipant, "%q is another phase's task already; each phase has its own", t.name)
		}
	}
	v.retry(i, "retry", s.retry)
	v.retry(i, "phase_two_retry", p.phaseTwoRetry)
	v.duration(i, "timeout", s.timeout)
	v.duration(i, "commit_timeout", p.commitTimeout)
	v.duration(i, "abort_timeout", p.abortTimeout)
	v.duration(i, "queue_timeout", s.queueTimeout)
	v.placement(i)
}

// resolvedParticipant returns the compiled view of a participant.
func (v *validator) resolvedParticipant(i int) Step {
	s := &v.doc.steps[i]
	p := &s.participant
	st := Step{
		Index: i, Name: s.name, Service: v.service(i),
		Prepare: p.prepare, Commit: p.commit, Abort: p.abort,
		Retry:         s.retry.resolved(DefaultPrepareAttempts),
		PhaseTwoRetry: p.phaseTwoRetry.resolved(Unlimited),
		Timeout:       s.timeout,
		CommitTimeout: p.commitTimeout,
		AbortTimeout:  p.abortTimeout,
		QueueTimeout:  s.queueTimeout,
		Placement:     s.placement,
		HasInput:      s.input != "",
	}
	if st.Timeout == 0 {
		st.Timeout = DefaultTimeout
	}
	if st.CommitTimeout == 0 {
		st.CommitTimeout = DefaultTimeout
	}
	if st.AbortTimeout == 0 {
		st.AbortTimeout = DefaultTimeout
	}
	return st
}

func appendParticipant(b []byte, w *Workflow, i int) []byte {
	s := &w.steps[i]
	o := writer{b: append(b, '{')}
	o.text("name", s.Name)
	o.text("service", s.Service)
	o.text("prepare", s.Prepare)
	o.text("commit", s.Commit)
	o.text("abort", s.Abort)
	o.expression("input", w.exprs[i].input)
	o.retry("retry", s.Retry, DefaultPrepareAttempts)
	o.retry("phase_two_retry", s.PhaseTwoRetry, Unlimited)
	o.duration("timeout", s.Timeout, DefaultTimeout)
	o.duration("commit_timeout", s.CommitTimeout, DefaultTimeout)
	o.duration("abort_timeout", s.AbortTimeout, DefaultTimeout)
	o.duration("queue_timeout", s.QueueTimeout, 0)
	if s.Placement != Bounded {
		o.text("placement", s.Placement.String())
	}
	return append(o.b, '}')
}

// participant reads one participant.
func (r *reader) participant(path string, v ref.Val) stepDocument {
	f, ok := r.member(path, v)
	if !ok {
		return stepDocument{}
	}
	s := stepDocument{name: f.text("name"), service: f.text("service"), input: f.text("input")}
	s.participant = participantDocument{
		prepare:       f.text("prepare"),
		commit:        f.text("commit"),
		abort:         f.text("abort"),
		phaseTwoRetry: f.retry("phase_two_retry"),
		commitTimeout: f.duration("commit_timeout"),
		abortTimeout:  f.duration("abort_timeout"),
	}
	s.retry = f.retry("retry")
	s.timeout = f.duration("timeout")
	s.queueTimeout = f.duration("queue_timeout")
	s.placement = f.placement("placement")
	f.rest()
	return s
}
