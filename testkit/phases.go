package testkit

import (
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
)

// phasesOf are the phases of a step or participant, in the order in which they
// may come. A participant that is alone commits in one phase.
func phasesOf(wf *definitions.Workflow, i int) []machine.Phase {
	switch {
	case wf.Step(i).Prepare == "":
		return []machine.Phase{machine.Action, machine.Compensate}
	case wf.Len() == 1:
		return []machine.Phase{machine.Commit}
	}
	return []machine.Phase{machine.Prepare, machine.Commit, machine.Abort}
}

// names tells whether a step has tasks of that type.
func names(step *definitions.Step, taskType string) bool {
	for _, typ := range [...]string{step.Action, step.Compensation, step.Prepare, step.Commit, step.Abort} {
		if typ == taskType {
			return taskType != ""
		}
	}
	return false
}

// does tells whether a phase has an effect that is meant to stay, and undoes
// whether it takes one back.
func does(phase machine.Phase) bool   { return phase == machine.Action || phase == machine.Commit }
func undoes(phase machine.Phase) bool { return phase == machine.Compensate || phase == machine.Abort }
