package definitions

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// validator goes over a document and notes everything that is wrong with it.
type validator struct {
	doc    *document
	faults []Fault
	read   []Fault        // found while reading; what follows from them is left out
	index  map[string]int // step by name; of duplicates the first
	graph  *graph
	pivot  int // -1: none; of several the first
}

func (v *validator) fault(step int, field, rule, format string, args ...any) {
	f := Fault{Field: field, Rule: rule, Message: fmt.Sprintf(format, args...)}
	if step >= 0 {
		f.Step = v.doc.steps[step].name
		f.Field = v.list() + "[" + strconv.Itoa(step) + "]"
		if field != "" {
			f.Field += "." + field
		}
	}
	for _, r := range v.read {
		if r.Field != "" && (f.Field == r.Field || strings.HasPrefix(f.Field, r.Field+".")) {
			return
		}
	}
	v.faults = append(v.faults, f)
}

// check goes over all but the expressions. It returns false if there is no
// sense in going on.
func (v *validator) check() bool {
	v.header()
	if n := len(v.doc.steps); n == 0 {
		v.fault(-1, v.list(), RuleRequired, "a workflow has at least one %s", v.member())
		return true
	} else if n > MaxSteps {
		v.fault(-1, v.list(), RuleLimit, "%d %ss are more than the limit of %d", n, v.member(), MaxSteps)
		return false
	}
	v.index = make(map[string]int, len(v.doc.steps))
	if v.doc.kind.HasParticipants() {
		v.pivot = -1
		for i := range v.doc.steps {
			v.participant(i)
		}
		return true
	}
	for i := range v.doc.steps {
		v.step(i)
	}
	v.order()
	v.pivots()
	v.compensations()
	v.branches()
	return true
}

func (v *validator) header() {
	d := v.doc
	switch d.kind {
	case KindSaga, KindTwoPhase, KindTCC:
	case "":
		v.fault(-1, "kind", RuleRequired, "a workflow needs a kind: %q, %q or %q", KindSaga, KindTwoPhase, KindTCC)
	default:
		v.fault(-1, "kind", RuleValue, "%q is not a kind of workflow; there are %q, %q and %q",
			d.kind, KindSaga, KindTwoPhase, KindTCC)
	}
	v.name(-1, "name", d.name, "a workflow needs a name")
	v.text(-1, "description", d.description)
	if d.service != "" {
		v.name(-1, "service", d.service, "")
	}
	v.duration(-1, "deadline", d.deadline)
}

func (v *validator) step(i int) {
	s := &v.doc.steps[i]
	v.stepKind(i)
	v.identity(i)
	if !s.kind.HasTask() {
		v.withoutTask(i)
		v.wait(i)
		v.choice(i)
		return
	}
	if s.action != "" {
		v.taskType(i, "action", s.action, "")
	}
	if s.kind == StepChild {
		v.child(i)
	}
	if s.compensation != "" {
		v.taskType(i, "compensation", s.compensation, "")
	}
	v.timeoutOutput(i)
	v.text(i, "no_compensation", s.noCompensation)
	v.retry(i, "retry", s.retry)
	v.retry(i, "compensation_retry", s.compensationRetry)
	v.duration(i, "timeout", s.timeout)
	v.duration(i, "compensation_timeout", s.compensationTimeout)
	v.duration(i, "queue_timeout", s.queueTimeout)
	v.placement(i)
	v.fansOut(i)
}

// identity checks the name of a step or participant, and its service.
func (v *validator) identity(i int) {
	name := v.doc.steps[i].name
	if v.name(i, "name", name, "a "+v.member()+" needs a name") {
		if first, taken := v.index[name]; taken {
			v.fault(i, "name", RuleDuplicate, "%s[%d] has this name already", v.list(), first)
		} else {
			v.index[name] = i
		}
	}
	switch s := &v.doc.steps[i]; {
	case s.kind == StepChild && s.compensation != "":
		v.name(i, "service", v.service(i), "the compensation of a child run needs a service, the step's own or the workflow's")
	case s.kind == StepTask:
		v.name(i, "service", v.service(i), "a "+v.member()+" needs a service, its own or the workflow's")
	}
}

func (v *validator) placement(i int) {
	if v.doc.steps[i].placement > LeastLoaded {
		v.fault(i, "placement", RuleValue, "must be %s, %s or %s", Ring, Bounded, LeastLoaded)
	}
}

// list is the field that holds what the workflow consists of, and member what
// one of these is called.
func (v *validator) list() string { return v.member() + "s" }

func (v *validator) member() string {
	if v.doc.kind.HasParticipants() {
		return "participant"
	}
	return "step"
}

