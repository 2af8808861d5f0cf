package machine

import (
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// TaskOf is the task type that a phase of a step asks for, and how long an
// attempt of it may run.
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
	return step.Action, step.Timeout
}
