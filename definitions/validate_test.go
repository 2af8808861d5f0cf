package definitions_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// step adds a step that is valid before a pivot.
func step(b *definitions.SagaBuilder, name string) *definitions.StepBuilder {
	return b.Step(name).Action("do." + name).Compensation("undo." + name)
}

// after adds a step that is valid as the pivot or after it.
func after(b *definitions.SagaBuilder, name string) *definitions.StepBuilder {
	return b.Step(name).Action("do." + name)
}

// faultsOf returns an error's faults as "step field rule".
func faultsOf(t *testing.T, err error) []string {
	t.Helper()
	var invalid *definitions.Invalid
	if !errors.As(err, &invalid) || !errors.Is(err, definitions.ErrInvalid) {
		t.Fatalf("error is %v, want an *Invalid", err)
	}
	var out []string
	for _, f := range invalid.Faults {
		out = append(out, fmt.Sprintf("%s %s %s", f.Step, f.Field, f.Rule))
		if f.Message == "" || !strings.Contains(err.Error(), f.Message) {
			t.Errorf("the text of the error does not show %+v", f)
		}
	}
	return out
}

func TestBuildNamesStepFieldAndRuleOfAFault(t *testing.T) {
	long := strings.Repeat("n", definitions.MaxNameLength+1)
	retry := func(p definitions.RetryPolicy) func(*definitions.SagaBuilder) {
		return func(b *definitions.SagaBuilder) { step(b, "a").Retry(p) }
	}
	tests := map[string]struct {
		define func(b *definitions.SagaBuilder)
		want   []string
	}{
		"no steps": {func(*definitions.SagaBuilder) {}, []string{" steps required"}},
		"too many steps": {func(b *definitions.SagaBuilder) {
			for i := range definitions.MaxSteps + 1 {
				step(b, fmt.Sprint("s", i))
			}
		}, []string{" steps limit"}},
		"a version of nothing": {func(b *definitions.SagaBuilder) { step(b, "a").Action("@2") }, []string{"a steps[0].action required"}},
		"an empty version":     {func(b *definitions.SagaBuilder) { step(b, "a").Action("charge@") }, []string{"a steps[0].action name"}},
		"two versions":         {func(b *definitions.SagaBuilder) { step(b, "a").Compensation("undo@1@2") }, []string{"a steps[0].compensation name"}},
		"a version too long": {func(b *definitions.SagaBuilder) {
			step(b, "a").Action("charge@" + strings.Repeat("1", definitions.MaxVersionLength+1))
		}, []string{"a steps[0].action name"}},
		"undone by another version of itself": {func(b *definitions.SagaBuilder) { step(b, "a").Action("charge@2").Compensation("charge") }, []string{"a steps[0].compensation compensation"}},
		"a service with a version":            {func(b *definitions.SagaBuilder) { step(b, "a").Service("payments@2") }, []string{"a steps[0].service name"}},
		"a cycle of one":                      {func(b *definitions.SagaBuilder) { step(b, "a").After("a") }, []string{"a steps[0].after cycle"}},
		"a cycle after root":                  {func(b *definitions.SagaBuilder) { step(b, "r"); step(b, "a").After("r", "b"); step(b, "b") }, []string{"a steps[1].after cycle"}},
		"two cycles": {func(b *definitions.SagaBuilder) {
			step(b, "a").After("b")
			step(b, "b").After("a")
			step(b, "c").After("d")
			step(b, "d").After("c")
		}, []string{"a steps[0].after cycle", "c steps[2].after cycle"}},
		"unreachable": {func(b *definitions.SagaBuilder) {
			step(b, "a").After("b")
			step(b, "b")
			step(b, "c")
		}, []string{"a steps[0].after cycle", "c steps[2].after unreachable"}},
		"unknown name in After": {func(b *definitions.SagaBuilder) { step(b, "a"); step(b, "b").After("a", "zz") },
			[]string{"b steps[1].after[1] unknown-step"}},
		"name twice in After":    {func(b *definitions.SagaBuilder) { step(b, "a"); step(b, "b").After("a", "a") }, []string{"b steps[1].after[1] duplicate"}},
		"duplicate step":         {func(b *definitions.SagaBuilder) { step(b, "a"); step(b, "a").Compensation("c") }, []string{"a steps[1].name duplicate"}},
		"duplicate compensation": {func(b *definitions.SagaBuilder) { step(b, "a"); step(b, "b").Compensation("undo.a") }, []string{"b steps[1].compensation duplicate"}},
		"compensation is the action": {func(b *definitions.SagaBuilder) { b.Step("a").Action("x").Compensation("x") },
			[]string{"a steps[0].compensation compensation"}},
		"compensation of another service": {func(b *definitions.SagaBuilder) {
			b.Step("a").Do(definitions.NewTask[int, int]("s1", "x")).Undo(definitions.NewTask[int, int]("s2", "y"))
		}, []string{"a steps[0].compensation compensation"}},
		"compensation missing":                  {func(b *definitions.SagaBuilder) { after(b, "a") }, []string{"a steps[0].compensation compensation"}},
		"compensation missing before the pivot": {func(b *definitions.SagaBuilder) { after(b, "a"); after(b, "p").Pivot() }, []string{"a steps[0].compensation compensation"}},
		"both compensation and none":            {func(b *definitions.SagaBuilder) { step(b, "a").NoCompensation("because") }, []string{"a steps[0].no_compensation compensation"}},
		"no reason":                             {func(b *definitions.SagaBuilder) { after(b, "a").NoCompensation(" ") }, []string{"a steps[0].no_compensation required"}},
		"compensation of the pivot":             {func(b *definitions.SagaBuilder) { step(b, "p").Pivot() }, []string{"p steps[0].compensation compensation"}},
		"compensation after the pivot":          {func(b *definitions.SagaBuilder) { after(b, "p").Pivot(); step(b, "z") }, []string{"z steps[1].compensation compensation"}},
		"typed compensation after the pivot": {func(b *definitions.SagaBuilder) {
			after(b, "p").Pivot()
			after(b, "z").Undo(definitions.NewTask[int, int]("s", "undo.z"))
		}, []string{"z steps[1].compensation compensation"}},
		"reason for none after the pivot": {func(b *definitions.SagaBuilder) { after(b, "p").Pivot(); after(b, "z").NoCompensation("x") },
			[]string{"z steps[1].no_compensation compensation"}},
		"settings of a compensation that is not there": {func(b *definitions.SagaBuilder) {
			after(b, "p").Pivot().CompensationInput("1").CompensationTimeout(time.Second).
				CompensationRetry(definitions.RetryPolicy{MaxAttempts: 1})
		}, []string{"p steps[0].compensation_input compensation", "p steps[0].compensation_retry compensation", "p steps[0].compensation_timeout compensation"}},
		"beside the pivot": {func(b *definitions.SagaBuilder) { after(b, "p").Pivot(); step(b, "x").After() }, []string{"x steps[1].after pivot"}},
		"two pivots":       {func(b *definitions.SagaBuilder) { after(b, "p").Pivot(); after(b, "q").Pivot() }, []string{"q steps[1].pivot pivot"}},
		"service missing":  {func(b *definitions.SagaBuilder) { step(b, "a").Service("") }, nil},
		"action missing":   {func(b *definitions.SagaBuilder) { b.Step("a").Compensation("c") }, []string{"a steps[0].action required"}},
		"names": {func(b *definitions.SagaBuilder) {
			b.Step("").Action("a b").Compensation("-x").Service("ü")
			b.Step(long).Action("x").Compensation("y")
		}, []string{" steps[0].name required", " steps[0].service name", " steps[0].action name", " steps[0].compensation name", long + " steps[1].name name"}},
		"durations": {func(b *definitions.SagaBuilder) {
			b.Deadline(-1)
			step(b, "a").Timeout(definitions.MaxDuration + 1).CompensationTimeout(-time.Second).QueueTimeout(time.Microsecond)
		}, []string{" deadline duration", "a steps[0].timeout duration", "a steps[0].compensation_timeout duration", "a steps[0].queue_timeout duration"}},
		"retry waits": {retry(definitions.RetryPolicy{Initial: time.Second, Max: time.Millisecond, MaxElapsed: -1}),
			[]string{"a steps[0].retry.max_elapsed duration", "a steps[0].retry.max retry"}},
		"retry factors": {retry(definitions.RetryPolicy{Multiplier: 0.5, Jitter: 1.5}), []string{"a steps[0].retry.multiplier retry", "a steps[0].retry.jitter retry"}},
		"retry factors that are no numbers": {retry(definitions.RetryPolicy{Multiplier: math.NaN(), Jitter: math.NaN()}),
			[]string{"a steps[0].retry.multiplier retry", "a steps[0].retry.jitter retry"}},
		"retry attempts": {retry(definitions.RetryPolicy{MaxAttempts: -2}), []string{"a steps[0].retry.max_attempts retry"}},
		"retry codes": {retry(definitions.RetryPolicy{NonRetryable: []string{"", "a\nb", strings.Repeat("c", 200)}}),
			[]string{"a steps[0].retry.non_retryable[0] required", "a steps[0].retry.non_retryable[1] value", "a steps[0].retry.non_retryable[2] limit"}},
		"compensation retry": {func(b *definitions.SagaBuilder) {
			step(b, "a").CompensationRetry(definitions.RetryPolicy{Multiplier: -1})
		}, []string{"a steps[0].compensation_retry.multiplier retry"}},
		"placement":        {func(b *definitions.SagaBuilder) { step(b, "a").Placement(9) }, []string{"a steps[0].placement value"}},
		"long description": {func(b *definitions.SagaBuilder) { b.Description(strings.Repeat("x", 2000)); step(b, "a") }, []string{" description limit"}},
		"text that is not UTF-8": {func(b *definitions.SagaBuilder) { b.Description("\xff").Output("'\xff'"); step(b, "a") },
			[]string{" description value", " output expression"}},
		"expression syntax": {func(b *definitions.SagaBuilder) { b.Output("1 +"); step(b, "a").When("input.x &&") },
			[]string{" output expression", "a steps[0].when expression"}},
		"expression names":        {func(b *definitions.SagaBuilder) { step(b, "a").Input("inptu.x") }, []string{"a steps[0].input expression"}},
		"expression types":        {func(b *definitions.SagaBuilder) { step(b, "a").Input("1 + 'a'") }, []string{"a steps[0].input expression"}},
		"condition is not a bool": {func(b *definitions.SagaBuilder) { step(b, "a").When("'yes'") }, []string{"a steps[0].when expression"}},
		"routing key is a bool":   {func(b *definitions.SagaBuilder) { b.RoutingKey("input.x > 1"); step(b, "a") }, []string{" routing_key expression"}},
		"output is a type":        {func(b *definitions.SagaBuilder) { b.Output("type(1)"); step(b, "a") }, []string{" output expression"}},
		"long expression":         {func(b *definitions.SagaBuilder) { b.Output("'" + strings.Repeat("x", 5000) + "'"); step(b, "a") }, []string{" output limit"}},
		"bad regular expression":  {func(b *definitions.SagaBuilder) { step(b, "a").When("input.x.matches('[')") }, []string{"a steps[0].when expression"}},
		"deeply nested macros": {func(b *definitions.SagaBuilder) {
			b.Output("[1].map(a, [1].map(b, [1].map(c, [1].map(d, d))))")
			step(b, "a")
		}, []string{" output expression"}},
		"reference to an unknown step": {func(b *definitions.SagaBuilder) {
			b.Output("steps.zz.output")
			step(b, "a").Input("steps['y-y'].output.x")
		},
			[]string{" output reference", "a steps[0].input reference"}},
		"reference to a later step":     {func(b *definitions.SagaBuilder) { step(b, "a").Input("steps.b.output"); step(b, "b") }, []string{"a steps[0].input reference"}},
		"reference to a parallel step":  {func(b *definitions.SagaBuilder) { step(b, "a"); step(b, "b").After().When("steps.a.output") }, []string{"b steps[1].when reference"}},
		"reference to itself":           {func(b *definitions.SagaBuilder) { step(b, "a").Input("steps.a.output") }, []string{"a steps[0].input reference"}},
		"reference in the routing key":  {func(b *definitions.SagaBuilder) { b.RoutingKey("steps.a.output"); step(b, "a") }, []string{" routing_key reference"}},
		"reference by a computed name":  {func(b *definitions.SagaBuilder) { b.Output("steps[input.x].output"); step(b, "a") }, []string{" output reference"}},
		"reference to all steps":        {func(b *definitions.SagaBuilder) { b.Output("steps.map(s, s)"); step(b, "a") }, []string{" output reference"}},
		"reference that is not output":  {func(b *definitions.SagaBuilder) { b.Output("steps.a.status"); step(b, "a") }, []string{" output reference"}},
		"reference beside a type error": {func(b *definitions.SagaBuilder) { b.Output("steps.zz.output + nope"); step(b, "a") }, []string{" output expression", " output reference"}},
		"global behind a macro's name":  {func(b *definitions.SagaBuilder) { b.Output("[1].map(steps, .steps.zz.output)"); step(b, "a") }, []string{" output reference"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := definitions.Saga("flow").Service("s")
			tt.define(b)
			_, err := b.Build()
			if tt.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if got := faultsOf(t, err); !slices.Equal(got, tt.want) {
				t.Errorf("faults are\n%q, want\n%q\n%v", got, tt.want, err)
			}
		})
	}
}

