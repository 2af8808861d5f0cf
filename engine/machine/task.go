package machine

import (
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// TaskOf is the task type that a phase of a step asks for, and how long an
// attempt of it may run. Of a child run it is the name of the workflow, and a
// timeout of 0 is none.
func TaskOf(step *definitions.Step, p Phase) (taskType string, timeout time.Duration) {
	switch p {
	case Compensate:
		return step.Compensation, step.CompensationTimeout
	case Prepare:
		return step.Prepare, step.Timeout
	case Commit:
		return step.Commit, step.CommitTimeout
	case Abort:
		return step.Abort, step.AbortTimeout
	}
	if step.Kind == definitions.StepChild {
		return step.Workflow, step.Timeout
	}
	return step.Action, step.Timeout
}
