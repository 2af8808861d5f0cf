package definitions

import (
	"errors"
	"fmt"
	"time"

	"cel.dev/cel-go/common/types"
)

// waitDocument is what a step has that waits, in place of an action.
type waitDocument struct {
	sleep         time.Duration
	hasSleep      bool
	sleepUntil    string
	hasSleepUntil bool
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
}

// resolvedWait is the compiled view of a step without a task.
func (v *validator) resolvedWait(i int, succs []int, afterPivot bool) Step {
	s := &v.doc.steps[i]
	return Step{
		Index: i, Name: s.name, Kind: s.kind, AfterPivot: afterPivot,
		Preds: v.graph.preds[i], Succs: succs, HasWhen: s.when != "",
		Sleep: s.sleep, HasSleepUntil: s.hasSleepUntil,
	}
}

// appendWait writes a step without a task.
func appendWait(b []byte, w *Workflow, i int) []byte {
	s, e := &w.steps[i], &w.exprs[i]
	o := writer{b: append(b, '{')}
	o.text("name", s.Name)
	o.duration("sleep", s.Sleep, 0)
	o.expression("sleep_until", e.sleepUntil)
	o.after(w, s)
	o.expression("when", e.when)
	return append(o.b, '}')
}

// readWait reads what a step that waits has in place of an action.
func (f *fields) readWait() waitDocument {
	return waitDocument{
		sleep: f.duration("sleep"), hasSleep: f.has("sleep"),
		sleepUntil: f.text("sleep_until"), hasSleepUntil: f.has("sleep_until"),
	}
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
