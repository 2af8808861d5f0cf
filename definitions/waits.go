package definitions

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"cel.dev/cel-go/common/types"
)

// waitDocument is what a step has that waits, in place of an action.
type waitDocument struct {
	sleep         time.Duration
	hasSleep      bool
	sleepUntil    string
	hasSleepUntil bool

	signal           string
	hasSignal        bool
	timeoutOutput    string
	hasTimeoutOutput bool
}

// Sleep makes the step a wait of that length: MinDuration to MaxDuration.
// Nothing is held meanwhile but a row in the store.
func (s *StepBuilder) Sleep(d time.Duration) *StepBuilder {
	s.doc.sleep, s.doc.hasSleep = d, true
	return s
}

// SleepUntil makes the step a wait for the time that an expression yields: a
// text in RFC 3339, a timestamp, or an integer of seconds since 1970 in UTC. A
// time that has passed is no wait. The expression sees what Input sees, and is
// evaluated once, when the step starts.
func (s *StepBuilder) SleepUntil(expr string) *StepBuilder {
	s.doc.sleepUntil, s.doc.hasSleepUntil = expr, true
	return s
}

// WaitSignal makes the step a wait for a signal of that name, which someone sends
// to the run; its payload is the step's output. The name is one like a step's. A
// signal that comes before its step is kept; several of one name are taken in
// the order in which they came, each by one step. With Timeout the step fails
// for good when that is over (code signal_timeout), or with TimeoutOutput
// succeeds; without, it waits for ever.
func (s *StepBuilder) WaitSignal(name string) *StepBuilder {
	s.doc.signal, s.doc.hasSignal = name, true
	return s
}

// TimeoutOutput sets the expression for the output of a step whose signal has
// not come within its timeout. It sees what Input sees, and is evaluated then.
// Default: the step fails.
func (s *StepBuilder) TimeoutOutput(expr string) *StepBuilder {
	s.doc.timeoutOutput, s.doc.hasTimeoutOutput = expr, true
	return s
}

// wait checks what a step that waits says about it.
func (v *validator) wait(i int) {
	s := &v.doc.steps[i]
	if s.hasSleep {
		v.duration(i, "sleep", s.sleep)
		if s.sleep == 0 {
			v.fault(i, "sleep", RuleDuration, "a sleep is longer than nothing")
		}
	}
	if s.hasSleepUntil && s.sleepUntil == "" {
		v.fault(i, "sleep_until", RuleRequired, "an expression is wanted that yields a time")
	}
	if s.hasSignal {
		v.name(i, "signal", s.signal, "a signal has a name")
		v.duration(i, "timeout", s.timeout)
	}
	v.timeoutOutput(i)
}

// timeoutOutput checks what a step yields whose timeout is over: only where a
// signal has one.
func (v *validator) timeoutOutput(i int) {
	s := &v.doc.steps[i]
	switch {
	case !s.hasTimeoutOutput:
	case s.kind != StepSignal:
		v.fault(i, "timeout_output", RuleKind, "is for steps that wait for a signal: leave it out")
	case s.timeout == 0:
		v.fault(i, "timeout_output", RuleRequired, "the step has no timeout")
	case s.timeoutOutput == "":
		v.fault(i, "timeout_output", RuleRequired, "an expression is wanted")
	}
}

// resolvedWait is the compiled view of a step without a task.
func (v *validator) resolvedWait(i int, succs []int, afterPivot bool) Step {
	s := &v.doc.steps[i]
	return Step{
		Index: i, Name: s.name, Kind: s.kind, AfterPivot: afterPivot,
		Preds: v.graph.preds[i], Succs: succs, HasWhen: s.when != "",
		Sleep: s.sleep, HasSleepUntil: s.hasSleepUntil,
		Signal: s.signal, Timeout: s.timeout, HasTimeoutOutput: s.hasTimeoutOutput,
	}
}

// appendWait writes a step without a task.
func appendWait(b []byte, w *Workflow, i int) []byte {
	s, e := &w.steps[i], &w.exprs[i]
	o := writer{b: append(b, '{')}
	o.text("name", s.Name)
	o.duration("sleep", s.Sleep, 0)
	o.expression("sleep_until", e.sleepUntil)
	o.text("signal", s.Signal)
	o.choice(s, e.cases)
	o.after(w, s)
	o.branch(w, s)
	o.expression("when", e.when)
	o.duration("timeout", s.Timeout, 0)
	o.expression("timeout_output", e.timeoutOutput)
	return append(o.b, '}')
}

// readWait reads what a step that waits has in place of an action.
func (f *fields) readWait() waitDocument {
	return waitDocument{
		sleep: f.duration("sleep"), hasSleep: f.has("sleep"),
		sleepUntil: f.text("sleep_until"), hasSleepUntil: f.has("sleep_until"),
		signal: f.text("signal"), hasSignal: f.has("signal"),
		timeoutOutput: f.text("timeout_output"), hasTimeoutOutput: f.has("timeout_output"),
	}
}

// WaitsFor tells whether a step of the workflow waits for signals of that name.
func (w *Workflow) WaitsFor(signal string) bool {
	for i := range w.steps {
		if w.steps[i].Kind == StepSignal && w.steps[i].Signal == signal {
			return true
		}
	}
	return false
}

// Signals returns the names of the signals that steps wait for, each once, in
// the order written.
func (w *Workflow) Signals() (names []string) {
	for i := range w.steps {
		if s := &w.steps[i]; s.Kind == StepSignal && !slices.Contains(names, s.Signal) {
			names = append(names, s.Signal)
		}
	}
	return names
}

// TimeoutOutput evaluates the output of a step whose signal has not come in
// time, as Input does. It is to be called only if the step HasTimeoutOutput;
// otherwise it returns nil. The error is an *EvalError.
func (sc *Scope) TimeoutOutput(step int) ([]byte, error) {
	return sc.json(sc.w.exprs[step].timeoutOutput)
}

// The times that a step can wait for.
var (
	earliestTime = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	latestTime   = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// SleepUntil evaluates the time that a step waits for, in UTC. It is to be
// called only if the step HasSleepUntil; otherwise it returns the zero time. The
// error is an *EvalError.
func (sc *Scope) SleepUntil(step int) (time.Time, error) {
	e := sc.w.exprs[step].sleepUntil
	if e == nil {
		return time.Time{}, nil
	}
	v, err := sc.eval(e)
	if err != nil {
		return time.Time{}, err
	}
	var t time.Time
	switch v := v.(type) {
	case types.Timestamp:
		t = v.Time
	case types.Int:
		t = time.Unix(int64(v), 0)
	case types.String:
		if t, err = time.Parse(time.RFC3339, string(v)); err != nil {
			return time.Time{}, e.fail(fmt.Errorf("yields %q, which is not a time in RFC 3339", string(v)))
		}
	default:
		return time.Time{}, e.fail(fmt.Errorf("yields %s, but must yield %s", v.Type().TypeName(), wantTime))
	}
	if t = t.UTC(); t.Before(earliestTime) || t.After(latestTime) {
		return time.Time{}, e.fail(errors.New("yields a time that is not in the years 1 to 9999"))
	}
	return t, nil
}
