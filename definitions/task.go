package definitions

import "strings"

// TaskRef names a task type of a service. Task implements it.
type TaskRef interface {
	TaskService() string
	TaskType() string
}

// Task names a task type together with the Go types of its input and output,
// so that definition and worker share one declaration:
//
//	var Charge = definitions.NewTask[ChargeIn, ChargeOut]("payments", "payments.charge")
//
// A task that is not compatible with the one before is another version of it,
// with types of its own; workers may serve both side by side:
//
//	var Charge2 = definitions.NewTask[ChargeIn2, ChargeOut]("payments", "payments.charge@2")
type Task[In, Out any] struct {
	Service string
	Type    string
}

// NewTask returns the task of that type, maybe with a version, in that service.
func NewTask[In, Out any](service, taskType string) Task[In, Out] {
	return Task[In, Out]{Service: service, Type: taskType}
}

// TaskService returns the service.
func (t Task[In, Out]) TaskService() string { return t.Service }

// TaskType returns the task type.
func (t Task[In, Out]) TaskType() string { return t.Type }

// TypedWorkflow is a workflow together with the Go types of its runs' input
// and output. The types are a promise of the program that states them; the
// definition itself does not hold them.
type TypedWorkflow[In, Out any] struct {
	*Workflow
}

// Typed states the types of a workflow's input and output.
func Typed[In, Out any](wf *Workflow) TypedWorkflow[In, Out] {
	return TypedWorkflow[In, Out]{Workflow: wf}
}

// SplitTaskType splits a task type as definitions, workers and messages write
// it into its name and its version: "payments.charge@2" is version 2 of
// payments.charge. The version is empty where there is none; that is a version
// of its own, which no other stands for: a task goes only to a worker that serves
// its type in just this version.
//
// A version consists of letters, digits, '.', '_' and '-', starts with a letter
// or digit, and has at most [MaxVersionLength] characters; versions are compared
// for equality and have no order.
func SplitTaskType(taskType string) (name, version string) {
	name, version, _ = strings.Cut(taskType, "@")
	return name, version
}

// sameTask tells whether two task types, not empty, have the same name.
func sameTask(a, b string) bool {
	x, _ := SplitTaskType(a)
	y, _ := SplitTaskType(b)
	return x == y && x != ""
}

// taskType checks a task type, which may have a version.
func (v *validator) taskType(step int, field, taskType, missing string) {
	name, version, versioned := strings.Cut(taskType, "@")
	if !versioned {
		v.name(step, field, name, missing)
		return
	}
	v.name(step, field, name, "a version, \"@"+version+"\", without a task type before it")
	switch {
	case version == "":
		v.fault(step, field, RuleName, "nothing after '@': leave it out, or name a version")
	case len(version) > MaxVersionLength:
		v.fault(step, field, RuleName, "the version is longer than %d characters", MaxVersionLength)
	case !wellFormed(version):
		v.fault(step, field, RuleName,
			"%q is not a version: letters (a-z, A-Z), digits, '.', '_' and '-', starting with a letter or digit", version)
	}
}
