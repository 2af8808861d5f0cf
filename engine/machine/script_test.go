package machine

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// TestScripts runs the scripts in testdata. Each is one theme; see
// testdata/README.md for the commands.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		sc := &script{t: t}
		datadriven.RunTest(t, path, sc.run)
	})
}

// script is one run under a virtual clock.
type script struct {
	t       *testing.T
	wf      *definitions.Workflow
	state   *State
	now     time.Time
	records [][]byte
}

func (sc *script) run(t *testing.T, td *datadriven.TestData) string {
	sc.t = t
	switch td.Cmd {
	case "define":
		return sc.define(td.Input)
	case "start":
		return sc.start(td)
	case "wait":
		sc.now = sc.now.Add(duration(t, td.CmdArgs[0].Key))
		return ""
	case "tick":
		return sc.tick(td)
	case "crash":
		return sc.crash()
	case "checkpoint":
		return sc.checkpoint()
	case "show":
		return sc.show()
	case "decision":
		return sc.step(Tick{}) + sc.state.Decision().String() + "\n" // as the shell answers
	case "history":
		return sc.history()
	}
	in, err := sc.input(td)
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	return sc.step(in)
}

func (sc *script) start(td *datadriven.TestData) string {
	in := Start{RunID: "run-1", Input: []byte(td.Input)}
	for _, a := range td.CmdArgs {
		switch a.Key {
		case "key":
			in.Key = a.Vals[0]
		case "deadline":
			in.Deadline = sc.now.Add(duration(sc.t, a.Vals[0]))
		case "parent":
			in.Parent = Parent{RunID: a.Vals[0], Step: "settle", Depth: 1}
		case "priority":
			n, _ := strconv.Atoi(a.Vals[0])
			in.Priority = uint8(n)
		case "retry-of":
			in.RetryOf = a.Vals[0]
		}
	}
	return sc.step(in)
}

// tick moves the clock, by so much or to the state's Wake, and ticks.
func (sc *script) tick(td *datadriven.TestData) string {
	if len(td.CmdArgs) > 0 {
		sc.now = sc.now.Add(duration(sc.t, td.CmdArgs[0].Key))
	} else if wake := sc.state.Wake(); !wake.IsZero() {
		sc.now = wake
	} else {
		return "nothing to wait for\n"
	}
	return sc.step(Tick{})
}

// task finds what a command such as "ok undo pay attempt=2" speaks of.
func (sc *script) task(td *datadriven.TestData) (a attempt, rest []datadriven.CmdArg) {
	args := td.CmdArgs
	a.phase, _ = sc.state.phases()
	if p := phaseWords[word(args)]; p != 0 {
		a.phase, args = p, args[1:]
	}
	if len(args) == 0 {
		td.Fatalf(sc.t, "a step is missing")
	}
	a.step = sc.state.StepIndex(args[0].Key)
	a.generation, a.number = 1, 1
	if a.step >= 0 {
		if t := sc.state.task(a.step, a.phase); t != nil && t.generation > 0 {
			a.generation, a.number = t.generation, t.attempt
		}
	}
	for _, arg := range args[1:] {
		switch arg.Key {
		case "attempt":
			n, _ := strconv.Atoi(arg.Vals[0])
			a.number = uint32(n)
		case "generation":
			n, _ := strconv.Atoi(arg.Vals[0])
			a.generation = uint32(n)
		default:
			rest = append(rest, arg)
		}
	}
	return a, rest
}

func (sc *script) input(td *datadriven.TestData) (Input, error) {
	if td.Cmd == "cancel" {
		return Cancel{By: value(td.CmdArgs, "by"), Reason: td.Input}, nil
	}
	if td.Cmd == "signal" {
		limit, _ := strconv.Atoi(value(td.CmdArgs, "limit"))
		return Signal{Name: word(td.CmdArgs), ID: value(td.CmdArgs, "id"), By: value(td.CmdArgs, "by"), Payload: []byte(td.Input), Limit: limit}, nil
	}
	if in := sc.lockInput(td); in != nil {
		return in, nil
	}
	a, rest := sc.task(td)
	switch td.Cmd {
	case "ok":
		return Result{Step: a.step, Phase: a.phase, Generation: a.generation, Attempt: a.number,
			Outcome: OutcomeSucceeded, Worker: "w1", Output: []byte(td.Input)}, nil
	case "readonly":
		return Result{Step: a.step, Phase: a.phase, Generation: a.generation, Attempt: a.number,
			Outcome: OutcomeReadOnly, Worker: "w1", Output: []byte(td.Input)}, nil
	case "fail", "unknown":
		r := Result{Step: a.step, Phase: a.phase, Generation: a.generation, Attempt: a.number,
			Outcome: OutcomeFailed, Retryable: !has(rest, "final"), Code: "error", Message: td.Input, Worker: "w1"}
		if td.Cmd == "unknown" {
			r.Outcome = OutcomeUnknown
		}
		if c := value(rest, "code"); c != "" {
			r.Code = c
		}
		r.Output = []byte(value(rest, "progress"))
		return r, nil
	case "lost":
		l := Lost{Step: a.step, Phase: a.phase, Generation: a.generation, Attempt: a.number, Reason: LostVanished, Worker: "w1", Progress: []byte(value(rest, "progress"))}
		if has(rest, "died") {
			l.Reason = LostWorkerDied
		} else if has(rest, "timeout") {
			l.Reason = LostTimeout
		}
		return l, nil
	case "expired":
		return Expired{a.step, a.phase, a.generation, a.number, has(rest, "sent")}, nil
	case "withdrawn":
		return Withdrawn{a.step, a.phase, a.generation, a.number}, nil
	case "retry":
		in := Retry{Step: a.step, By: value(rest, "by"), Reason: "try it"}
		if td.Input != "" {
			in.Input = []byte(td.Input)
		}
		return in, nil
	case "skip":
		return Skip{Step: a.step, By: value(rest, "by"), Reason: td.Input}, nil
	case "resolve":
		return Resolve{Step: a.step, Applied: !has(rest, "not-applied"), By: value(rest, "by"),
			Reason: "looked it up", Output: []byte(td.Input)}, nil
	}
	return nil, fmt.Errorf("unknown command %q", td.Cmd)
}

