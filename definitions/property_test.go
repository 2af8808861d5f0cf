package definitions_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// drawSaga draws a valid saga: a graph by layers, with or without a pivot, and
// any settings.
func drawSaga(t *rapid.T) *definitions.SagaBuilder {
	b := definitions.Saga(drawName(t, "workflow"))
	b.Description(rapid.StringN(0, 50, 200).Draw(t, "description"))
	if rapid.Bool().Draw(t, "deadline?") {
		b.Deadline(drawDuration(t))
	}
	n := rapid.IntRange(1, 12).Draw(t, "steps")
	pivot := rapid.IntRange(-n, n-1).Draw(t, "pivot")
	var names []string
	for i := range n {
		name := fmt.Sprintf("%s-%d", rapid.StringMatching(`[a-zA-Z0-9][a-zA-Z0-9._-]{0,20}`).Draw(t, "step"), i)
		drawStep(t, b.Step(name), i, pivot, names)
		names = append(names, name)
	}
	if rapid.Bool().Draw(t, "output?") {
		b.Output(drawExpression(t, names))
	}
	if rapid.Bool().Draw(t, "key?") {
		b.RoutingKey("input.key")
	}
	drawLocks(t, b)
	return b
}

// drawLocks adds locks, and Serial.
func drawLocks(t *rapid.T, b *definitions.SagaBuilder) {
	for range rapid.IntRange(0, 2).Draw(t, "locks") {
		name := rapid.SampledFrom([]string{"'a'", "input.x", "['a', input.y]", "'b/' + string(input.z)"}).Draw(t, "lock")
		if rapid.Bool().Draw(t, "shared") {
			b.LockShared(name)
		} else {
			b.Lock(name)
		}
	}
	if rapid.Bool().Draw(t, "serial") {
		b.Serial()
	}
}

func drawStep(t *rapid.T, s *definitions.StepBuilder, i, pivot int, before []string) {
	afterPivot := pivot >= 0 && i >= pivot
	compensated := false
	switch {
	case i == pivot:
		s.Pivot().After(before...)
	case afterPivot:
		others := rapid.SliceOfDistinct(rapid.SampledFrom(before), rapid.ID[string]).Draw(t, "after")
		others = slices.DeleteFunc(others, func(name string) bool { return name == before[pivot] })
		s.After(append(others, before[pivot])...)
	case i > 0 && rapid.Bool().Draw(t, "after?"):
		s.After(rapid.SliceOfDistinct(rapid.SampledFrom(before), rapid.ID[string]).Draw(t, "after")...)
	}
	if i == 0 && rapid.Bool().Draw(t, "when?") {
		s.When("input.go == true")
	}
	if i != pivot && rapid.IntRange(0, 4).Draw(t, "waits?") == 0 {
		drawWait(t, s)
		return
	}
	child := rapid.IntRange(0, 4).Draw(t, "child?") == 0
	if child {
		s.Workflow(drawName(t, "workflow"))
	} else {
		s.Service(drawName(t, "service")).Action(drawName(t, "action"))
	}
	if !afterPivot {
		if compensated = rapid.Bool().Draw(t, "compensated"); compensated {
			s.Compensation(fmt.Sprintf("undo.%d", i)).Service(drawName(t, "service"))
		} else {
			s.NoCompensation(rapid.StringN(1, 20, 80).Draw(t, "reason") + ".")
		}
	}
	if i != pivot && rapid.Bool().Draw(t, "for each?") {
		s.ForEach("[1, input.b, 'x']").Parallel(rapid.IntRange(0, 20).Draw(t, "parallel")).
			MaxItems(rapid.IntRange(0, definitions.MaxItemsLimit).Draw(t, "max items"))
	}
	if rapid.Bool().Draw(t, "input?") {
		s.Input(drawExpression(t, nil))
	}
	if rapid.Bool().Draw(t, "settings?") {
		s.Timeout(drawDuration(t)).Retry(drawRetry(t))
	}
	if !child && rapid.Bool().Draw(t, "settings of a task?") {
		s.QueueTimeout(drawDuration(t)).Placement(rapid.SampledFrom([]definitions.Placement{definitions.Bounded, definitions.Ring, definitions.LeastLoaded}).Draw(t, "placement"))
	}
	if compensated && rapid.Bool().Draw(t, "compensation settings?") {
		s.CompensationTimeout(drawDuration(t)).CompensationRetry(drawRetry(t)).CompensationInput(drawExpression(t, nil))
	}
}