// service returns a step's service, its own or the workflow's.
func (v *validator) service(i int) string {
	s := &v.doc.steps[i]
	if s.service != "" || s.kind == StepChild && s.compensation == "" {
		return s.service
	}
	return v.doc.service
}

func (v *validator) name(step int, field, name, missing string) bool {
	switch {
	case name == "":
		v.fault(step, field, RuleRequired, "%s", missing)
	case len(name) > MaxNameLength:
		v.fault(step, field, RuleName, "longer than %d characters", MaxNameLength)
	case !wellFormed(name):
		v.fault(step, field, RuleName,
			"%q is not a name: letters (a-z, A-Z), digits, '.', '_' and '-', starting with a letter or digit", name)
	default:
		return true
	}
	return false
}

func wellFormed(name string) bool {
	for i := range len(name) {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("._-", rune(c))) {
			return false
		}
	}
	return true
}

func (v *validator) text(step int, field, s string) {
	switch {
	case len(s) > MaxTextBytes:
		v.fault(step, field, RuleLimit, "longer than %d bytes", MaxTextBytes)
	case !utf8.ValidString(s):
		v.fault(step, field, RuleValue, "not valid UTF-8")
	}
}

func (v *validator) duration(step int, field string, d time.Duration) {
	switch {
	case d < 0:
		v.fault(step, field, RuleDuration, "%s is negative", formatDuration(d))
	case d > MaxDuration:
		v.fault(step, field, RuleDuration, "%s is longer than %s", formatDuration(d), formatDuration(MaxDuration))
	case d > 0 && d < MinDuration:
		v.fault(step, field, RuleDuration, "%s is shorter than %s", formatDuration(d), formatDuration(MinDuration))
	}
}

func (v *validator) retry(step int, field string, p RetryPolicy) {
	v.duration(step, field+".initial", p.Initial)
	v.duration(step, field+".max", p.Max)
	v.duration(step, field+".max_elapsed", p.MaxElapsed)
	if p.Max > 0 && p.Initial > p.Max {
		v.fault(step, field+".max", RuleRetry, "%s is less than initial, %s", formatDuration(p.Max), formatDuration(p.Initial))
	}
	if p.Multiplier != 0 && !(p.Multiplier >= 1 && p.Multiplier <= MaxMultiplier) {
		v.fault(step, field+".multiplier", RuleRetry, "%v is not between 1 and %v", p.Multiplier, MaxMultiplier)
	}
	if p.Jitter != NoJitter && !(p.Jitter >= 0 && p.Jitter <= 1) {
		v.fault(step, field+".jitter", RuleRetry, "%v is not between 0 and 1", p.Jitter)
	}
	if p.MaxAttempts != Unlimited && (p.MaxAttempts < 0 || p.MaxAttempts > MaxRetryAttempts) {
		v.fault(step, field+".max_attempts", RuleRetry, "%d is neither between 1 and %d nor %d, unlimited",
			p.MaxAttempts, MaxRetryAttempts, Unlimited)
	}
	if len(p.NonRetryable) > MaxNonRetryable {
		v.fault(step, field+".non_retryable", RuleLimit, "%d codes are more than the limit of %d", len(p.NonRetryable), MaxNonRetryable)
	}
	for i, code := range p.NonRetryable {
		at := field + ".non_retryable[" + strconv.Itoa(i) + "]"
		switch {
		case code == "":
			v.fault(step, at, RuleRequired, "a failure code is not empty")
		case len(code) > MaxCodeBytes:
			v.fault(step, at, RuleLimit, "longer than %d bytes", MaxCodeBytes)
		case !utf8.ValidString(code) || strings.ContainsFunc(code, unicode.IsControl):
			v.fault(step, at, RuleValue, "a failure code has no control characters and is valid UTF-8")
		}
	}
}

// order resolves After and checks the graph.
func (v *validator) order() {
	preds := make([][]int, len(v.doc.steps))
	for i := range v.doc.steps {
		preds[i] = v.after(i)
	}
	v.graph = newGraph(preds)
	for _, c := range v.graph.cycles() {
		names := v.names(c.way)
		v.fault(c.members[0], "after", RuleCycle, "steps that wait for each other: %s; the way round is %s",
			quoted(v.names(c.members)), strings.Join(names, " -> "))
	}
	for i := range preds {
		if v.graph.inCycle(i) {
			continue
		}
		for j := range preds {
			if v.graph.inCycle(j) && v.graph.before(j, i) {
				v.fault(i, "after", RuleUnreachable, "the step never starts: it comes after the cycle of step %q", v.doc.steps[j].name)
				break
			}
		}
	}
}

