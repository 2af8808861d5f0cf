package machine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// fanOutOf is a saga of one step that fans out, and one after it.
func fanOutOf(parallel int) *definitions.Workflow {
	b := definitions.Saga("fan").Service("s")
	b.Step("ship").Action("ship").Compensation("recall").ForEach("input").Parallel(parallel).
		Input("{'item': item, 'index': index}").CompensationInput("[item, steps.ship.output]")
	b.Step("bill").Action("bill").Compensation("refund").Input("size(steps.ship.output)")
	return b.MustBuild()
}

func listOf(n int) []byte {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	data, _ := json.Marshal(list)
	return data
}

// course runs a saga whose workers succeed, until nothing is asked for any more;
// fails is the name of the step that fails for good.
type course struct {
	state   *State
	fails   string
	size    int // of outputs
	records [][]byte
	largest int // events of one Step
}

func (c *course) run(t testing.TB, start Start) *State {
	t.Helper()
	now := time.UnixMilli(1_700_000_000_000).UTC()
	events, err := c.state.Step(start, now)
	var cmds []Command
	output := []byte(`"` + strings.Repeat("x", c.size) + `"`)
	for {
		if err != nil {
			t.Fatal(err)
		}
		c.records = append(c.records, AppendEvents(nil, events))
		c.largest = max(c.largest, len(events))
		wake := c.state.Wake() // what the shell asks after each event
		if cmds = c.state.Commands(cmds[:0]); len(cmds) == 0 {
			if wake.IsZero() || wake.After(now) {
				return c.state
			}
			events, err = c.state.Step(Tick{}, now)
			continue
		}
		if !wake.IsZero() && !wake.After(now) {
			if events, err = c.state.Step(Tick{}, now); len(events) > 0 {
				continue
			}
			t.Fatal("a tick was asked for and brings nothing")
		}
		a := cmds[0]
		r := Result{Step: a.Step, Phase: a.Phase, Generation: a.Generation, Attempt: a.Attempt,
			Outcome: OutcomeSucceeded, Worker: "w", Output: output}
		if a.Phase == Action && c.state.Def(a.Step).Name == c.fails {
			r.Outcome, r.Output, r.Code = OutcomeFailed, nil, "no"
		}
		events, err = c.state.Step(r, now)
	}
}

// history is all records as one.
func (c *course) history(t testing.TB) []byte {
	var all []Event
	for _, data := range c.records {
		events, err := DecodeEvents(data)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, events...)
	}
	return AppendEvents(nil, all)
}

// TestOneStepStartsFewItems: however wide the window is, a record holds few
// events, and ticks bring the rest.
func TestOneStepStartsFewItems(t *testing.T) {
	for _, fails := range []string{"", "bill", "ship[900]"} {
		c := course{state: NewState(fanOutOf(1000)), fails: fails}
		s := c.run(t, Start{RunID: "r", Input: listOf(1000)})
		if want := map[bool]Status{true: Succeeded, false: Compensated}[fails == ""]; s.Status() != want {
			t.Errorf("%s fails: the run is %v", fails, s.Status())
		}
		if c.largest > maxStarts+3 {
			t.Errorf("%s fails: one Step made %d events", fails, c.largest)
		}
		again := NewState(s.Workflow())
		for _, data := range c.records {
			events, err := DecodeEvents(data)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				if err := again.Apply(e); err != nil {
					t.Fatal(err)
				}
			}
		}
		if !bytes.Equal(again.AppendState(nil), s.AppendState(nil)) {
			t.Errorf("%s fails: the fold of the history is another state", fails)
		}
	}
}

func TestPayloadsOfOneStepAreBounded(t *testing.T) {
	b := definitions.Saga("fan").Service("s")
	b.Step("ship").Action("ship").Compensation("recall").ForEach("input.list").Parallel(64).Input("[item, input.text]")
	c := course{state: NewState(b.MustBuild())}
	input, _ := json.Marshal(map[string]any{"list": make([]int, 64), "text": strings.Repeat("x", 300_000)})
	c.run(t, Start{RunID: "r", Input: input})
	for _, data := range c.records[1:] {
		if len(data) > maxStartBytes+400_000 {
			t.Errorf("a record has %d bytes", len(data))
		}
	}
}

// TestOutputsOfItemsAreBounded: a success that the list of outputs cannot hold is
// unknown, so that it is undone.
func TestOutputsOfItemsAreBounded(t *testing.T) {
	c := course{state: NewState(fanOutOf(1)), size: 900_000}
	s := c.run(t, Start{RunID: "r", Input: listOf(12)})
	if s.Status() != Compensated {
		t.Fatalf("the run is %v", s.Status())
	}
	if code, message := s.Failure(); code != CodeOutput || !strings.Contains(message, "larger than 8388608 bytes") {
		t.Errorf("the failure is %s: %s", code, message)
	}
	if v := s.StepView(s.StepIndex("ship[9]")); v.State != "compensated" || s.FailedStep() != s.StepIndex("ship[9]") {
		t.Errorf("ship[9] is %s, failed is %d", v.State, s.FailedStep())
	}
}

