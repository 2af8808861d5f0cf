package definitions_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

func TestFaultsOfChildRuns(t *testing.T) {
	tests := map[string]faulty{
		"with a compensation": {func(b *definitions.SagaBuilder) { b.Step("a").Workflow("transfer").Compensation("back") }, nil},
		"without":             {func(b *definitions.SagaBuilder) { b.Step("a").Workflow("transfer").NoCompensation("a test") }, nil},
		"before, as, and after the pivot": {func(b *definitions.SagaBuilder) {
			b.Step("a").Workflow("x").Compensation("c").Timeout(time.Hour).Retry(definitions.RetryPolicy{MaxAttempts: 3})
			b.Step("p").Workflow("y").Pivot().Input("steps.a.output")
			b.Step("z").Workflow("z").When("input.z")
		}, nil},
		"itself, behind a condition": {func(b *definitions.SagaBuilder) {
			b.Step("a").Workflow("flow").When("input.n > 0").Input("{'n': input.n - 1}").NoCompensation("a test")
		}, nil},
		"no name":    {func(b *definitions.SagaBuilder) { b.Step("a").Workflow("").NoCompensation("x") }, []string{"a steps[0].workflow required"}},
		"a bad name": {func(b *definitions.SagaBuilder) { b.Step("a").Workflow("a b").NoCompensation("x") }, []string{"a steps[0].workflow name"}},
		"a long name": {func(b *definitions.SagaBuilder) {
			b.Step("a").Workflow(strings.Repeat("x", definitions.MaxNameLength+1)).NoCompensation("x")
		}, []string{"a steps[0].workflow name"}},
		"an action too":     {func(b *definitions.SagaBuilder) { step(b, "a").Workflow("x") }, []string{"a steps[0].workflow kind"}},
		"a sleep too":       {func(b *definitions.SagaBuilder) { b.Step("a").Sleep(time.Hour).Workflow("x") }, []string{"a steps[0].workflow kind"}},
		"not undone":        {func(b *definitions.SagaBuilder) { b.Step("a").Workflow("x") }, []string{"a steps[0].compensation compensation"}},
		"undone as a pivot": {func(b *definitions.SagaBuilder) { b.Step("a").Workflow("x").Pivot().Compensation("c") }, []string{"a steps[0].compensation compensation"}},
		"with a queue": {func(b *definitions.SagaBuilder) {
			b.Step("a").Workflow("x").NoCompensation("y").QueueTimeout(time.Second)
		}, []string{"a steps[0].queue_timeout kind"}},
		"a service, no task": {func(b *definitions.SagaBuilder) { b.Step("a").Workflow("x").NoCompensation("y").Service("s") }, []string{"a steps[0].service kind"}},
		"placed, no task": {func(b *definitions.SagaBuilder) {
			b.Step("a").Workflow("x").NoCompensation("y").Placement(definitions.Ring)
		}, []string{"a steps[0].placement kind"}},
		"two that one compensation undoes": {func(b *definitions.SagaBuilder) {
			b.Step("a").Workflow("x").Compensation("c")
			b.Step("b").Workflow("y").Compensation("c")
		}, []string{"b steps[1].compensation duplicate"}},
		"sees what comes later": {func(b *definitions.SagaBuilder) {
			b.Step("a").Workflow("x").NoCompensation("y").Input("steps.b.output")
			step(b, "b")
		}, []string{"a steps[0].input reference"}},
	}
	checkFaults(t, tests)
}

func TestAChildRunNeedsAServiceForItsCompensationAlone(t *testing.T) {
	b := definitions.Saga("flow")
	b.Step("a").Workflow("x").NoCompensation("none")
	b.Step("b").Workflow("x").Compensation("undo")
	_, err := b.Build()
	if got := faultsOf(t, err); !slices.Equal(got, []string{"b steps[1].service required"}) {
		t.Errorf("faults are %q: %v", got, err)
	}
}

func TestDefaultsOfAChildRun(t *testing.T) {
	b := definitions.Saga("flow").Service("shop")
	b.Step("settle").Workflow("transfer").Compensation("settle.undo")
	b.Step("announce").Workflow("announcement").Pivot()
	b.Step("archive").Workflow("archive")
	wf := b.MustBuild()
	for i := range wf.Len() {
		s := wf.Step(i)
		if s.Kind != definitions.StepChild || s.Timeout != 0 || s.Retry.MaxAttempts != 1 || s.Action != "" || s.Workflow == "" {
			t.Errorf("%s: %+v", s.Name, s)
		}
	}
	const want = `{"kind":"saga","name":"flow","steps":[` +
		`{"name":"settle","service":"shop","workflow":"transfer","compensation":"settle.undo","after":[]},` +
		`{"name":"announce","workflow":"announcement","pivot":true,"after":["settle"]},` +
		`{"name":"archive","workflow":"archive","after":["announce"]}]}`
	if got := string(wf.JSON()); got != want {
		t.Errorf("JSON is\n%s, want\n%s", got, want)
	}
	again, err := definitions.Parse(wf.JSON())
	if err != nil || again.Version() != wf.Version() {
		t.Errorf("read again: %v", err)
	}
}