// drawWait makes a step one without a task.
func drawWait(t *rapid.T, s *definitions.StepBuilder) {
	if rapid.Bool().Draw(t, "until?") {
		s.SleepUntil(rapid.SampledFrom([]string{"input.at", "timestamp('2026-01-01T00:00:00Z')", "5", "'2026-01-01T00:00:00Z'"}).Draw(t, "time"))
		return
	}
	if rapid.Bool().Draw(t, "choice?") {
		drawChoice(t, s)
		return
	}
	if rapid.Bool().Draw(t, "signal?") {
		s.WaitSignal(drawName(t, "signal"))
		if d := drawDuration(t); rapid.Bool().Draw(t, "timeout?") {
			if s.Timeout(d); d > 0 && rapid.Bool().Draw(t, "timeout output?") {
				s.TimeoutOutput(drawExpression(t, nil))
			}
		}
		return
	}
	s.Sleep(max(drawDuration(t), definitions.MinDuration))
}

// drawChoice makes a step a choice, and returns the names of its cases.
func drawChoice(t *rapid.T, s *definitions.StepBuilder) (names []string) {
	s.Choice()
	for n := range rapid.IntRange(1, 4).Draw(t, "cases") {
		names = append(names, fmt.Sprintf("%s-%d", drawName(t, "case"), n))
		s.Case(names[n], rapid.SampledFrom([]string{"input.x > 1", "true", "input.l.exists(x, x == 1)"}).Draw(t, "condition"))
	}
	if rapid.Bool().Draw(t, "otherwise?") {
		names = append(names, "otherwise")
		s.Otherwise("otherwise")
	}
	return names
}

func drawName(t *rapid.T, label string) string {
	return rapid.StringMatching(`[a-zA-Z0-9][a-zA-Z0-9._-]{0,40}`).Draw(t, label)
}

func drawDuration(t *rapid.T) time.Duration {
	if rapid.Bool().Draw(t, "round") {
		return time.Duration(rapid.IntRange(0, 100_000).Draw(t, "seconds")) * time.Second
	}
	return time.Duration(rapid.Int64Range(int64(definitions.MinDuration), int64(definitions.MaxDuration)).Draw(t, "duration"))
}

func drawRetry(t *rapid.T) definitions.RetryPolicy {
	p := definitions.RetryPolicy{
		Multiplier:   rapid.SampledFrom([]float64{0, 1, 2, 1.5, 1e-7 + 1, 100}).Draw(t, "multiplier"),
		Jitter:       rapid.OneOf(rapid.Just(definitions.NoJitter), rapid.Float64Range(0, 1)).Draw(t, "jitter"),
		MaxAttempts:  rapid.SampledFrom([]int{0, 1, 10, definitions.Unlimited, definitions.MaxRetryAttempts}).Draw(t, "attempts"),
		MaxElapsed:   drawDuration(t),
		NonRetryable: rapid.SliceOfN(rapid.StringMatching(`[ -~é]{1,20}`), 0, 5).Draw(t, "codes"),
	}
	switch rapid.IntRange(0, 3).Draw(t, "waits") {
	case 1:
		p.Initial = drawDuration(t)
	case 2:
		p.Max = drawDuration(t)
	case 3:
		p.Initial = drawDuration(t)
		p.Max = p.Initial + time.Second
		if p.Max > definitions.MaxDuration {
			p.Max = p.Initial
		}
	}
	return p
}

func drawExpression(t *rapid.T, steps []string) string {
	text := rapid.SampledFrom([]string{"input", "{'a': input.x + 1, \"b\": [1, 2.5, null]}", "input.list.filter(x, x > 2)", "'<&>\\n\\u00e9'", "1"}).Draw(t, "expression")
	if len(steps) > 0 {
		text = fmt.Sprintf("[%s, steps[%q].output]", text, rapid.SampledFrom(steps).Draw(t, "reference"))
	}
	return text
}

func TestADefinitionSurvivesItsJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		built, err := drawSaga(t).Build()
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

// sameWorkflow fails unless two workflows are the same in every way that
// shows.
func sameWorkflow(t interface{ Fatalf(string, ...any) }, a, b *definitions.Workflow) {
	if string(a.JSON()) != string(b.JSON()) || a.Version() != b.Version() {
		t.Fatalf("JSON differs:\n%s\n%s", a.JSON(), b.JSON())
	}
	if a.Name() != b.Name() || a.Description() != b.Description() || a.Kind() != b.Kind() || a.Deadline() != b.Deadline() ||
		a.PivotIndex() != b.PivotIndex() || a.HasOutput() != b.HasOutput() || a.HasLocks() != b.HasLocks() || a.Serial() != b.Serial() || a.Len() != b.Len() {
		t.Fatalf("workflows differ: %s", a.JSON())
	}
	for i := range a.Len() {
		if x, y := fmt.Sprintf("%+v", *a.Step(i)), fmt.Sprintf("%+v", *b.Step(i)); x != y {
			t.Fatalf("steps differ:\n%s\n%s", x, y)
		}
	}
}
