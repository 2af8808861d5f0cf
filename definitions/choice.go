package definitions

import (
	"fmt"
	"strconv"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// MaxCases bounds the cases of one choice.
const MaxCases = 64

// choiceDocument is what a step has that chooses, and what any step has that is
// on a branch.
type choiceDocument struct {
	cases      []caseDocument
	hasChoice  bool
	branchOf   string // a choice
	branchCase string
	hasBranch  bool
}

type caseDocument struct {
	name, when string
	otherwise  bool // without a condition
}

// Case is a way that a choice may take.
type Case struct {
	Name      string
	Otherwise bool // it has no condition, and is the last
}

// Branch says on which branch a step is: it is skipped unless that case of that
// choice was taken.
type Branch struct {
	Choice int    // index of the step that chooses
	Case   string // empty: the step is on no branch
}

// Choice makes the step one that takes one of several cases, which Case and
// Otherwise add: the first whose condition is true. Its output is the name of
// that case; Branch puts other steps on it. Where none is true and there is no
// Otherwise, the step fails for good (code no_case).
func (s *StepBuilder) Choice() *StepBuilder {
	s.doc.hasChoice = true
	return s
}

// Case adds a case to a choice. The name is one like a step's; the condition sees
// what Input sees.
func (s *StepBuilder) Case(name, when string) *StepBuilder {
	s.doc.hasChoice = true
	s.doc.cases = append(s.doc.cases, caseDocument{name: name, when: when})
	return s
}

// Otherwise adds the case that a choice takes where no other's condition is true.
// It is the last.
func (s *StepBuilder) Otherwise(name string) *StepBuilder {
	s.doc.hasChoice = true
	s.doc.cases = append(s.doc.cases, caseDocument{name: name, otherwise: true})
	return s
}

// Branch puts the step on a branch: it is skipped unless the choice, a step that
// comes before, took that case. What comes after the step is not skipped by that,
// and says for itself on which branch it is.
func (s *StepBuilder) Branch(choice, caseName string) *StepBuilder {
	s.doc.branchOf, s.doc.branchCase, s.doc.hasBranch = choice, caseName, true
	return s
}

// choice checks the cases of a step that chooses.
func (v *validator) choice(i int) {
	s := &v.doc.steps[i]
	if !s.hasChoice {
		return
	}
	switch n := len(s.cases); {
	case n == 0:
		v.fault(i, "choice", RuleRequired, "a choice has at least one case")
	case n > MaxCases:
		v.fault(i, "choice", RuleLimit, "%d cases are more than the limit of %d", n, MaxCases)
		return
	}
	first := map[string]int{}
	for n, c := range s.cases {
		at := "choice[" + strconv.Itoa(n) + "]"
		if v.name(i, at+".case", c.name, "a case has a name") {
			if k, taken := first[c.name]; taken {
				v.fault(i, at+".case", RuleDuplicate, "choice[%d] has this name already", k)
			} else {
				first[c.name] = n
			}
		}
		switch {
		case c.otherwise && n < len(s.cases)-1:
			v.fault(i, at+".when", RuleRequired, "only the last case may be without a condition")
		case !c.otherwise && c.when == "":
			v.fault(i, at+".when", RuleRequired, "a condition is wanted; leave it out where the case is taken otherwise")
		}
	}
}

// branches checks which branches steps are on.
func (v *validator) branches() {
	for i := range v.doc.steps {
		s := &v.doc.steps[i]
		if !s.hasBranch {
			continue
		}
		c, found := v.index[s.branchOf]
		switch {
		case s.branchOf == "":
			v.fault(i, "branch.choice", RuleRequired, "the name of a choice is wanted")
		case !found:
			v.fault(i, "branch.choice", RuleUnknownStep, "no step is named %q", s.branchOf)
		case v.doc.steps[c].kind != StepChoice:
			v.fault(i, "branch.choice", RuleBranch, "step %q is not a choice", s.branchOf)
		case !v.graph.before(c, i):
			v.fault(i, "branch.choice", RuleBranch, "the choice, %q, does not come before this step", s.branchOf)
		case s.branchCase == "":
			v.fault(i, "branch.case", RuleRequired, "the name of a case is wanted")
		case !v.hasCase(c, s.branchCase):
			v.fault(i, "branch.case", RuleBranch, "%q has no case %q; it has %s", s.branchOf, s.branchCase, quoted(v.caseNames(c)))
		}
	}
}

func (v *validator) hasCase(i int, name string) bool {
	for _, c := range v.doc.steps[i].cases {
		if c.name == name {
			return true
		}
	}
	return false
}

func (v *validator) caseNames(i int) (names []string) {
	for _, c := range v.doc.steps[i].cases {
		names = append(names, c.name)
	}
	return names
}

// compileCases compiles the conditions of a choice.
func (v *validator) compileCases(w *Workflow, i int, hides func(ref int) string) {
	for n, c := range v.doc.steps[i].cases {
		w.exprs[i].cases = append(w.exprs[i].cases,
			v.expression(w, i, "choice["+strconv.Itoa(n)+"].when", c.when, wantBool, hides))
		w.steps[i].Cases = append(w.steps[i].Cases, Case{Name: c.name, Otherwise: c.otherwise})
	}
}

// resolvedBranch is the compiled view of the branch that a step is on.
func (v *validator) resolvedBranch(i int) Branch {
	s := &v.doc.steps[i]
	if !s.hasBranch {
		return Branch{}
	}
	return Branch{Choice: v.index[s.branchOf], Case: s.branchCase}
}

// branch writes the branch that a step is on.
func (o *writer) branch(w *Workflow, s *Step) {
	if s.Branch.Case == "" {
		return
	}
	b := writer{b: []byte{'{'}}
	b.text("choice", w.steps[s.Branch.Choice].Name)
	b.text("case", s.Branch.Case)
	o.key("branch")
	o.b = append(append(o.b, b.b...), '}')
}

// choice writes the cases of a choice.
func (o *writer) choice(s *Step, conditions []*expression) {
	if s.Kind != StepChoice {
		return
	}
	o.key("choice")
	o.b = append(o.b, '[')
	for n, c := range s.Cases {
		if n > 0 {
			o.b = append(o.b, ',')
		}
		item := writer{b: []byte{'{'}}
		item.text("case", c.Name)
		item.expression("when", conditions[n])
		o.b = append(append(o.b, item.b...), '}')
	}
	o.b = append(o.b, ']')
}

// readChoice reads a step's cases, and the branch that it is on.
func (f *fields) readChoice() choiceDocument {
	d := choiceDocument{hasBranch: f.has("branch")}
	cases, path, given := f.list("choice")
	d.hasChoice = given
	for n := range cases.size() {
		d.cases = append(d.cases, f.r.readCase(path+"["+strconv.Itoa(n)+"]", f.step, cases.at(n)))
	}
	if v, ok := f.get("branch"); ok {
		if b, ok := f.r.fields(f.at("branch"), f.step, v); ok {
			d.branchOf, d.branchCase = b.text("choice"), b.text("case")
			b.rest()
		}
	}
	return d
}

func (r *reader) readCase(path, step string, v ref.Val) caseDocument {
	f, ok := r.fields(path, step, v)
	if !ok {
		return caseDocument{}
	}
	c := caseDocument{name: f.text("case"), when: f.text("when"), otherwise: !f.has("when")}
	f.rest()
	return c
}

// Choose evaluates the conditions of a choice in their order, and returns the
// name of the case to take; not ok, if there is none. It is to be called only for
// a step of that kind. The error is an *EvalError.
func (sc *Scope) Choose(step int) (name string, ok bool, err error) {
	for n, c := range sc.w.steps[step].Cases {
		if c.Otherwise {
			return c.Name, true, nil
		}
		e := sc.w.exprs[step].cases[n]
		v, err := sc.eval(e)
		if err != nil {
			return "", false, err
		}
		b, ok := v.(types.Bool)
		if !ok {
			return "", false, e.fail(fmt.Errorf("yields %s, but must yield %s", v.Type().TypeName(), wantBool))
		}
		if b {
			return c.Name, true, nil
		}
	}
	return "", false, nil
}
