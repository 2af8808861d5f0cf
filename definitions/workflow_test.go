package definitions_test

import (
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

func TestTheCompiledViewHasItsDefaultsResolved(t *testing.T) {
	b := definitions.Saga("flow").Service("s").Description("text").Deadline(time.Hour).Output("1")
	step(b, "a").Retry(definitions.RetryPolicy{Max: 50 * time.Millisecond, Jitter: definitions.NoJitter, NonRetryable: []string{"b", "a"}})
	step(b, "b").After("a").Service("t").When("true").Input("1").CompensationInput("2").
		Timeout(time.Second).CompensationTimeout(2 * time.Second).QueueTimeout(3 * time.Second).
		CompensationRetry(definitions.RetryPolicy{MaxAttempts: 3, Initial: 2 * time.Minute}).Placement(definitions.Ring)
	b.Step("c").Action("c").NoCompensation("gone").After("a")
	after(b, "p").After("c", "b").Pivot()
	after(b, "z")
	wf := b.MustBuild()

	if wf.Name() != "flow" || wf.Description() != "text" || wf.Kind() != definitions.KindSaga || wf.Deadline() != time.Hour ||
		wf.Len() != 5 || wf.PivotIndex() != 3 || !wf.HasOutput() || wf.StepIndex("c") != 2 || wf.StepIndex("no") != -1 || len(wf.Version()) != 32 {
		t.Errorf("workflow is %+v", wf)
	}
	action := definitions.RetryPolicy{Initial: 200 * time.Millisecond, Max: time.Minute, Multiplier: 2, Jitter: 0.2, MaxAttempts: 10}
	endless := action
	endless.MaxAttempts = definitions.Unlimited
	short := action
	short.Initial, short.Max, short.Jitter, short.NonRetryable = 50*time.Millisecond, 50*time.Millisecond, 0, []string{"a", "b"}
	slow := action
	slow.Initial, slow.Max, slow.MaxAttempts = 2*time.Minute, 2*time.Minute, 3
	want := []definitions.Step{
		{Index: 0, Name: "a", Service: "s", Action: "do.a", Compensation: "undo.a", Succs: []int{1, 2}, Retry: short, CompensationRetry: endless,
			Timeout: time.Minute, CompensationTimeout: time.Minute},
		{Index: 1, Name: "b", Service: "t", Action: "do.b", Compensation: "undo.b", Preds: []int{0}, Succs: []int{3}, Retry: action, CompensationRetry: slow,
			Timeout: time.Second, CompensationTimeout: 2 * time.Second, QueueTimeout: 3 * time.Second, Placement: definitions.Ring,
			HasWhen: true, HasInput: true, HasCompensationInput: true},
		{Index: 2, Name: "c", Service: "s", Action: "c", NoCompensation: "gone", Preds: []int{0}, Succs: []int{3}, Retry: action, CompensationRetry: endless,
			Timeout: time.Minute, CompensationTimeout: time.Minute},
		{Index: 3, Name: "p", Service: "s", Action: "do.p", Pivot: true, Preds: []int{1, 2}, Succs: []int{4}, Retry: action, CompensationRetry: endless,
			Timeout: time.Minute, CompensationTimeout: time.Minute},
		{Index: 4, Name: "z", Service: "s", Action: "do.z", AfterPivot: true, Preds: []int{3}, Retry: endless, CompensationRetry: endless,
			Timeout: time.Minute, CompensationTimeout: time.Minute},
	}
	for i := range want {
		if got := *wf.Step(i); !reflect.DeepEqual(got, want[i]) {
			t.Errorf("step %d is\n%+v, want\n%+v", i, got, want[i])
		}
	}
}

func TestWithoutAPivotNothingIsAfterIt(t *testing.T) {
	b := definitions.Saga("flow").Service("s")
	step(b, "a")
	step(b, "b")
	wf := b.MustBuild()
	if wf.PivotIndex() != -1 || wf.Step(1).AfterPivot || wf.HasOutput() {
		t.Errorf("pivot is %d", wf.PivotIndex())
	}
}

func TestABuilderChangedLaterLeavesItsWorkflowAlone(t *testing.T) {
	b := definitions.Saga("flow").Service("s")
	codes := []string{"x"}
	names := []string{}
	s := step(b, "a").After(names...).Retry(definitions.RetryPolicy{NonRetryable: codes})
	first := b.MustBuild()
	json := string(first.JSON())
	codes[0] = "y"
	s.Timeout(time.Second)
	step(b, "b")
	second := b.MustBuild()
	if string(first.JSON()) != json || first.Len() != 1 || first.Step(0).Retry.NonRetryable[0] != "x" {
		t.Errorf("the first workflow changed to %s", first.JSON())
	}
	if second.Len() != 2 || second.Version() == first.Version() {
		t.Errorf("the second workflow is %s", second.JSON())
	}
}

func TestAWorkflowServesManyRunsAtOnce(t *testing.T) {
	wf := benchWorkflow(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				sc := wf.NewScope([]byte(benchInput))
				sc.SetOutput(0, []byte(`{"id":"o-1"}`))
				if in, err := sc.Input(1); err != nil || string(in) != `{"amount":129.95,"currency":"EUR","order":"o-1"}` {
					t.Errorf("input is %s, %v", in, err)
				}
				if key, err := sc.RoutingKey(); err != nil || key != "c-88412" {
					t.Errorf("routing key is %s, %v", key, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestAScopeThatNoExpressionNeedsDecodesNothing(t *testing.T) {
	b := definitions.Saga("flow").Service("s").RoutingKey("'fixed'")
	step(b, "a")
	step(b, "b").When("input.x")
	wf := b.MustBuild()
	sc := wf.NewScope([]byte("this is not JSON"))
	sc.SetOutput(0, []byte("nor is this"))
	if key, err := sc.RoutingKey(); key != "fixed" || err != nil {
		t.Errorf("routing key is %q, %v", key, err)
	}
	if ok, err := sc.When(0); !ok || err != nil {
		t.Errorf("when is %v, %v", ok, err)
	}
	if _, err := sc.When(1); err == nil {
		t.Error("an expression over input did not notice that it is not JSON")
	}
}
