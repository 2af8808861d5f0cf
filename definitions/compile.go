package definitions

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
)

// compile validates a document and makes a workflow of it. faults are those
// already found while reading it.
func compile(doc document, faults []Fault) (*Workflow, error) {
	v := &validator{doc: &doc, faults: slices.Clone(faults), read: faults}
	if !v.check() {
		return nil, v.err()
	}
	w := v.build()
	if len(v.faults) > 0 {
		return nil, v.err()
	}
	w.json = appendWorkflow(nil, w)
	if len(w.json) > MaxDefinitionBytes {
		v.fault(-1, "", RuleLimit, "the definition has %d bytes; the limit is %d", len(w.json), MaxDefinitionBytes)
		return nil, v.err()
	}
	sum := sha256.Sum256(w.json)
	w.version = hex.EncodeToString(sum[:16])
	return w, nil
}

func (v *validator) err() error {
	return &Invalid{Workflow: v.doc.name, Faults: v.faults}
}

// build compiles the expressions and resolves the defaults.
func (v *validator) build() *Workflow {
	d := v.doc
	w := &Workflow{
		kind: d.kind, name: d.name, text: d.description, deadline: d.deadline,
		index: v.index, pivot: v.pivot,
		steps: make([]Step, len(d.steps)),
		exprs: make([]stepExpressions, len(d.steps)),
	}
	if len(d.steps) == 0 {
		w.pivot = -1
	}
	w.routingKey = v.expression(w, -1, "routing_key", d.routingKey, wantKey, func(int) string {
		return "the routing key is computed before any step runs"
	})
	w.output = v.expression(w, -1, "output", d.output, wantJSON, func(int) string { return "" })
	v.locks(w)
	if d.kind.HasParticipants() {
		for i := range d.steps {
			w.steps[i] = v.resolvedParticipant(i)
			w.exprs[i].input = v.expression(w, i, "input", d.steps[i].input, wantJSON, func(int) string {
				return "participants prepare side by side, and see no outputs of one another"
			})
		}
		return w
	}
	if len(d.steps) == 0 {
		return w
	}
	succs := v.graph.succs()
	for i := range d.steps {
		w.steps[i] = v.resolved(i, succs[i])
		w.steps[i].Branch = v.resolvedBranch(i)
		v.stepExpressions(w, i)
	}
	return w
}

func (v *validator) stepExpressions(w *Workflow, i int) {
	s := &v.doc.steps[i]
	before := func(ref int) string {
		if v.graph.before(ref, i) {
			return ""
		}
		return "the step does not come before this one"
	}
	beforeOrSelf := func(ref int) string {
		if ref == i {
			return ""
		}
		return before(ref)
	}
	e := &w.exprs[i]
	e.sleepUntil = v.expression(w, i, "sleep_until", s.sleepUntil, wantTime, before)
	v.compileCases(w, i, before)
	e.timeoutOutput = v.expression(w, i, "timeout_output", s.timeoutOutput, wantJSON, before)
	e.when = v.expression(w, i, "when", s.when, wantBool, before)
	vars := variables(s.forEach != "")
	e.forEach = v.expression(w, i, "for_each", s.forEach, wantList, before)
	e.input = v.expressionOf(vars, w, i, "input", s.input, wantJSON, before)
	e.compensationInput = v.expressionOf(vars, w, i, "compensation_input", s.compensationInput, wantJSON, beforeOrSelf)
}

// expression compiles one expression; nil, if there is none or it is faulty.
// hides says why the expression does not see a step; empty, if it does.
func (v *validator) expression(w *Workflow, step int, field, text string, want want, hides func(ref int) string) *expression {
	return v.expressionOf(ofRun, w, step, field, text, want, hides)
}

func (v *validator) expressionOf(vars variables, w *Workflow, step int, field, text string, want want, hides func(ref int) string) *expression {
	if text == "" {
		return nil
	}
	program, refs, problems := compileExpression(text, want, vars)
	for _, p := range problems {
		v.fault(step, field, p.rule, "%s", p.message)
	}
	e := &expression{field: field, text: text, program: program}
	if step >= 0 {
		e.step = v.doc.steps[step].name
	}
	for _, r := range refs {
		i, found := v.index[r.name]
		if !found {
			v.fault(step, field, RuleReference, "no step is named %q%s", r.name, r.at())
			continue
		}
		if why := hides(i); why != "" {
			v.fault(step, field, RuleReference, "steps.%s.output cannot be seen here: %s%s", r.name, why, r.at())
			continue
		}
		w.readsOutputs = true
	}
	if program == nil {
		return nil
	}
	return e
}

// resolved returns the compiled view of a step.
func (v *validator) resolved(i int, succs []int) Step {
	s := &v.doc.steps[i]
	after := v.pivot >= 0 && i != v.pivot && v.graph.before(v.pivot, i)
	if !s.kind.HasTask() {
		return v.resolvedWait(i, succs, after)
	}
	st := Step{
		Index: i, Name: s.name, Kind: s.kind, Service: v.service(i), Action: s.action, Workflow: s.workflow,
		Compensation: s.compensation, NoCompensation: s.noCompensation,
		Pivot: s.pivot, AfterPivot: after,
		Preds: v.graph.preds[i], Succs: succs,
		Retry:               s.retry.resolved(s.kind.defaultAttempts(after)),
		CompensationRetry:   s.compensationRetry.resolved(Unlimited),
		Timeout:             s.timeout,
		CompensationTimeout: s.compensationTimeout,
		QueueTimeout:        s.queueTimeout,
		Placement:           s.placement,
		HasWhen:             s.when != "",
		HasInput:            s.input != "",
		ForEach:             s.forEach != "",
		Parallel:            s.parallel,
		MaxItems:            s.maxItems,

		HasCompensationInput: s.compensationInput != "",
	}
	if st.Timeout == 0 {
		st.Timeout = s.kind.defaultTimeout()
	}
	if st.ForEach && st.Parallel == 0 {
		st.Parallel = DefaultParallel
	}
	if st.CompensationTimeout == 0 {
		st.CompensationTimeout = DefaultTimeout
	}
	return st
}
