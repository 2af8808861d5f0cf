package testkit

import (
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
)

// phasesOf are the phases of a step or participant, in the order in which they
// may come.
func phasesOf(step *definitions.Step) []machine.Phase {
	if step.Prepare != "" {
		return []machine.Phase{machine.Prepare, machine.Commit, machine.Abort}
	}
	return []machine.Phase{machine.Action, machine.Compensate}
}

// taskOf is the task type of a phase, and how long an attempt may take.
func taskOf(step *definitions.Step, phase machine.Phase) (typ string, timeout time.Duration) {
	switch phase {
	case machine.Compensate:
		return step.Compensation, step.CompensationTimeout
	case machine.Prepare:
		return step.Prepare, step.Timeout
	case machine.Commit:
		return step.Commit, step.CommitTimeout
	case machine.Abort:
		return step.Abort, step.AbortTimeout
	}
	return step.Action, step.Timeout
}

// undoes tells whether a phase takes an effect back.
func undoes(phase machine.Phase) bool { return phase == machine.Compensate || phase == machine.Abort }