// step takes an input and prints what follows from it.
func (sc *script) step(in Input) string {
	before := sc.state.AppendState(nil)
	events, err := sc.state.Step(in, sc.now)
	if err != nil {
		if len(events) > 0 || !bytes.Equal(before, sc.state.AppendState(nil)) {
			sc.t.Fatalf("a rejected input changed the state")
		}
		return "error: " + err.Error() + "\n"
	}
	var out strings.Builder
	if len(events) == 0 {
		out.WriteString("nothing changes\n")
	} else {
		sc.records = append(sc.records, AppendEvents(nil, events))
	}
	for _, e := range events {
		out.WriteString(sc.words(e))
	}
	sc.verify()
	out.WriteString(sc.summary())
	return out.String()
}

// words is an event as history prints it.
func (sc *script) words(e Event) string {
	line := strconv.FormatUint(e.Seq, 10) + " " + sc.state.Explain(e)
	if len(e.Payload) > 0 && e.Kind != Checkpointed {
		line += " " + string(e.Payload)
	}
	return line + "\n"
}

// summary is where the run stands, and what it asks for.
func (sc *script) summary() string {
	var asks []string
	for _, c := range sc.state.Commands(nil) {
		word := sc.state.name(c.Step) + "#" + strconv.Itoa(int(c.Attempt))
		if c.Phase == Compensate {
			word = "undo " + word
		} else if c.Phase != Action {
			word = c.Phase.String() + " " + word
		}
		if c.Generation > 1 {
			word += "." + strconv.Itoa(int(c.Generation))
		}
		if c.Kind == CancelTask {
			word = "give up " + word
		} else if c.Kind == Withdraw {
			word = "hold back " + word
		} else if in := sc.state.TaskInput(c.Step, c.Phase); !bytes.Equal(in, orNull(sc.state.Input())) {
			word += " " + string(in)
		}
		word += sc.childWords(c)
		asks = append(asks, word)
	}
	line := "=> " + sc.state.Status().String()
	if len(asks) > 0 {
		line += ": " + strings.Join(asks, ", ")
	}
	if l, ok := sc.state.NextLock(); ok {
		line += "; asks for lock " + l.Name
		if l.Shared {
			line += " (shared)"
		}
	}
	if wake := sc.state.Wake(); !wake.IsZero() {
		line += "; wake in " + wake.Sub(sc.now).String()
	}
	return line + "\n"
}

// childWords is what is particular to the command of a child step.
func (sc *script) childWords(c Command) string {
	if sc.state.Def(c.Step).Kind != definitions.StepChild || c.Phase != Action {
		return ""
	}
	if c.Kind != Dispatch {
		return " (" + sc.state.ChildCancel().Reason + ")"
	}
	child := sc.state.Child(c)
	words := fmt.Sprintf(" as %s %s", child.Workflow, child.Start.RunID)
	if d := child.Start.Deadline; !d.IsZero() {
		words += fmt.Sprintf(" within %s", d.Sub(sc.now))
	}
	if p := child.Start.Priority; p != 0 {
		words += fmt.Sprintf(", priority %d", p)
	}
	if k := child.Start.Key; k != sc.state.RunID() {
		words += fmt.Sprintf(", key %q", k)
	}
	return words
}

// refold rebuilds the state from the records.
func (sc *script) refold() *State {
	s := NewState(sc.wf)
	for i, data := range sc.records {
		events, err := DecodeEvents(data)
		if err != nil {
			sc.t.Fatalf("record %d: %v", i, err)
		}
		for _, e := range events {
			if err := s.Apply(e); err != nil {
				sc.t.Fatalf("record %d: %v", i, err)
			}
		}
	}
	return s
}

