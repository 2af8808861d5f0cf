package machine

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// defineWait reads a step without a task; it tells whether it is one.
func defineWait(sc *script, st *definitions.StepBuilder, fields []string) bool {
	waits := false
	var rest []string
	for _, f := range fields {
		key, value, _ := strings.Cut(f, ": ")
		switch key {
		case "sleep":
			st.Sleep(duration(sc.t, value))
			waits = true
		case "sleep until":
			st.SleepUntil(value)
			waits = true
		case "signal":
			st.WaitSignal(value)
			waits = true
		case "otherwise":
			st.Otherwise(value)
			waits = true
		case "timeout":
			st.Timeout(duration(sc.t, value))
		case "timeout output":
			st.TimeoutOutput(value)
		default:
			if name, ok := strings.CutPrefix(key, "case "); ok {
				st.Case(name, value)
				waits = true
				continue
			}
			rest = append(rest, f)
		}
	}
	for _, f := range rest {
		if waits {
			sc.defineStep(st, f)
		}
	}
	return waits
}

// signal sends a signal, a new one or one that was sent before.
func (m *simulation) signal(name string) error {
	in := Signal{Name: name, By: "ann", Payload: []byte(strconv.Itoa(m.sent)), Limit: 3}
	if m.rng.IntN(3) > 0 {
		in.ID = strconv.Itoa(m.sent)
	}
	if m.sent++; m.rng.IntN(3) == 0 {
		in.ID = strconv.Itoa(m.rng.IntN(m.sent))
		in.Payload = []byte(in.ID)
	}
	events, err := m.step(in)
	if err == nil && len(events) > 0 && in.ID != "" {
		if _, err := m.state.Step(in, m.now); !errors.Is(err, ErrRepeated) {
			return fmt.Errorf("signal %s is taken twice: %w", in.ID, err)
		}
	}
	return err
}

// awaited tells whether a step waits for the signal of that name now.
func (m *simulation) awaited(name string) bool {
	for i := range m.wf.Len() {
		if m.wf.Step(i).Signal == name && m.state.StepView(i).State == "waiting" {
			return true
		}
	}
	return false
}

// wait checks a step without a task: it waits for as long as it said, once.
func (o *observer) wait(e Event) error {
	s := &o.steps[e.Step]
	if o.wf.Step(e.Step).Kind.HasTask() {
		return fmt.Errorf("step %d has a task, and waits", e.Step)
	}
	begun := s.outcome == "active"
	if s.stalled == Action && e.Name != "" {
		s.stalled, s.outcome = 0, "active" // the signal came late, and settles it
	}
	if err := o.mayAct(e); err != nil {
		return err
	}
	if e.Kind == WaitStarted {
		s.until = e.Until
		if !e.Until.After(e.At) && !(e.Until.IsZero() && o.wf.Step(e.Step).Kind == definitions.StepSignal) {
			return fmt.Errorf("step %d waits for the past", e.Step)
		}
		return nil
	}
	if e.Name != "" {
		if err := o.take(e); err != nil {
			return err
		}
	} else if o.wf.Step(e.Step).Kind == definitions.StepSignal && (s.until.IsZero() || !o.wf.Step(e.Step).HasTimeoutOutput) {
		return fmt.Errorf("step %d goes on without its signal", e.Step)
	} else if begun && e.At.Before(s.until) {
		return fmt.Errorf("the wait of step %d ends at %v, before %v", e.Step, e.At, s.until)
	}
	s.outcome, s.until = "succeeded", time.Time{}
	return nil
}

// choice checks that a choice is made once, and for one of its cases.
func (o *observer) choice(e Event) error {
	def := o.wf.Step(e.Step)
	if !slices.ContainsFunc(def.Cases, func(c definitions.Case) bool { return c.Name == e.Name }) {
		return fmt.Errorf("step %d takes a case %q that it does not have", e.Step, e.Name)
	}
	if err := o.mayAct(e); err != nil {
		return err
	}
	o.steps[e.Step].outcome, o.steps[e.Step].chosen = "succeeded", e.Name
	return nil
}

// offBranch tells whether a step must not start, by what was chosen.
func (o *observer) offBranch(i int) bool {
	b := o.def(i).Branch
	return b.Case != "" && o.steps[b.Choice].chosen != b.Case
}