// after returns the direct predecessors of a step, ascending.
func (v *validator) after(i int) []int {
	s := &v.doc.steps[i]
	if !s.hasAfter {
		if i == 0 {
			return nil
		}
		return []int{i - 1}
	}
	var set stepSet
	for n, name := range s.after {
		at := "after[" + strconv.Itoa(n) + "]"
		p, found := v.index[name]
		switch {
		case !found:
			v.fault(i, at, RuleUnknownStep, "no step is named %q", name)
		case set.has(p):
			v.fault(i, at, RuleDuplicate, "%q is there twice", name)
		default:
			set.add(p)
		}
	}
	var preds []int
	for p := range v.doc.steps {
		if set.has(p) {
			preds = append(preds, p)
		}
	}
	return preds
}

func (v *validator) names(steps []int) []string {
	out := make([]string, len(steps))
	for i, s := range steps {
		out[i] = v.doc.steps[s].name
	}
	return out
}

func (v *validator) pivots() {
	v.pivot = -1
	for i := range v.doc.steps {
		if !v.doc.steps[i].pivot {
			continue
		}
		if v.pivot < 0 {
			v.pivot = i
			continue
		}
		v.fault(i, "pivot", RulePivot, "a saga has at most one pivot, and step %q is one already", v.doc.steps[v.pivot].name)
	}
	if v.pivot < 0 {
		return
	}
	for i := range v.doc.steps {
		if i == v.pivot || v.doc.steps[i].pivot || v.graph.before(i, v.pivot) || v.graph.before(v.pivot, i) {
			continue
		}
		v.fault(i, "after", RulePivot, "the step comes neither before nor after the pivot, %q", v.doc.steps[v.pivot].name)
	}
}

func (v *validator) compensations() {
	type task struct{ service, name string }
	undoes := map[task]int{}
	for i := range v.doc.steps {
		s := &v.doc.steps[i]
		if !s.kind.HasTask() {
			continue
		}
		v.compensation(i)
		if s.compensation == "" {
			continue
		}
		if s.undoService != "" && s.undoService != v.service(i) {
			v.fault(i, "compensation", RuleCompensation, "the compensation is a task of service %q, the action one of %q; they must be of the same",
				s.undoService, v.service(i))
		}
		if sameTask(s.compensation, s.action) {
			v.fault(i, "compensation", RuleCompensation, "the action, %q, cannot undo itself", s.action)
		}
		t := task{v.service(i), s.compensation}
		if first, taken := undoes[t]; !taken {
			undoes[t] = i
		} else if f := &v.doc.steps[first]; f.action != s.action || f.workflow != s.workflow {
			v.fault(i, "compensation", RuleDuplicate, "%q is the compensation of step %q already, which does something else", s.compensation, f.name)
		}
	}
}

// compensation checks whether a step says how it is undone, where it has to,
// and only there.
func (v *validator) compensation(i int) {
	s := &v.doc.steps[i]
	where := ""
	switch {
	case s.pivot:
		where = "the pivot"
	case v.pivot >= 0 && v.graph.before(v.pivot, i) && !v.graph.before(i, v.pivot): // both: in a cycle
		where = "a step after the pivot"
	}
	if where != "" {
		if s.compensation != "" {
			v.fault(i, "compensation", RuleCompensation, "%s is never compensated: leave the compensation out", where)
		}
		if s.hasNoCompensation {
			v.fault(i, "no_compensation", RuleCompensation, "%s is never compensated, and no reason is wanted: leave it out", where)
		}
	} else {
		side := v.pivot >= 0 && !v.graph.before(i, v.pivot)
		switch {
		case s.compensation != "" && s.hasNoCompensation:
			v.fault(i, "no_compensation", RuleCompensation, "the step has a compensation too, %q", s.compensation)
		case s.hasNoCompensation && strings.TrimSpace(s.noCompensation) == "":
			v.fault(i, "no_compensation", RuleRequired, "a reason is wanted, for operators to read")
		case s.compensation == "" && !s.hasNoCompensation && !side:
			v.fault(i, "compensation", RuleCompensation, "a step that is not the pivot or after it needs a compensation, or no_compensation with a reason")
		}
	}
	if s.compensation != "" {
		return
	}
	for _, setting := range []struct {
		field string
		given bool
	}{
		{"compensation_input", s.compensationInput != ""},
		{"compensation_retry", !s.compensationRetry.isZero()},
		{"compensation_timeout", s.compensationTimeout != 0},
	} {
		if setting.given {
			v.fault(i, setting.field, RuleCompensation, "the step has no compensation")
		}
	}
}
