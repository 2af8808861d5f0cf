package definitions_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

func TestFaultsOfStepsThatFanOut(t *testing.T) {
	tests := map[string]struct {
		define func(b *definitions.SagaBuilder)
		want   []string
	}{
		"all that there is": {func(b *definitions.SagaBuilder) {
			step(b, "pick")
			step(b, "ship").ForEach("steps.pick.output.boxes").Parallel(4).MaxItems(100).When("input.ship").
				Input("{'box': item.id, 'n': index + 1}").CompensationInput("{'p': steps.ship.output, 'box': item}")
			after(b, "p").Pivot().Input("steps.ship.output[0]")
			after(b, "z").ForEach("[1, 2]")
		}, nil},
		"no list": {func(b *definitions.SagaBuilder) { step(b, "a").ForEach("'x'") }, []string{"a steps[0].for_each expression"}},
		"a map":   {func(b *definitions.SagaBuilder) { step(b, "a").ForEach("{'x': 1}") }, []string{"a steps[0].for_each expression"}},
		"a list of what comes later": {func(b *definitions.SagaBuilder) {
			step(b, "a").ForEach("steps.b.output")
			step(b, "b")
		}, []string{"a steps[0].for_each reference"}},
		"its own output as list":         {func(b *definitions.SagaBuilder) { step(b, "a").ForEach("steps.a.output") }, []string{"a steps[0].for_each reference"}},
		"its own output as input":        {func(b *definitions.SagaBuilder) { step(b, "a").ForEach("[1]").Input("steps.a.output") }, []string{"a steps[0].input reference"}},
		"item in the list":               {func(b *definitions.SagaBuilder) { step(b, "a").ForEach("item.list") }, []string{"a steps[0].for_each expression"}},
		"item in the condition":          {func(b *definitions.SagaBuilder) { step(b, "a").ForEach("[1]").When("item > 0") }, []string{"a steps[0].when expression"}},
		"item without for_each":          {func(b *definitions.SagaBuilder) { step(b, "a").Input("item") }, []string{"a steps[0].input expression"}},
		"index is an integer":            {func(b *definitions.SagaBuilder) { step(b, "a").ForEach("[1]").Input("index + 'x'") }, []string{"a steps[0].input expression"}},
		"the pivot":                      {func(b *definitions.SagaBuilder) { after(b, "a").ForEach("[1]").Pivot() }, []string{"a steps[0].for_each for-each"}},
		"settings without for_each":      {func(b *definitions.SagaBuilder) { step(b, "a").Parallel(2).MaxItems(2) }, []string{"a steps[0].parallel for-each", "a steps[0].max_items for-each"}},
		"a negative window, a long list": {func(b *definitions.SagaBuilder) { step(b, "a").ForEach("[1]").Parallel(-1).MaxItems(10_001) }, []string{"a steps[0].parallel for-each", "a steps[0].max_items for-each"}},
		"a sleep": {func(b *definitions.SagaBuilder) { b.Step("a").Sleep(time.Hour).ForEach("[1]").Parallel(2) },
			[]string{"a steps[0].for_each kind", "a steps[0].parallel kind"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := definitions.Saga("flow").Service("s")
			tt.define(b)
			wf, err := b.Build()
			if tt.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				again, err := definitions.Parse(wf.JSON())
				if err != nil {
					t.Fatal(err)
				}
				sameWorkflow(t, wf, again)
				return
			}
			if got := faultsOf(t, err); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q\n%v", got, tt.want, err)
			}
		})
	}
}

func TestForEachInJSONLeavesOutDefaults(t *testing.T) {
	build := func(f func(*definitions.StepBuilder)) string {
		b := definitions.Saga("flow").Service("s")
		f(step(b, "a").ForEach("input"))
		return string(b.MustBuild().JSON())
	}
	plain := build(func(*definitions.StepBuilder) {})
	if !strings.Contains(plain, `"for_each":"input"`) || strings.Contains(plain, "parallel") || strings.Contains(plain, "max_items") {
		t.Errorf("JSON is %s", plain)
	}
	if same := build(func(s *definitions.StepBuilder) { s.Parallel(definitions.DefaultParallel).MaxItems(0) }); same != plain {
		t.Errorf("the defaults written out give %s", same)
	}
	full := build(func(s *definitions.StepBuilder) { s.Parallel(4).MaxItems(100) })
	if !strings.Contains(full, `"for_each":"input","parallel":4,"max_items":100`) {
		t.Errorf("JSON is %s", full)
	}
}

