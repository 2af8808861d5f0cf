package testkit

import (
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
)

// isChild tells whether a phase of a step is a run of another workflow. It is not
// run here: the handler of that workflow's name answers in its place, and a crash
// does not touch its answer.
func isChild(step *definitions.Step, phase machine.Phase) bool {
	return phase == machine.Action && step.Kind == definitions.StepChild
}

// timeoutOf is how long an attempt may take.
func timeoutOf(step *definitions.Step, phase machine.Phase) time.Duration {
	if _, timeout := machine.TaskOf(step, phase); timeout > 0 {
		return timeout
	}
	return definitions.MaxDuration // of a child that sets none
}
