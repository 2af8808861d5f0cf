package definitions

import (
	"slices"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"
)

// orderMaps makes the maps that an expression writes iterate in the order of
// their keys, since Go's own maps would come out differently every time. The
// usual kind, whose keys are strings in the text, becomes an object at once.
func orderMaps(i interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
	if c, ok := i.(interpreter.InterpretableConst); ok {
		if m, ok := c.Value().(traits.Mapper); ok {
			return interpreter.NewConstValue(i.ID(), ordered{m}), nil
		}
		return i, nil
	}
	c, ok := i.(interpreter.InterpretableConstructor)
	if !ok || c.Type() != types.MapType {
		return i, nil
	}
	if l, ok := newObjectLiteral(c); ok {
		return l, nil
	}
	return mapLiteral{i}, nil
}

// mapLiteral evaluates a map with keys of any kind.
type mapLiteral struct {
	interpreter.InterpretableV2
}

// Exec implements interpreter.InterpretableV2.
func (m mapLiteral) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	v := m.InterpretableV2.Exec(frame)
	if mapper, ok := v.(traits.Mapper); ok {
		return ordered{mapper}
	}
	return v
}

// Eval implements interpreter.Interpretable.
func (m mapLiteral) Eval(vars interpreter.Activation) ref.Val {
	return interpreter.EvalActivation(vars, m.Exec)
}

// objectLiteral evaluates a map whose keys are distinct constant strings.
type objectLiteral struct {
	id   int64
	keys []string // ascending
	at   []int    // where the values go, which are in the order written
	vals []interpreter.InterpretableV2
}

func newObjectLiteral(c interpreter.InterpretableConstructor) (*objectLiteral, bool) {
	parts := c.InitVals()
	if len(parts)%2 != 0 || len(parts) == 0 {
		return nil, false
	}
	l := &objectLiteral{id: c.ID()}
	written := make([]string, 0, len(parts)/2)
	for i := 0; i < len(parts); i += 2 {
		k, ok := parts[i].(interpreter.InterpretableConst)
		if !ok {
			return nil, false
		}
		s, ok := k.Value().(types.String)
		if !ok || slices.Contains(written, string(s)) {
			return nil, false
		}
		written = append(written, string(s))
		l.vals = append(l.vals, parts[i+1])
	}
	l.keys = slices.Sorted(slices.Values(written))
	for _, k := range written {
		at, _ := slices.BinarySearch(l.keys, k)
		l.at = append(l.at, at)
	}
	return l, true
}

// ID implements interpreter.Interpretable.
func (l *objectLiteral) ID() int64 { return l.id }

// Exec implements interpreter.InterpretableV2.
func (l *objectLiteral) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	o := &object{keys: l.keys, vals: make([]ref.Val, len(l.keys))}
	for i, val := range l.vals {
		v := val.Exec(frame)
		if types.IsUnknownOrError(v) {
			return v
		}
		o.vals[l.at[i]] = v
	}
	if costs := frame.CostTracker(); costs != nil {
		costs.CreateMap(l.id, o)
	}
	return o
}

// Eval implements interpreter.Interpretable.
func (l *objectLiteral) Eval(vars interpreter.Activation) ref.Val {
	return interpreter.EvalActivation(vars, l.Exec)
}