// verify checks S12: the fold of the history is the state, byte for byte, and
// asks for the same.
func (sc *script) verify() {
	s := sc.refold()
	if !bytes.Equal(s.AppendState(nil), sc.state.AppendState(nil)) {
		sc.t.Fatalf("S12: the fold of the history is not the state\nfold  %x\nstate %x", s.AppendState(nil), sc.state.AppendState(nil))
	}
	if !slices.Equal(s.Commands(nil), sc.state.Commands(nil)) || !s.Wake().Equal(sc.state.Wake()) {
		sc.t.Fatalf("S12: after recovery the state asks for something else")
	}
}

func (sc *script) crash() string {
	sc.verify()
	sc.state = sc.refold()
	return fmt.Sprintf("recovered event %d from %d records\n", sc.state.Seq(), len(sc.records)) + sc.summary()
}

func (sc *script) checkpoint() string {
	live := sc.state.AppendState(nil)
	cp := sc.state.Checkpoint(sc.now)
	if !bytes.Equal(live, sc.state.AppendState(nil)) {
		sc.t.Fatalf("Checkpoint changed the state")
	}
	if err := sc.state.Apply(cp); err != nil {
		sc.t.Fatalf("checkpoint: %v", err)
	}
	sc.records = append(sc.records[:1], AppendEvents(nil, []Event{cp}))
	sc.verify()
	return sc.words(cp) + sc.summary()
}

func (sc *script) show() string {
	var out strings.Builder
	s := sc.state
	fmt.Fprintf(&out, "%s", s.Status())
	if s.Waived() {
		out.WriteString(", waived")
	}
	if s.Heuristic() {
		out.WriteString(", heuristic")
	}
	if sc.wf.Kind().HasParticipants() {
		fmt.Fprintf(&out, ", decision %v", s.Decision())
	}
	if i := s.FailedStep(); i >= 0 {
		fmt.Fprintf(&out, ", because of %s", sc.state.name(i))
	}
	if code, message := s.Failure(); code != "" {
		fmt.Fprintf(&out, " (%s)", strings.TrimSuffix(code+": "+message, ": "))
	}
	if len(s.Output()) > 0 {
		fmt.Fprintf(&out, ", output %s", s.Output())
	}
	if s.RoutingKey() != s.RunID() {
		fmt.Fprintf(&out, ", key %q", s.RoutingKey())
	}
	out.WriteString("\n")
	if p := s.Parent(); p.RunID != "" {
		fmt.Fprintf(&out, "step %s of %s, depth %d", p.Step, p.RunID, p.Depth)
		if s.Status().Final() {
			r := s.ChildResult()
			fmt.Fprintf(&out, "; tells it: %s", [...]string{"", "succeeded " + string(r.Output), "failed", "unknown"}[r.Outcome])
			if r.Code != "" {
				fmt.Fprintf(&out, ", %s (%s), retryable %v", r.Code, r.Message, r.Retryable)
			}
		}
		out.WriteString("\n")
	}
	for i := range sc.state.NumSteps() {
		v := s.StepView(i)
		fmt.Fprintf(&out, "%s: %s, ", sc.state.name(i), v.State)
		if _, n, ok := s.Items(i); ok {
			fmt.Fprintf(&out, "items %d", n)
		} else {
			fmt.Fprintf(&out, "attempts %d", v.Attempts)
		}
		if v.Child != "" {
			fmt.Fprintf(&out, " (%s)", v.Child)
		}
		if v.CompensationAttempts > 0 {
			fmt.Fprintf(&out, "+%d", v.CompensationAttempts)
		}
		if len(v.Output) > 0 {
			fmt.Fprintf(&out, ", output %s", v.Output)
		}
		if v.Code != "" {
			fmt.Fprintf(&out, ", last failure %s", strings.TrimSuffix(v.Code+": "+v.Message, ": "))
		}
		if p := s.Progress(i, v.Phase); len(p) > 0 {
			fmt.Fprintf(&out, ", had come to %s", p)
		}
		if !v.NextAttempt.IsZero() {
			fmt.Fprintf(&out, ", next in %s", v.NextAttempt.Sub(sc.now))
		}
		if !v.Until.IsZero() {
			fmt.Fprintf(&out, ", for another %s", v.Until.Sub(sc.now))
		}
		out.WriteString("\n")
	}
	return out.String()
}

func (sc *script) history() string {
	var out strings.Builder
	for _, data := range sc.records {
		events, err := DecodeEvents(data)
		if err != nil {
			sc.t.Fatal(err)
		}
		for _, e := range events {
			out.WriteString(sc.words(e))
		}
	}
	return out.String()
}

func has(args []datadriven.CmdArg, key string) bool {
	return slices.ContainsFunc(args, func(a datadriven.CmdArg) bool { return a.Key == key })
}

func value(args []datadriven.CmdArg, key string) string {
	for _, a := range args {
		if a.Key == key && len(a.Vals) > 0 {
			return a.Vals[0]
		}
	}
	return ""
}

func duration(t *testing.T, text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// word is the first argument.
func word(args []datadriven.CmdArg) string {
	if len(args) == 0 {
		return ""
	}
	return args[0].Key
}
