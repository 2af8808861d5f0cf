package machine

import (
	"strconv"
	"strings"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// define reads a saga: a line for itself and one per step.
func (sc *script) define(text string) string {
	if kind := text[:min(3, len(text))]; kind == "2pc" || kind == "tcc" {
		sc.defineTransaction(kind, text)
		return ""
	}
	b := definitions.Saga("test").Service("s")
	pivoted := false
	for line := range strings.Lines(text) {
		fields := strings.Split(strings.TrimSpace(line), " | ")
		if fields[0] == "saga" {
			sc.defineSaga(b, fields[1:])
			continue
		}
		st := b.Step(fields[0])
		if defineWait(sc, st, fields[1:]) {
			continue
		}
		if !defineChild(sc, st, fields[1:]) {
			st.Action("do-" + fields[0])
		}
		st.Retry(definitions.RetryPolicy{Initial: time.Second, Jitter: definitions.NoJitter})
		undone := false
		for _, f := range fields[1:] {
			undone = sc.defineStep(st, f) || undone
			pivoted = pivoted || f == "pivot"
		}
		if !undone && !pivoted {
			st.Compensation("undo-" + fields[0])
			if !strings.Contains(line, "| undo retry: ") {
				st.CompensationRetry(sc.policy(""))
			}
		}
	}
	wf, err := b.Build()
	if err != nil {
		sc.t.Fatalf("define: %v", err)
	}
	sc.begin(wf)
	return ""
}

func (sc *script) begin(wf *definitions.Workflow) {
	*sc = script{t: sc.t, wf: wf, state: NewState(wf), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
}

func (sc *script) defineSaga(b *definitions.SagaBuilder, fields []string) {
	for _, f := range fields {
		key, value, _ := strings.Cut(f, ": ")
		switch key {
		case "deadline":
			b.Deadline(duration(sc.t, value))
		case "key":
			b.RoutingKey(value)
		case "output":
			b.Output(value)
		case "lock":
			b.Lock(value)
		case "lock shared":
			b.LockShared(value)
		default:
			sc.t.Fatalf("define: %q", f)
		}
	}
}

// defineStep reads one property of a step; it tells whether the step has said
// how it is undone.
func (sc *script) defineStep(st *definitions.StepBuilder, field string) bool {
	key, value, _ := strings.Cut(field, ": ")
	switch key {
	case "pivot":
		st.Pivot()
	case "root":
		st.After()
	case "after":
		st.After(strings.Split(value, ", ")...)
	case "branch":
		choice, name, _ := strings.Cut(value, " ")
		st.Branch(choice, name)
	case "when":
		st.When(value)
	case "input":
		st.Input(value)
	case "undo input":
		st.CompensationInput(value)
	case "for each":
		st.ForEach(value)
	case "parallel":
		n, _ := strconv.Atoi(value)
		st.Parallel(n)
	case "max items":
		n, _ := strconv.Atoi(value)
		st.MaxItems(n)
	case "retry":
		st.Retry(sc.policy(value))
	case "undo retry":
		st.CompensationRetry(sc.policy(value))
	case "child":
	case "timeout":
		st.Timeout(duration(sc.t, value))
	case "no undo":
		st.NoCompensation(value)
		return true
	default:
		sc.t.Fatalf("define: %q", field)
	}
	return false
}

// defineChild tells whether a step is a child run.
func defineChild(sc *script, st *definitions.StepBuilder, fields []string) bool {
	for _, f := range fields {
		if workflow, ok := strings.CutPrefix(f, "child: "); ok {
			st.Workflow(workflow)
			return true
		}
	}
	return false
}
func (sc *script) policy(text string) definitions.RetryPolicy {
	p := definitions.RetryPolicy{Initial: time.Second, Jitter: definitions.NoJitter}
	for word := range strings.FieldsSeq(text) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "attempts":
			p.MaxAttempts, _ = strconv.Atoi(value)
		case "initial":
			p.Initial = duration(sc.t, value)
		case "max":
			p.Max = duration(sc.t, value)
		case "elapsed":
			p.MaxElapsed = duration(sc.t, value)
		case "jitter":
			p.Jitter, _ = strconv.ParseFloat(value, 64)
		case "multiplier":
			p.Multiplier, _ = strconv.ParseFloat(value, 64)
		case "final":
			p.NonRetryable = strings.Split(value, ",")
		default:
			sc.t.Fatalf("define: policy %q", word)
		}
	}
	return p
}
