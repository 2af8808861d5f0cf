package definitions

import (
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// pricer says what a call of a function costs. CEL's own prices hang on the
// overload, which is not known beforehand for the dynamic values of a run, and
// then everything would cost one: also joining two long strings.
type pricer struct{}

// CallCost implements cost.ActualCostEstimator.
func (pricer) CallCost(function, _ string, args []ref.Val, result ref.Val) *uint64 {
	price := uint64(1)
	for _, arg := range args {
		price += textPrice(arg)
	}
	price += textPrice(result)
	switch function {
	case operators.Equals, operators.NotEquals, operators.In:
		for _, arg := range args {
			left := uint64(EvaluationCostLimit)
			weigh(arg, &left)
			price += EvaluationCostLimit - left
		}
	case overloads.Matches:
		if len(args) == 2 {
			price += textPrice(args[0]) * textPrice(args[1])
		}
	}
	return &price
}

// textPrice is one per ten bytes.
func textPrice(v ref.Val) uint64 {
	switch v := v.(type) {
	case types.String:
		return uint64(len(v)) / 10
	case types.Bytes:
		return uint64(len(v)) / 10
	}
	return 0
}

// weigh takes from left what it costs to go over a list or map.
func weigh(v ref.Val, left *uint64) {
	spend := func(n uint64) bool {
		*left -= min(n, *left)
		return *left > 0
	}
	switch v := v.(type) {
	case *object:
		for _, el := range v.vals {
			if !spend(1 + textPrice(el)) {
				return
			}
			weigh(el, left)
		}
	case traits.Mapper:
		for it := v.Iterator(); it.HasNext() == types.True; {
			el, _ := v.Find(it.Next())
			if !spend(1 + textPrice(el)) {
				return
			}
			weigh(el, left)
		}
	case traits.Lister:
		size, _ := v.Size().(types.Int)
		for i := range size {
			el := v.Get(i)
			if !spend(1 + textPrice(el)) {
				return
			}
			weigh(el, left)
		}
	}
}