func TestItemsAndTheirInputs(t *testing.T) {
	b := definitions.Saga("flow").Service("s")
	step(b, "a").ForEach("input.list").MaxItems(3).
		Input("{'i': index, 'v': item.v, 'n': input.n}").CompensationInput("[item.v, steps.a.output]")
	wf := b.MustBuild()
	sc := wf.NewScope([]byte(`{"n": 7, "list": [{"v": 1.50}, {"w": "x"}]}`))
	list, n, err := sc.Items(0, 1000)
	if err != nil || n != 2 || string(list) != `[{"v":1.5},{"w":"x"}]` {
		t.Fatalf("items are %s, %d, %v", list, n, err)
	}
	first := definitions.Item{Step: 0, Index: 0, Value: []byte(`{"v":1.5}`)}
	if in, err := sc.ItemInput(first); err != nil || string(in) != `{"i":0,"n":7,"v":1.5}` {
		t.Errorf("input is %s, %v", in, err)
	}
	if in, err := sc.ItemCompensationInput(first, []byte(`"done"`)); err != nil || string(in) != `[1.5,"done"]` {
		t.Errorf("compensation input is %s, %v", in, err)
	}
	if in, err := sc.ItemCompensationInput(first, nil); err != nil || string(in) != `[1.5,null]` {
		t.Errorf("compensation input without output is %s, %v", in, err)
	}
	_, err = sc.ItemInput(definitions.Item{Step: 0, Index: 1, Value: []byte(`{"w":"x"}`)})
	var eval *definitions.EvalError
	if !errors.As(err, &eval) || eval.Step != "a[1]" || eval.Field != "input" || !strings.Contains(err.Error(), "no such key: v") {
		t.Errorf("error is %v", err)
	}
}

func TestListsThatAStepDoesNotTake(t *testing.T) {
	long := "[" + strings.Repeat("0,", 200) + "0]"
	tests := map[string]struct{ expr, input, want string }{
		"not a list":         {"input", `{"a":1}`, "yields map, but must yield a list"},
		"null":               {"input.list", `{"list":null}`, "yields null_type, but must yield a list"},
		"longer than its":    {"input", `[1,2,3,4,5,6,7,8,9,10,11,12,13]`, "13 items are more than the step's max_items, 12"},
		"longer than ours":   {"input", `[1,2,3,4,5,6,7,8,9,10,11]`, "11 items are more than the orchestrator's limit, 10"},
		"a list bomb":        {"input.map(a, input.map(b, input.map(c, input)))", long, "operation cancelled: actual cost limit exceeded"},
		"a list too large":   {"[input, input]", `"` + strings.Repeat("x", 600_000) + `"`, fmt.Sprintf("the result is larger than %d bytes", definitions.MaxResultBytes)},
		"what has no result": {"input.map(x, x / 0)", "[1]", "division by zero"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := definitions.Saga("flow").Service("s")
			step(b, "a").ForEach(tt.expr).MaxItems(12)
			_, _, err := b.MustBuild().NewScope([]byte(tt.input)).Items(0, 10)
			var eval *definitions.EvalError
			if !errors.As(err, &eval) || eval.Step != "a" || eval.Field != "for_each" || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want %q", err, tt.want)
			}
		})
	}
}

func TestCostOfAScopeGrowsWithWhatItEvaluates(t *testing.T) {
	b := definitions.Saga("flow").Service("s")
	step(b, "a").ForEach("input").Input("input.map(x, x + item)")
	sc := b.MustBuild().NewScope([]byte(`[1,2,3]`))
	for i, before := 0, uint64(0); i < 3; i++ {
		if _, err := sc.ItemInput(definitions.Item{Value: []byte("1")}); err != nil {
			t.Fatal(err)
		}
		if sc.Cost() <= before {
			t.Fatalf("cost is %d after %d", sc.Cost(), before)
		}
		before = sc.Cost()
	}
}
