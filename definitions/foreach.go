package definitions

import (
	"fmt"
	"strconv"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// Limits of a step with ForEach.
const (
	// DefaultParallel is how many items are under way at once by default.
	DefaultParallel = 10
	// MaxItemsLimit bounds MaxItems, and MaxParallel Parallel.
	MaxItemsLimit = 10_000
	MaxParallel   = 1_000
)

// ForEach has the step fan out: its task runs once for each item of the list
// that the expression yields, which sees what Input sees. Input and
// CompensationInput then see two more variables, item and index (from 0); the
// default input of an action is its item. Each item is a step of its own in
// most respects, named NAME[INDEX] ("ship[3]"): it has its own attempts and,
// once it has succeeded or its outcome is unknown, its own compensation, for
// whose input steps.NAME.output is the item's own output. To all other steps
// the output is the list of the items' outputs, in order. When is the condition
// of the step as a whole. The pivot cannot fan out.
func (s *StepBuilder) ForEach(expr string) *StepBuilder {
	s.doc.forEach = expr
	return s
}

// Parallel sets how many items of a step with ForEach are under way at once: of
// their actions, and of their compensations. From 1 to MaxParallel; default 0:
// DefaultParallel.
func (s *StepBuilder) Parallel(n int) *StepBuilder {
	s.doc.parallel = n
	return s
}

// MaxItems sets how many items a step with ForEach takes; a longer list fails
// the step for good. From 1 to MaxItemsLimit; default 0: what the orchestrator
// allows, which bounds it in any case.
func (s *StepBuilder) MaxItems(n int) *StepBuilder {
	s.doc.maxItems = n
	return s
}

// fansOut checks the settings of a step with ForEach.
func (v *validator) fansOut(i int) {
	s := &v.doc.steps[i]
	for _, setting := range []struct {
		field string
		value int
		most  int
	}{{"parallel", s.parallel, MaxParallel}, {"max_items", s.maxItems, MaxItemsLimit}} {
		switch {
		case setting.value == 0:
		case s.forEach == "":
			v.fault(i, setting.field, RuleForEach, "the step has no for_each")
		case setting.value < 0 || setting.value > setting.most:
			v.fault(i, setting.field, RuleForEach, "%d is not between 1 and %d", setting.value, setting.most)
		}
	}
	if s.forEach != "" && s.pivot {
		v.fault(i, "for_each", RuleForEach,
			"the pivot cannot fan out: it is one decision, and with several items some could have happened and others not; make a step before or after it fan out")
	}
}

// ItemName is the name of an item of a step with ForEach: "ship[3]".
func ItemName(step string, index int) string { return step + "[" + strconv.Itoa(index) + "]" }

// Item is one item of a step with ForEach.
type Item struct {
	Step  int
	Index int
	Value []byte // a JSON text
}

// Items evaluates the list of a step with ForEach: a JSON text, compact, with
// keys in order, and its length, which is at most most and the step's MaxItems.
// The error is an *EvalError.
func (sc *Scope) Items(step, most int) ([]byte, int, error) {
	e := sc.w.exprs[step].forEach
	v, err := sc.eval(e)
	if err != nil {
		return nil, 0, err
	}
	l, ok := v.(traits.Lister)
	if !ok {
		return nil, 0, e.fail(fmt.Errorf("yields %s, but must yield %s", v.Type().TypeName(), wantList))
	}
	size, _ := l.Size().(types.Int)
	if err := sc.w.steps[step].checkItems(int64(size), most); err != nil {
		return nil, 0, e.fail(err)
	}
	b, err := encodeResult(v)
	if err != nil {
		return nil, 0, e.fail(err)
	}
	return b, int(size), nil
}

// CheckItems tells whether a step takes a list of n items, where the
// orchestrator allows most.
func (s *Step) CheckItems(n, most int) error { return s.checkItems(int64(n), most) }

func (s *Step) checkItems(n int64, most int) error {
	switch {
	case s.MaxItems > 0 && n > int64(s.MaxItems):
		return fmt.Errorf("%d items are more than the step's max_items, %d", n, s.MaxItems)
	case n > int64(most):
		return fmt.Errorf("%d items are more than the orchestrator's limit, %d", n, most)
	}
	return nil
}

// ItemInput evaluates the input of an item's action, as Input does. It is to be
// called only if the step HasInput; otherwise it returns nil. The error is an
// *EvalError that names the item.
func (sc *Scope) ItemInput(it Item) ([]byte, error) {
	return sc.ofItem(it, nil, sc.w.exprs[it.Step].input)
}

// ItemCompensationInput evaluates the input of an item's compensation, as
// CompensationInput does; output is the item's own, empty for null.
func (sc *Scope) ItemCompensationInput(it Item, output []byte) ([]byte, error) {
	return sc.ofItem(it, output, sc.w.exprs[it.Step].compensationInput)
}

func (sc *Scope) ofItem(it Item, output []byte, e *expression) ([]byte, error) {
	if e == nil {
		return nil, nil
	}
	sc.item = &itemScope{Item: it, output: output}
	b, err := sc.json(e)
	sc.item = nil
	return b, err
}

// itemScope is what expressions see of the item for which they are evaluated.
type itemScope struct {
	Item
	output  []byte
	decoded ref.Val // Value; nil until asked for
}

func (it *itemScope) value() ref.Val {
	if it.decoded == nil {
		v, err := decodeJSON(it.Value, false)
		if err != nil {
			v = types.WrapErr(fmt.Errorf("the item is not JSON: %w", err))
		}
		it.decoded = v
	}
	return it.decoded
}

// own is the item in the place of its step, with its own output.
func (it *itemScope) own() ref.Val { return outputObject(it.output, "the item") }

// itemVariables are those of expressions that are evaluated for an item.
func itemVariables() []cel.EnvOption {
	return []cel.EnvOption{cel.Variable("item", cel.DynType), cel.Variable("index", cel.IntType)}
}
