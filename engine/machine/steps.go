package machine

import "github.com/ringmaster-dev/ringmaster/definitions"

// NumSteps is the number of the run's steps or participants.
func (s *State) NumSteps() int { return len(s.steps) }

// Def is the definition of step i, 0 <= i < NumSteps. It is read-only.
func (s *State) Def(i int) *definitions.Step { return s.wf.Step(i) }

// StepIndex is the index of the step of that name; -1 if there is none.
func (s *State) StepIndex(name string) int { return s.wf.StepIndex(name) }
