package machine

import (
	"fmt"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// choose has a choice take one of its cases.
func (d *decision) choose(i int) {
	name, ok, err := d.getScope().Choose(i)
	switch {
	case err != nil:
		d.refuse(i, Action, 1, err)
	case ok:
		d.emit(Event{Kind: ChoiceMade, Step: i, Phase: Action, Name: name})
	default:
		d.emit(Event{
			Kind: StepFailed, Step: i, Phase: Action, Generation: 1, Code: CodeNoCase,
			Message: fmt.Sprintf("none of the conditions of %s is true, and there is no other case", d.name(i)),
		})
		d.concludes(i, Action, CodeNoCase)
	}
}

// onBranch tells whether step i is on the branch that its choice took, or on
// none.
func (s *State) onBranch(i int) bool {
	b := s.def(i).Branch
	return b.Case == "" || string(s.steps[b.Choice].output) == caseOutput(b.Case)
}

// caseOutput is the output of a choice that took the case of that name, which
// needs no escaping.
func caseOutput(name string) string { return `"` + name + `"` }

// hasCase tells whether output is the name of a case of choice i.
func (s *State) hasCase(i int, output []byte) bool {
	for _, c := range s.def(i).Cases {
		if string(output) == caseOutput(c.Name) {
			return true
		}
	}
	return false
}

// mayChoose tells whether choice i can have been made as e says.
func (s *State) mayChoose(e *Event) bool {
	st := &s.steps[e.Step]
	return s.def(e.Step).Kind == definitions.StepChoice && st.state <= stepActive && s.hasCase(e.Step, []byte(caseOutput(e.Name)))
}

func (s *State) foldChoice(e *Event) {
	st := &s.steps[e.Step]
	st.action.waiting = false // an operator's order was followed
	s.begin(e.Step, Action)
	st.resolved = false
	s.applied(e.Step, []byte(caseOutput(e.Name)))
}
