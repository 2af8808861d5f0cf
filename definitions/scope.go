package definitions

import (
	"errors"
	"fmt"
	"strconv"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// Scope holds what the expressions of one run see: its input, and the outputs
// of its steps so far. Each is decoded when an expression first asks for it,
// and once only. A Scope is not safe for concurrent use; the payloads given to
// it must not be changed afterwards.
type Scope struct {
	w       *Workflow
	input   []byte
	decoded ref.Val // input; nil until asked for
	outputs [][]byte
	steps   []ref.Val  // {"output": ...} of each step; nil until asked for
	item    *itemScope // for which an expression is evaluated; nil: for none
	cost    uint64     // of all evaluations so far
}

// NewScope returns the scope of a run with that input, a JSON text; an empty
// one means null. Nothing is decoded or checked yet.
func (w *Workflow) NewScope(input []byte) *Scope {
	return &Scope{w: w, input: input}
}

// SetOutput says what a step yielded, a JSON text; an empty one means null. A
// step for which it was never said reads as null.
func (sc *Scope) SetOutput(step int, output []byte) {
	if !sc.w.readsOutputs {
		return
	}
	if sc.outputs == nil {
		sc.outputs = make([][]byte, len(sc.w.steps))
		sc.steps = make([]ref.Val, len(sc.w.steps))
	}
	sc.outputs[step] = output
	sc.steps[step] = nil
}

// RoutingKey evaluates the routing key; empty, if the workflow has no
// expression for it. The error is an *EvalError.
func (sc *Scope) RoutingKey() (string, error) {
	e := sc.w.routingKey
	if e == nil {
		return "", nil
	}
	v, err := sc.eval(e)
	if err != nil {
		return "", err
	}
	var key string
	switch v := v.(type) {
	case types.String:
		key = string(v)
	case types.Int, types.Uint:
		key = fmt.Sprint(v.Value())
	default:
		return "", e.fail(fmt.Errorf("yields %s, but must yield %s", v.Type().TypeName(), wantKey))
	}
	switch {
	case key == "":
		return "", e.fail(errors.New("yields an empty string"))
	case len(key) > MaxRoutingKeyBytes:
		return "", e.fail(fmt.Errorf("yields a string longer than %d bytes", MaxRoutingKeyBytes))
	}
	return key, nil
}

// EvalRoutingKey evaluates the routing key of a run with that input; empty, if
// the workflow has no expression for it. The error is an *EvalError.
func (w *Workflow) EvalRoutingKey(input []byte) (string, error) {
	if w.routingKey == nil {
		return "", nil
	}
	return w.NewScope(input).RoutingKey()
}

// When evaluates a step's condition; true, if it has none. The error is an
// *EvalError.
func (sc *Scope) When(step int) (bool, error) {
	e := sc.w.exprs[step].when
	if e == nil {
		return true, nil
	}
	v, err := sc.eval(e)
	if err != nil {
		return false, err
	}
	b, ok := v.(types.Bool)
	if !ok {
		return false, e.fail(fmt.Errorf("yields %s, but must yield %s", v.Type().TypeName(), wantBool))
	}
	return bool(b), nil
}

// Input evaluates the input of a step's action, as compact JSON with keys in
// order: the same every time. It is to be called only if the step HasInput;
// otherwise it returns nil. The error is an *EvalError.
func (sc *Scope) Input(step int) ([]byte, error) {
	return sc.json(sc.w.exprs[step].input)
}

// CompensationInput evaluates the input of a step's compensation, as Input
// does. It is to be called only if the step HasCompensationInput; otherwise it
// returns nil. The error is an *EvalError.
func (sc *Scope) CompensationInput(step int) ([]byte, error) {
	return sc.json(sc.w.exprs[step].compensationInput)
}

// Output evaluates the output of the run, as Input does. It is to be called
// only if the workflow HasOutput; otherwise it returns nil. The error is an
// *EvalError.
func (sc *Scope) Output() ([]byte, error) {
	return sc.json(sc.w.output)
}

func (sc *Scope) json(e *expression) ([]byte, error) {
	if e == nil {
		return nil, nil
	}
	v, err := sc.eval(e)
	if err != nil {
		return nil, err
	}
	b, err := encodeResult(v)
	if err != nil {
		return nil, sc.failed(e, err)
	}
	return b, nil
}

// encodeResult writes what an expression yields as JSON.
func encodeResult(v ref.Val) ([]byte, error) {
	b, err := encodeValue(nil, v, MaxResultBytes, 0)
	if err == nil && len(b) > MaxResultBytes {
		err = fmt.Errorf("the result is larger than %d bytes", MaxResultBytes)
	}
	return b, err
}

func (sc *Scope) eval(e *expression) (ref.Val, error) {
	v, details, err := e.program.Eval((*activation)(sc))
	if c := details.ActualCost(); c != nil {
		sc.cost += *c
	}
	if err != nil {
		return nil, sc.failed(e, err)
	}
	return v, nil
}

// Cost is what all evaluations so far have cost, in the units of
// EvaluationCostLimit.
func (sc *Scope) Cost() uint64 { return sc.cost }

// failed is the error of an expression; one that was evaluated for an item
// names it.
func (sc *Scope) failed(e *expression, err error) error {
	f := &EvalError{Step: e.step, Field: e.field, Expression: e.text, Err: err}
	if sc.item != nil {
		f.Step = ItemName(e.step, sc.item.Index)
	}
	return f
}

func (e *expression) fail(err error) error {
	return &EvalError{Step: e.step, Field: e.field, Expression: e.text, Err: err}
}

// activation gives expressions their variables.
type activation Scope

// ResolveName implements cel.Activation.
func (a *activation) ResolveName(name string) (any, bool) {
	switch name {
	case "item":
		if it := a.item; it != nil {
			return it.value(), true
		}
	case "index":
		if it := a.item; it != nil {
			return types.Int(it.Index), true
		}
	case "input":
		return (*Scope)(a).decodedInput(), true
	case "steps":
		return stepsVar{noSteps, (*Scope)(a)}, true
	}
	return nil, false
}

// Parent implements cel.Activation.
func (a *activation) Parent() cel.Activation { return nil }

// stepsVar is the variable steps. What was validated asks it for single steps
// by name and for nothing else, so the rest is an empty map's.
type stepsVar struct {
	*object
	sc *Scope
}

var noSteps = &object{}

// FindStringKey is the interpreter's short way to a step.
func (s stepsVar) FindStringKey(name string) (any, bool) {
	i, ok := s.sc.w.index[name]
	if !ok {
		return nil, false
	}
	return s.sc.step(i), true
}

// Find implements traits.Mapper.
func (s stepsVar) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok {
		return nil, false
	}
	v, ok := s.FindStringKey(string(name))
	if !ok {
		return nil, false
	}
	return v.(ref.Val), true
}