func TestListsAreCutWhereTheirElementsEnd(t *testing.T) {
	for _, text := range []string{
		`[]`, ` [ ] `, `[1]`, `[1,2,3]`, `["a,b","]","\"","\\",","]`, `[{"a":[1,2,{"b":","}]},[[],[1]],null]`, `[ 1 , "x" , [ ] ]`, `["\\\\\"",1]`,
	} {
		text = strings.TrimSpace(text)
		at, err := cutList([]byte(text), 10)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var want []json.RawMessage
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatal(err)
		}
		f := fan{list: []byte(text), at: at, n: len(at) - 1}
		if f.n != len(want) {
			t.Errorf("%s: %d elements, want %d", text, f.n, len(want))
			continue
		}
		for i := range want {
			if !bytes.Equal(f.value(i), want[i]) {
				t.Errorf("%s: element %d is %s, want %s", text, i, f.value(i), want[i])
			}
		}
	}
	for _, text := range []string{``, `{}`, `"[1]"`, `[1`, `[1]]`, `[1,]`, `null`} {
		if _, err := cutList([]byte(text), 10); !errors.Is(err, errNotList) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := cutList([]byte(`[1,2,3]`), 2); err == nil {
		t.Error("a list longer than the limit was cut")
	}
}

func TestEventsThatDoNotFitAFanOutAreCorrupt(t *testing.T) {
	list := []byte(`[1,2]`)
	start := Event{Kind: RunStarted, Step: -1, RunID: "r", Payload: list}
	expanded := Event{Kind: StepExpanded, Step: 0, Phase: Action, Payload: list}
	scheduled := func(step int) Event {
		return Event{Kind: AttemptScheduled, Step: step, Phase: Action, Generation: 1, Attempt: 1}
	}
	for name, events := range map[string][]Event{
		"twice":                       {start, expanded, expanded},
		"a step that does not":        {start, {Kind: StepExpanded, Step: 1, Phase: Action, Payload: list}},
		"an item":                     {start, expanded, {Kind: StepExpanded, Step: 2, Phase: Action, Payload: list}},
		"no list":                     {start, {Kind: StepExpanded, Step: 0, Phase: Action, Payload: []byte(`{}`)}},
		"a list longer than any":      {start, {Kind: StepExpanded, Step: 0, Phase: Action, Payload: listOf(definitions.MaxItemsLimit + 1)}},
		"after the turn":              {start, {Kind: TurnedBack, Step: -1, Code: CodeCancelled}, expanded},
		"an attempt of the step":      {start, scheduled(0)},
		"an item that is not there":   {start, expanded, scheduled(4)},
		"an item before there is one": {start, scheduled(2)},
	} {
		for i := range events {
			events[i].Seq, events[i].At = uint64(i+1), noon
		}
		if _, err := Fold(fanOutOf(2), events); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestItemsAreFoundByName(t *testing.T) {
	s := NewState(fanOutOf(2))
	if _, err := s.Step(Start{RunID: "r", Input: listOf(12)}, noon); err != nil {
		t.Fatal(err)
	}
	if i := s.StepIndex("ship[11]"); i < 0 || s.Def(i).Name != "ship[11]" || s.Def(i).ForEach {
		t.Errorf("ship[11] is %d", i)
	}
	for _, name := range []string{"ship[12]", "ship[-1]", "ship[+1]", "ship[01]", "ship[]", "ship[1", "ship[1]x", "bill[0]", "none[0]", "[0]", ""} {
		if i := s.StepIndex(name); i >= 0 {
			t.Errorf("%q is step %d", name, i)
		}
	}
	if of, index, ok := s.ItemOf(s.StepIndex("ship[3]")); of != 0 || index != 3 || !ok {
		t.Errorf("ship[3] is item %d of %d", index, of)
	}
}

// BenchmarkFanOut runs a whole saga over so many items, ten of them at once, and
// all the questions that the shell asks after each event.
func BenchmarkFanOut(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000} {
		for _, parallel := range []int{10, min(n, definitions.MaxParallel)} {
			for _, fails := range []string{"", "bill"} {
				b.Run(fmt.Sprintf("items=%d/parallel=%d/fails=%s", n, parallel, fails), func(b *testing.B) {
					wf, input := fanOutOf(parallel), listOf(n)
					b.ReportAllocs()
					for b.Loop() {
						c := course{state: NewState(wf), fails: fails, size: 20}
						c.state.LimitItems(n)
						c.run(b, Start{RunID: "r", Input: input})
					}
				})
			}
		}
	}
}

// BenchmarkFoldFanOut rebuilds the state of a run with 1,000 items, and tells how
// much memory it takes.
func BenchmarkFoldFanOut(b *testing.B) {
	c := course{state: NewState(fanOutOf(10)), size: 20}
	c.run(b, Start{RunID: "r", Input: listOf(1000)})
	b.ReportAllocs()
	for b.Loop() {
		s := NewState(c.state.wf)
		for _, data := range c.records {
			events, err := DecodeEvents(data)
			if err != nil {
				b.Fatal(err)
			}
			for _, e := range events {
				if err := s.Apply(e); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
}