func TestBuildReportsEveryFaultAtOnce(t *testing.T) {
	b := definitions.Saga("").Deadline(-time.Hour)
	b.Step("a").Action("x").Compensation("y").After("c").Timeout(-1)
	b.Step("b").After("a", "zz").Action("x").Compensation("y").When("1 +")
	b.Step("c").Service("s").Action("x").Pivot()
	b.Step("c").Service("s").Action("x").Compensation("u").Retry(definitions.RetryPolicy{Jitter: 2})
	_, err := b.Build()
	want := []string{
		" name required",
		" deadline duration",
		"a steps[0].service required",
		"a steps[0].timeout duration",
		"b steps[1].service required",
		"c steps[3].name duplicate",
		"c steps[3].retry.jitter retry",
		"b steps[1].after[1] unknown-step",
		"a steps[0].after cycle",
		"c steps[3].after unreachable",
		"c steps[3].compensation compensation",
		"b steps[1].when expression",
	}
	got := faultsOf(t, err)
	if !slices.Equal(got, want) {
		t.Errorf("faults are\n%q, want\n%q\n%v", got, want, err)
	}
}

func TestACycleIsShownStepByStep(t *testing.T) {
	b := definitions.Saga("flow").Service("s")
	step(b, "root")
	step(b, "a").After("root", "c")
	step(b, "b").After("a")
	step(b, "c").After("b")
	_, err := b.Build()
	for _, want := range []string{`"a", "b", "c"`, "a -> b -> c -> a"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\ndoes not show %s", err, want)
		}
	}
	if strings.Contains(err.Error(), `"root"`) {
		t.Errorf("%v\nnames a step outside the cycle", err)
	}
}

func TestAFaultyExpressionIsShownByPosition(t *testing.T) {
	for expr, want := range map[string]string{
		"input.x +\n  nope":             "line 2, column 3",
		"input.a + ":                    "line 1, column 11",
		"'a' + 1":                       "line 1, column 5",
		"input.a == steps.zz.output.id": "line 1, column 12",
		"[1, steps]":                    "line 1, column 5",
	} {
		b := definitions.Saga("flow").Service("s").Output(expr)
		step(b, "a")
		if _, err := b.Build(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v\ndoes not show %s", expr, err, want)
		}
	}
}

func TestMustBuildPanicsOnAnInvalidDefinition(t *testing.T) {
	defer func() {
		if err, _ := recover().(error); !errors.Is(err, definitions.ErrInvalid) {
			t.Errorf("panic is %v", err)
		}
	}()
	definitions.Saga("flow").MustBuild()
}
