package definitions

import (
	"strconv"
	"strings"
	"time"
)

// appendWorkflow writes the canonical JSON. Whatever it leaves out, Parse fills
// in the same way.
func appendWorkflow(b []byte, w *Workflow) []byte {
	o := writer{b: append(b, '{')}
	o.text("kind", string(w.kind))
	o.text("name", w.name)
	o.text("description", w.text)
	o.expression("routing_key", w.routingKey)
	o.duration("deadline", w.deadline, 0)
	o.expression("output", w.output)
	o.locks(w)
	list, item := "steps", appendStep
	if w.kind.HasParticipants() {
		list, item = "participants", appendParticipant
	}
	o.key(list)
	o.b = append(o.b, '[')
	for i := range w.steps {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		o.b = item(o.b, w, i)
	}
	o.b = append(o.b, ']')
	return append(o.b, '}')
}

func appendStep(b []byte, w *Workflow, i int) []byte {
	s, e := &w.steps[i], &w.exprs[i]
	if !s.Kind.HasTask() {
		return appendWait(b, w, i)
	}
	o := writer{b: append(b, '{')}
	o.text("name", s.Name)
	o.text("service", s.Service)
	o.text("action", s.Action)
	o.text("workflow", s.Workflow)
	o.text("compensation", s.Compensation)
	o.text("no_compensation", s.NoCompensation)
	o.flag("pivot", s.Pivot)
	o.after(w, s)
	o.branch(w, s)
	o.expression("when", e.when)
	o.expression("for_each", e.forEach)
	if s.ForEach {
		o.integer("parallel", s.Parallel, DefaultParallel)
		o.integer("max_items", s.MaxItems, 0)
	}
	o.expression("input", e.input)
	o.expression("compensation_input", e.compensationInput)
	o.retry("retry", s.Retry, s.Kind.defaultAttempts(s.AfterPivot))
	o.retry("compensation_retry", s.CompensationRetry, Unlimited)
	o.duration("timeout", s.Timeout, s.Kind.defaultTimeout())
	o.duration("compensation_timeout", s.CompensationTimeout, DefaultTimeout)
	o.duration("queue_timeout", s.QueueTimeout, 0)
	if s.Placement != Bounded {
		o.text("placement", s.Placement.String())
	}
	return append(o.b, '}')
}

// after writes the names of the steps that a step comes after.
func (o *writer) after(w *Workflow, s *Step) {
	names := make([]string, len(s.Preds))
	for n, p := range s.Preds {
		names[n] = w.steps[p].Name
	}
	o.list("after", names)
}

// writer appends the fields of a JSON object.
type writer struct {
	b []byte
}

func (o *writer) key(k string) {
	if o.b[len(o.b)-1] != '{' {
		o.b = append(o.b, ',')
	}
	o.b = append(appendString(o.b, k), ':')
}

func (o *writer) text(k, s string) {
	if s != "" {
		o.key(k)
		o.b = appendString(o.b, s)
	}
}

func (o *writer) expression(k string, e *expression) {
	if e != nil {
		o.text(k, e.text)
	}
}

func (o *writer) duration(k string, d, byDefault time.Duration) {
	if d != byDefault {
		o.text(k, formatDuration(d))
	}
}

func (o *writer) number(k string, f, byDefault float64) {
	if f != byDefault {
		o.key(k)
		// Validated: the number is finite.
		o.b, _ = appendDouble(o.b, f)
	}
}

func (o *writer) integer(k string, n, byDefault int) {
	if n != byDefault {
		o.key(k)
		o.b = strconv.AppendInt(o.b, int64(n), 10)
	}
}

func (o *writer) list(k string, l []string) {
	o.key(k)
	o.b = append(o.b, '[')
	for i, s := range l {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		o.b = appendString(o.b, s)
	}
	o.b = append(o.b, ']')
}

// retry writes a resolved policy; nothing, if all of it is the default.
func (o *writer) retry(k string, p RetryPolicy, attempts int) {
	w := writer{b: []byte{'{'}}
	w.duration("initial", p.Initial, DefaultInitial)
	w.duration("max", p.Max, DefaultMax)
	w.number("multiplier", p.Multiplier, DefaultMultiplier)
	w.number("jitter", p.Jitter, DefaultJitter)
	w.integer("max_attempts", p.MaxAttempts, attempts)
	w.duration("max_elapsed", p.MaxElapsed, 0)
	if len(p.NonRetryable) > 0 {
		w.list("non_retryable", p.NonRetryable)
	}
	if len(w.b) > 1 {
		o.key(k)
		o.b = append(append(o.b, w.b...), '}')
	}
}

// formatDuration writes 1m for Go's 1m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
