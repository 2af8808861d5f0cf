package definitions_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

func TestFaultsOfStepsWithoutATask(t *testing.T) {
	tests := map[string]faulty{
		"a sleep needs nothing else": {func(b *definitions.SagaBuilder) { b.Step("a").Sleep(time.Hour) }, nil},
		"a sleep before, and after the pivot": {func(b *definitions.SagaBuilder) {
			b.Step("a").Sleep(time.Hour)
			after(b, "p").Pivot()
			b.Step("z").SleepUntil("input.at").When("input.slow")
		}, nil},
		"nothing to do": {func(b *definitions.SagaBuilder) { b.Step("a").When("true").NoCompensation("none") }, []string{"a steps[0].action required"}},
		"two things": {func(b *definitions.SagaBuilder) { step(b, "a").Sleep(time.Hour) },
			[]string{"a steps[0].sleep kind"}},
		"two sleeps":      {func(b *definitions.SagaBuilder) { b.Step("a").Sleep(time.Hour).SleepUntil("1") }, []string{"a steps[0].sleep_until kind"}},
		"no sleep at all": {func(b *definitions.SagaBuilder) { b.Step("a").Sleep(0) }, []string{"a steps[0].sleep duration"}},
		"a short sleep":   {func(b *definitions.SagaBuilder) { b.Step("a").Sleep(time.Microsecond) }, []string{"a steps[0].sleep duration"}},
		"a long sleep":    {func(b *definitions.SagaBuilder) { b.Step("a").Sleep(definitions.MaxDuration + 1) }, []string{"a steps[0].sleep duration"}},
		"until no time":   {func(b *definitions.SagaBuilder) { b.Step("a").SleepUntil("") }, []string{"a steps[0].sleep_until required"}},
		"until a bool":    {func(b *definitions.SagaBuilder) { b.Step("a").SleepUntil("input.x > 1") }, []string{"a steps[0].sleep_until expression"}},
		"until what comes later": {func(b *definitions.SagaBuilder) {
			b.Step("a").SleepUntil("steps.b.output")
			step(b, "b")
		}, []string{"a steps[0].sleep_until reference"}},
		"a signal": {func(b *definitions.SagaBuilder) {
			b.Step("a").WaitSignal("approval")
			b.Step("b").WaitSignal("approval").Timeout(time.Hour)
			b.Step("c").WaitSignal("other.one").Timeout(time.Hour).TimeoutOutput("steps.a.output")
		}, nil},
		"a signal without a name":   {func(b *definitions.SagaBuilder) { b.Step("a").WaitSignal("") }, []string{"a steps[0].signal required"}},
		"a signal's name":           {func(b *definitions.SagaBuilder) { b.Step("a").WaitSignal("a b") }, []string{"a steps[0].signal name"}},
		"a signal's timeout":        {func(b *definitions.SagaBuilder) { b.Step("a").WaitSignal("s").Timeout(-1) }, []string{"a steps[0].timeout duration"}},
		"an output, and no timeout": {func(b *definitions.SagaBuilder) { b.Step("a").WaitSignal("s").TimeoutOutput("1") }, []string{"a steps[0].timeout_output required"}},
		"an output that is empty":   {func(b *definitions.SagaBuilder) { b.Step("a").WaitSignal("s").Timeout(time.Hour).TimeoutOutput("") }, []string{"a steps[0].timeout_output required"}},
		"an output of its own": {func(b *definitions.SagaBuilder) {
			b.Step("a").WaitSignal("s").Timeout(time.Hour).TimeoutOutput("steps.a.output")
		}, []string{"a steps[0].timeout_output reference"}},
		"a timeout output of a task": {func(b *definitions.SagaBuilder) { step(b, "a").TimeoutOutput("1") }, []string{"a steps[0].timeout_output kind"}},
		"a sleep and a signal":       {func(b *definitions.SagaBuilder) { b.Step("a").Sleep(time.Hour).WaitSignal("s") }, []string{"a steps[0].signal kind"}},
		"a signal as the pivot":      {func(b *definitions.SagaBuilder) { b.Step("a").WaitSignal("s").Pivot() }, []string{"a steps[0].pivot pivot"}},
		"the pivot":                  {func(b *definitions.SagaBuilder) { b.Step("a").Sleep(time.Hour).Pivot() }, []string{"a steps[0].pivot pivot"}},
		"settings of a task": {func(b *definitions.SagaBuilder) {
			b.Step("a").Sleep(time.Hour).Service("s").Compensation("c").NoCompensation("x").Input("1").CompensationInput("1").
				Retry(definitions.RetryPolicy{MaxAttempts: 1}).CompensationRetry(definitions.RetryPolicy{MaxAttempts: 1}).
				Timeout(time.Second).CompensationTimeout(time.Second).QueueTimeout(time.Second).Placement(definitions.Ring)
		}, []string{
			"a steps[0].service kind", "a steps[0].compensation kind", "a steps[0].no_compensation kind", "a steps[0].input kind",
			"a steps[0].compensation_input kind", "a steps[0].retry kind", "a steps[0].compensation_retry kind", "a steps[0].timeout kind",
			"a steps[0].compensation_timeout kind", "a steps[0].queue_timeout kind", "a steps[0].placement kind",
		}},
	}
	checkFaults(t, tests)
}