func (o *observer) signal(e Event) error {
	if o.turned {
		return fmt.Errorf("a signal is received after the turn")
	}
	for _, g := range o.signals {
		if e.ID != "" && g.id == e.ID {
			return fmt.Errorf("signal %s is received twice", e.ID)
		}
	}
	o.signals = append(o.signals, observedSignal{name: e.Name, id: e.ID})
	return nil
}

// take checks that a step takes the oldest signal of its name, and none twice.
func (o *observer) take(e Event) error {
	if def := o.wf.Step(e.Step); def.Kind != definitions.StepSignal || def.Signal != e.Name {
		return fmt.Errorf("step %d takes a signal %s", e.Step, e.Name)
	}
	for i := range o.signals {
		if g := &o.signals[i]; g.name == e.Name && !g.taken {
			g.taken = true
			if g.id != e.ID {
				return fmt.Errorf("step %d takes signal %q, before it came %q", e.Step, e.ID, g.id)
			}
			return nil
		}
	}
	return fmt.Errorf("step %d takes a signal that has not come", e.Step)
}

// waitsAndChoice has a step of each kind without a task.
func waitsAndChoice() *definitions.Workflow {
	b := definitions.Saga("waits").Service("s")
	b.Step("do").Action("do").Compensation("undo")
	b.Step("nap").Sleep(time.Hour)
	b.Step("approve").WaitSignal("approval").Timeout(time.Hour).TimeoutOutput("1")
	b.Step("route").Case("a", "input == 1").Otherwise("b")
	b.Step("late").SleepUntil("5").Branch("route", "b")
	return b.MustBuild()
}

// waitsHistory is the history of such a run, as far as it goes, with its state.
func waitsHistory(t testing.TB, inputs ...Input) (*State, []Event) {
	s := NewState(waitsAndChoice())
	var history []Event
	for _, in := range inputs {
		now := noon
		if _, ok := in.(Tick); ok {
			now = s.Wake()
		}
		events, err := s.Step(in, now)
		if err != nil {
			t.Fatal(err)
		}
		history = append(history, events...)
	}
	return s, history
}

var waitsInputs = []Input{
	Start{RunID: "r"}, Signal{Name: "approval", ID: "1", Payload: []byte("1")}, Signal{Name: "approval"},
	Result{Step: 0, Phase: Action, Generation: 1, Attempt: 1, Outcome: OutcomeSucceeded}, Tick{},
}

func TestHistoriesOfWaitsThatCannotBeAreRefused(t *testing.T) {
	for name, e := range map[string]Event{
		"a task that waits":                {Kind: WaitStarted, Step: 0, Until: noon},
		"a sleep without end":              {Kind: WaitStarted, Step: 1},
		"a choice that waits":              {Kind: WaitStarted, Step: 3, Until: noon},
		"a task that has waited":           {Kind: WaitEnded, Step: 0},
		"a choice that has waited":         {Kind: WaitEnded, Step: 3},
		"a sleep that takes a signal":      {Kind: WaitEnded, Step: 1, Name: "approval"},
		"a signal that has not come":       {Kind: WaitEnded, Step: 2, Name: "approval"},
		"another signal":                   {Kind: WaitEnded, Step: 2, Name: "other"},
		"a signal that comes and does not": {Kind: WaitEnded, Step: 2, Name: "approval", Code: CodeSignalTimeout},
		"neither a signal nor its time":    {Kind: WaitEnded, Step: 2},
		"an unknown signal":                {Kind: SignalReceived, Step: -1, Name: "other"},
		"a case that there is not":         {Kind: ChoiceMade, Step: 3, Name: "c"},
		"a task that chooses":              {Kind: ChoiceMade, Step: 0, Name: "a"},
		"an attempt of a sleep":            {Kind: AttemptScheduled, Step: 1, Phase: Action, Generation: 1, Attempt: 1},
	} {
		s, _ := waitsHistory(t, waitsInputs[0])
		before := s.AppendState(nil)
		e.Seq, e.At = s.Seq()+1, noon
		if e.Step >= 0 {
			e.Phase = Action
		}
		if err := s.Apply(e); !errors.Is(err, ErrCorrupt) || !bytes.Equal(before, s.AppendState(nil)) {
			t.Errorf("%s: got %v, want ErrCorrupt", name, err)
		}
	}
}
