package definitions

import (
	"fmt"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// reference is a mention of steps.NAME.output in an expression.
type reference struct {
	name  string
	place string
}

// findReferences returns the steps that an expression refers to, and what is
// wrong with the way it does. A step must be named in the text: with a name
// computed at run time nobody could tell whether the step comes before.
func findReferences(a *ast.AST) ([]reference, []problem) {
	f := finder{info: a.SourceInfo()}
	f.visit(a.Expr(), false)
	return f.refs, f.problems
}

type finder struct {
	info     *ast.SourceInfo
	refs     []reference
	problems []problem
}

// visit walks over an expression. hidden: a variable of a macro goes by the
// name of steps here.
func (f *finder) visit(e ast.Expr, hidden bool) {
	if operand, key, ok := member(e); ok {
		if name, ok := f.step(operand, hidden); ok && key == "output" {
			f.refs = append(f.refs, reference{name: name, place: f.place(e)})
			return
		}
		if name, ok := f.step(e, hidden); ok {
			f.refs = append(f.refs, reference{name: name, place: f.place(e)})
			f.problem(e, "of a step there is only the output: write steps[%q].output", name)
			return
		}
	}
	switch e.Kind() {
	case ast.IdentKind:
		if isSteps(e, hidden) {
			f.problem(e, `steps can only be used as steps.NAME.output or steps["NAME"].output`)
		}
	case ast.SelectKind:
		f.visit(e.AsSelect().Operand(), hidden)
	case ast.CallKind:
		c := e.AsCall()
		if c.IsMemberFunction() {
			f.visit(c.Target(), hidden)
		}
		for _, arg := range c.Args() {
			f.visit(arg, hidden)
		}
	case ast.ListKind:
		for _, el := range e.AsList().Elements() {
			f.visit(el, hidden)
		}
	case ast.MapKind:
		for _, entry := range e.AsMap().Entries() {
			f.visit(entry.AsMapEntry().Key(), hidden)
			f.visit(entry.AsMapEntry().Value(), hidden)
		}
	case ast.StructKind:
		for _, field := range e.AsStruct().Fields() {
			f.visit(field.AsStructField().Value(), hidden)
		}
	case ast.ComprehensionKind:
		c := e.AsComprehension()
		f.visit(c.IterRange(), hidden)
		f.visit(c.AccuInit(), hidden)
		inner := hidden || c.IterVar() == "steps" || c.IterVar2() == "steps" || c.AccuVar() == "steps"
		f.visit(c.LoopCondition(), inner)
		f.visit(c.LoopStep(), inner)
		f.visit(c.Result(), inner)
	}
}

// step recognises steps.NAME and steps["NAME"].
func (f *finder) step(e ast.Expr, hidden bool) (name string, ok bool) {
	operand, name, ok := member(e)
	return name, ok && isSteps(operand, hidden)
}

func isSteps(e ast.Expr, hidden bool) bool {
	if e.Kind() != ast.IdentKind {
		return false
	}
	name := e.AsIdent()
	return name == ".steps" || name == "steps" && !hidden
}

// member recognises X.KEY and X["KEY"].
func member(e ast.Expr) (operand ast.Expr, key string, ok bool) {
	switch e.Kind() {
	case ast.SelectKind:
		s := e.AsSelect()
		return s.Operand(), s.FieldName(), true
	case ast.CallKind:
		c := e.AsCall()
		if c.FunctionName() != operators.Index || len(c.Args()) != 2 || c.Args()[1].Kind() != ast.LiteralKind {
			return nil, "", false
		}
		s, ok := c.Args()[1].AsLiteral().(types.String)
		return c.Args()[0], string(s), ok
	}
	return nil, "", false
}

// place is where an expression begins: a member's own position is that of its
// dot.
func (f *finder) place(e ast.Expr) string {
	for {
		operand, _, ok := member(e)
		if !ok {
			return place(f.info.GetStartLocation(e.ID()))
		}
		e = operand
	}
}

func (f *finder) problem(e ast.Expr, format string, args ...any) {
	p := problem{RuleReference, f.place(e) + fmt.Sprintf(format, args...)}
	for _, q := range f.problems {
		if q == p {
			return
		}
	}
	f.problems = append(f.problems, p)
}

// at is the place without its separator, for the end of a message.
func (r reference) at() string {
	if r.place == "" {
		return ""
	}
	return " (" + strings.TrimSuffix(r.place, ": ") + ")"
}
