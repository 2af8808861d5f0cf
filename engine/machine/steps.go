package machine

import (
	"iter"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// NumSteps is the number of the run's steps or participants: those of its
// workflow, and after them the items of the steps that have fanned out so far.
func (s *State) NumSteps() int { return len(s.steps) }

// Def is the definition of step i, 0 <= i < NumSteps. It is read-only. That of
// an item is its step's, under the item's name and without a condition.
func (s *State) Def(i int) *definitions.Step {
	if i < s.wf.Len() {
		return s.wf.Step(i)
	}
	def := *s.def(i)
	def.Index, def.Name = i, s.name(i)
	def.ForEach, def.HasWhen = false, false
	return &def
}

// StepIndex is the index of the step or item of that name; -1 if there is none
// yet.
func (s *State) StepIndex(name string) int {
	if i := s.wf.StepIndex(name); i >= 0 {
		return i
	}
	return s.itemIndex(name)
}

// def is the definition that step i follows: of an item, that of its step.
func (s *State) def(i int) *definitions.Step {
	if i >= s.wf.Len() {
		i = int(s.steps[i].of)
	}
	return s.wf.Step(i)
}

// name is what step i is called.
func (s *State) name(i int) string {
	if i < s.wf.Len() {
		return s.wf.Step(i).Name
	}
	of := int(s.steps[i].of)
	return definitions.ItemName(s.wf.Step(of).Name, i-s.steps[of].fan.first)
}

// live yields, ascending, the steps of the workflow and those items that have an
// attempt under way or waiting, or need an operator: all in which an event or the
// time may bring something about, whatever the number of items.
func (s *State) live() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range s.wf.Len() {
			if !yield(i) {
				return
			}
		}
		for _, of := range s.fans {
			for _, i := range s.steps[of].fan.open {
				if !yield(int(i)) {
					return
				}
			}
		}
	}
}