// Get implements traits.Indexer.
func (s stepsVar) Get(key ref.Val) ref.Val {
	v, ok := s.Find(key)
	if !ok {
		return types.NewErr("no such key: %v", key)
	}
	return v
}

func (sc *Scope) decodedInput() ref.Val {
	if sc.decoded == nil {
		v, err := decodeJSON(sc.input, false)
		if err != nil {
			v = types.WrapErr(fmt.Errorf("the input is not JSON: %w", err))
		}
		sc.decoded = v
	}
	return sc.decoded
}

var (
	outputKeys = []string{"output"}
	noOutput   = &object{keys: outputKeys, vals: []ref.Val{types.NullValue}}
)

func (sc *Scope) step(i int) ref.Val {
	if sc.item != nil && sc.item.Step == i {
		return sc.item.own()
	}
	if sc.outputs == nil || len(sc.outputs[i]) == 0 {
		return noOutput
	}
	if sc.steps[i] == nil {
		sc.steps[i] = outputObject(sc.outputs[i], "step "+strconv.Quote(sc.w.steps[i].Name))
	}
	return sc.steps[i]
}

// outputObject is what expressions see of a step with that output.
func outputObject(output []byte, of string) ref.Val {
	v, err := decodeJSON(output, false)
	if err != nil {
		v = types.WrapErr(fmt.Errorf("the output of %s is not JSON: %w", of, err))
	}
	return &object{keys: outputKeys, vals: []ref.Val{v}}
}
