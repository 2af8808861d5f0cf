package definitions

// TaskRef names a task type of a service. Task implements it.
type TaskRef interface {
	TaskService() string
	TaskType() string
}

// Task names a task type together with the Go types of its input and output,
// so that definition and worker share one declaration:
//
//	var Charge = definitions.NewTask[ChargeIn, ChargeOut]("payments", "payments.charge")
type Task[In, Out any] struct {
	Service string
	Type    string
}

// NewTask returns the task of that type in that service.
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