func TestAStepNeedsNoServiceToSleep(t *testing.T) {
	b := definitions.Saga("flow")
	b.Step("a").Sleep(90 * time.Minute)
	wf, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"kind":"saga","name":"flow","steps":[{"name":"a","sleep":"1h30m","after":[]}]}`; string(wf.JSON()) != want {
		t.Errorf("JSON is %s, want %s", wf.JSON(), want)
	}
	if s := wf.Step(0); s.Kind != definitions.StepSleep || s.Sleep != 90*time.Minute || s.Kind.HasTask() {
		t.Errorf("step is %+v", s)
	}
}

func TestSleepUntilYieldsATime(t *testing.T) {
	b := definitions.Saga("flow")
	b.Step("a").SleepUntil("input.at")
	b.Step("b").SleepUntil("timestamp(input.at) + duration('1h')")
	wf := b.MustBuild()
	for _, tt := range []struct {
		step  int
		input string
		want  string // a time, or part of an error
	}{
		{0, `{"at":"2026-03-01T12:00:00+02:00"}`, "2026-03-01T10:00:00Z"},
		{0, `{"at":"2026-03-01T12:00:00.25Z"}`, "2026-03-01T12:00:00.25Z"},
		{0, `{"at":1767225600}`, "2026-01-01T00:00:00Z"},
		{0, `{"at":-1}`, "1969-12-31T23:59:59Z"},
		{1, `{"at":"2026-03-01T12:00:00Z"}`, "2026-03-01T13:00:00Z"},
		{0, `{"at":1767225600000}`, "years 1 to 9999"},
		{0, `{"at":9223372036854775807}`, "years 1 to 9999"},
		{0, `{"at":1767225600.5}`, "yields double"},
		{0, `{"at":"tomorrow"}`, "not a time in RFC 3339"},
		{0, `{"at":null}`, "yields null"},
		{0, `{}`, "no such key"},
		{1, `{"at":"tomorrow"}`, "invalid RFC 3339"},
	} {
		got, err := wf.NewScope([]byte(tt.input)).SleepUntil(tt.step)
		if err != nil {
			var eval *definitions.EvalError
			if !errors.As(err, &eval) || eval.Field != "sleep_until" || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: error is %v, want %s", tt.input, err, tt.want)
			}
			continue
		}
		if text := got.Format(time.RFC3339Nano); text != tt.want {
			t.Errorf("%s: %s, want %s", tt.input, text, tt.want)
		}
	}
}

// faulty is a definition and the faults that it has; nil, if it has none.
type faulty struct {
	define func(b *definitions.SagaBuilder)
	want   []string
}

func checkFaults(t *testing.T, tests map[string]faulty) {
	t.Helper()
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
