package definitions_test

import (
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

func TestFaultsOfChoicesAndBranches(t *testing.T) {
	route := func(b *definitions.SagaBuilder) *definitions.StepBuilder {
		return b.Step("route").Choice().Case("fast", "input.fast").Otherwise("slow")
	}
	tests := map[string]faulty{
		"a choice with branches": {func(b *definitions.SagaBuilder) {
			route(b)
			step(b, "fly").Branch("route", "fast")
			b.Step("nap").Sleep(time.Hour).Branch("route", "slow").When("input.nap")
			after(b, "p").Pivot().Branch("route", "slow")
			b.Step("again").Case("one", "steps.fly.output == 1")
		}, nil},
		"no cases": {func(b *definitions.SagaBuilder) { b.Step("a").Choice() }, []string{"a steps[0].choice required"}},
		"too many cases": {func(b *definitions.SagaBuilder) {
			s := b.Step("a").Choice()
			for i := range definitions.MaxCases + 1 {
				s.Case("c"+strconv.Itoa(i), "true")
			}
		}, []string{"a steps[0].choice limit"}},
		"names of cases": {func(b *definitions.SagaBuilder) {
			b.Step("a").Case("", "true").Case("x y", "true").Case("z", "true").Otherwise("z")
		}, []string{"a steps[0].choice[0].case required", "a steps[0].choice[1].case name", "a steps[0].choice[3].case duplicate"}},
		"otherwise in the middle": {func(b *definitions.SagaBuilder) { b.Step("a").Otherwise("x").Case("y", "true") },
			[]string{"a steps[0].choice[0].when required"}},
		"no condition":              {func(b *definitions.SagaBuilder) { b.Step("a").Case("x", "") }, []string{"a steps[0].choice[0].when required"}},
		"condition is no bool":      {func(b *definitions.SagaBuilder) { b.Step("a").Case("x", "'yes'") }, []string{"a steps[0].choice[0].when expression"}},
		"condition on a later step": {func(b *definitions.SagaBuilder) { b.Step("a").Case("x", "steps.b.output"); step(b, "b") }, []string{"a steps[0].choice[0].when reference"}},
		"a choice as the pivot":     {func(b *definitions.SagaBuilder) { route(b).Pivot() }, []string{"route steps[0].pivot pivot"}},
		"a choice with an action":   {func(b *definitions.SagaBuilder) { route(b).Action("x") }, []string{"route steps[0].choice kind", "route steps[0].compensation compensation"}},
		"branch of no step":         {func(b *definitions.SagaBuilder) { step(b, "a").Branch("rout", "x") }, []string{"a steps[0].branch.choice unknown-step"}},
		"branch without a name":     {func(b *definitions.SagaBuilder) { step(b, "a").Branch("", "x") }, []string{"a steps[0].branch.choice required"}},
		"branch of a task":          {func(b *definitions.SagaBuilder) { step(b, "a"); step(b, "b").Branch("a", "x") }, []string{"b steps[1].branch.choice branch"}},
		"branch of a later choice":  {func(b *definitions.SagaBuilder) { step(b, "a").Branch("route", "fast"); route(b) }, []string{"a steps[0].branch.choice branch"}},
		"branch of a choice beside": {func(b *definitions.SagaBuilder) { route(b); step(b, "a").After().Branch("route", "fast") }, []string{"a steps[1].branch.choice branch"}},
		"branch of itself":          {func(b *definitions.SagaBuilder) { route(b).Branch("route", "fast") }, []string{"route steps[0].branch.choice branch"}},
		"unknown case":              {func(b *definitions.SagaBuilder) { route(b); step(b, "a").Branch("route", "quick") }, []string{"a steps[1].branch.case branch"}},
		"branch without a case":     {func(b *definitions.SagaBuilder) { route(b); step(b, "a").Branch("route", "") }, []string{"a steps[1].branch.case required"}},
	}
	checkFaults(t, tests)
}

func TestFaultsOfAChoiceInJSON(t *testing.T) {
	for text, want := range map[string]string{
		`{"kind":"saga","name":"n","steps":[{"name":"a","choice":5}]}`:                                  "a steps[0].choice type",
		`{"kind":"saga","name":"n","steps":[{"name":"a","choice":[5]}]}`:                                "a steps[0].choice[0] type",
		`{"kind":"saga","name":"n","steps":[{"name":"a","choice":[{"case":"x","if":"true"}]}]}`:         "a steps[0].choice[0].if unknown-field",
		`{"kind":"saga","name":"n","steps":[{"name":"a","choice":[{"case":"x"}],"branch":"x"}]}`:        "a steps[0].branch type",
		`{"kind":"saga","name":"n","steps":[{"name":"a","sleep":"1s","branch":{"of":"x"}}]}`:            "a steps[0].branch.of unknown-field",
		`{"kind":"saga","name":"n","steps":[{"name":"a","sleep":"1s","choice":[{"case":"x"}]}]}`:        "a steps[0].choice kind",
		`{"kind":"saga","name":"n","steps":[{"name":"a","choice":[{"case":"x","when":""}]}]}`:           "a steps[0].choice[0].when required",
		`{"kind":"tcc","name":"n","participants":[{"name":"a","service":"s","choice":[{"case":"x"}]}]}`: "a participants[0].choice unknown-field",
	} {
		_, err := definitions.Parse([]byte(text))
		if got := faultsOf(t, err); !slices.Contains(got, want) {
			t.Errorf("%s\nfaults are %q, want %q", text, got, want)
		}
	}
}

func TestChooseTakesTheFirstTrueCase(t *testing.T) {
	b := definitions.Saga("flow")
	b.Step("a").Case("big", "input.n > 10").Case("small", "input.n > 1").Otherwise("tiny")
	b.Step("b").Case("big", "input.n > 10").Case("odd", "input.odd")
	wf := b.MustBuild()
	for _, tt := range []struct {
		step        int
		input, want string
		field       string // of the error
	}{
		{0, `{"n":11}`, "big", ""}, {0, `{"n":2}`, "small", ""}, {0, `{"n":0}`, "tiny", ""},
		{1, `{"n":11}`, "big", ""}, {1, `{"n":1,"odd":false}`, "", ""},
		{1, `{"n":1,"odd":"yes"}`, "", "choice[1].when"}, {1, `{}`, "", "choice[0].when"},
	} {
		got, ok, err := wf.NewScope([]byte(tt.input)).Choose(tt.step)
		var eval *definitions.EvalError
		if errors.As(err, &eval) != (tt.field != "") || err != nil && eval.Field != tt.field || got != tt.want || ok != (tt.want != "") {
			t.Errorf("%s: %q, %v, %v; want %q", tt.input, got, ok, err, tt.want)
		}
	}
}

func TestChoicesAndBranchesSurviveTheirJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := definitions.Saga("flow").Service("s")
		names := drawChoice(t, b.Step("route"))
		for n := range rapid.IntRange(0, 4).Draw(t, "branches") {
			step(b, "s"+strconv.Itoa(n)).Branch("route", rapid.SampledFrom(names).Draw(t, "branch"))
		}
		built, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := definitions.Parse(built.JSON())
		if err != nil {
			t.Fatalf("%v\n%s", err, built.JSON())
		}
		sameWorkflow(t, built, parsed)
	})
}
