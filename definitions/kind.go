package definitions

import "strings"

// StepKind is what a step of a saga does. It follows from which of its fields
// says so: exactly one does.
type StepKind uint8

// The kinds.
const (
	// StepTask: a task for a worker. It is the default.
	StepTask StepKind = iota
	// StepSleep: waits for a time to come.
	StepSleep
	// StepSignal: waits for a signal.
	StepSignal
	// StepChoice: takes one of several cases.
	StepChoice
	// StepChild: a run of another workflow.
	StepChild
)

// String returns the kind in words, such as "task" or "sleep".
func (k StepKind) String() string {
	switch k {
	case StepSleep:
		return "sleep"
	case StepSignal:
		return "signal"
	case StepChoice:
		return "choice"
	case StepChild:
		return "child"
	}
	return "task"
}

// HasTask tells whether steps of this kind are done by attempts: of a worker's
// task, or of a child run. Others have no service, compensation or retry policy.
func (k StepKind) HasTask() bool { return k == StepTask || k == StepChild }

// work is one of the fields that say what a step does.
type work struct {
	field string
	kind  StepKind
	given bool
}

func (s *stepDocument) works() []work {
	return []work{
		{"action", StepTask, s.action != ""},
		{"sleep", StepSleep, s.hasSleep},
		{"sleep_until", StepSleep, s.hasSleepUntil},
		{"signal", StepSignal, s.hasSignal},
		{"choice", StepChoice, s.hasChoice},
		{"workflow", StepChild, s.hasWorkflow},
	}
}

// stepKind finds out what a step does.
func (v *validator) stepKind(i int) {
	s := &v.doc.steps[i]
	var all, given []string
	for _, w := range s.works() {
		all = append(all, w.field)
		if !w.given {
			continue
		}
		if given = append(given, w.field); len(given) == 1 {
			s.kind = w.kind
		}
	}
	switch {
	case len(given) == 0:
		v.fault(i, "action", RuleRequired, "a step needs an action, or another of: %s", strings.Join(all, ", "))
	case len(given) > 1:
		v.fault(i, given[1], RuleKind, "a step does one thing; this one has %s", strings.Join(given, " and "))
	}
}

// withoutTask checks that a step without a task has none of a task's settings,
// and is not the pivot.
func (v *validator) withoutTask(i int) {
	s := &v.doc.steps[i]
	if s.pivot {
		v.fault(i, "pivot", RulePivot, "a step that is a %s cannot be the pivot: it has no effect", s.kind)
	}
	for _, setting := range []struct {
		field string
		given bool
	}{
		{"service", s.service != ""},
		{"compensation", s.compensation != ""},
		{"no_compensation", s.hasNoCompensation},
		{"input", s.input != ""},
		{"compensation_input", s.compensationInput != ""},
		{"retry", !s.retry.isZero()},
		{"compensation_retry", !s.compensationRetry.isZero()},
		{"timeout", s.timeout != 0 && s.kind != StepSignal},
		{"compensation_timeout", s.compensationTimeout != 0},
		{"queue_timeout", s.queueTimeout != 0},
		{"placement", s.placement != Bounded},
		{"for_each", s.forEach != ""},
		{"parallel", s.parallel != 0},
		{"max_items", s.maxItems != 0},
	} {
		if setting.given {
			v.fault(i, setting.field, RuleKind, "the step is a %s and has no task, and so no such setting: leave it out", s.kind)
		}
	}
}
