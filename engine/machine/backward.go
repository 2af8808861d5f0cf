package machine

import "iter"

// backward moves a run on that has turned back: once no action is in flight it
// starts the compensations whose turn it is, and ends the run after the last.
func (d *decision) backward() {
	if d.acting() {
		return
	}
	open := false
	for i, held := range d.undoing() {
		open = true
		st := &d.steps[i]
		switch {
		case st.fan != nil:
			d.undoItems(i, held)
		case st.undo == undoNone && !held,
			st.undo == undoActive && st.comp.waiting && st.comp.retryAt <= d.now:
			d.launch(i, Compensate)
		}
	}
	if !open {
		d.emit(Event{Kind: RunCompensated, Step: -1})
	}
}

// acting tells whether an action is in flight.
func (s *State) acting() bool {
	for i := range s.live() {
		if s.steps[i].action.outstanding {
			return true
		}
	}
	return false
}

// undoing yields the steps of the workflow that are to be undone, from the last
// to the first, and whether something after them holds them that is still to be
// undone.
func (s *State) undoing() iter.Seq2[int, bool] {
	return func(yield func(int, bool) bool) {
		order := s.topological()
		held := make([]bool, s.wf.Len())
		for k := len(order) - 1; k >= 0; k-- {
			i := order[k]
			for _, j := range s.wf.Step(i).Succs {
				held[i] = held[i] || held[j] || s.toUndo(j)
			}
			if s.toUndo(i) && !yield(i, held[i]) {
				return
			}
		}
	}
}

// toUndo tells whether step i has a compensation that is called for and not
// done; of a step that has fanned out, whether one of its items has.
func (s *State) toUndo(i int) bool {
	st := &s.steps[i]
	if st.fan != nil {
		return st.fan.undo > 0
	}
	return (st.state == stepSucceeded || st.state == stepUnknown) && st.undo < undoDone &&
		s.def(i).Compensation != ""
}

// topological returns the steps of the workflow, each after all that it comes
// after.
func (s *State) topological() []int {
	if s.order != nil {
		return s.order
	}
	n := s.wf.Len()
	order := make([]int, 0, n)
	open := make([]int, n) // predecessors not yet in order
	for i := range n {
		if open[i] = len(s.wf.Step(i).Preds); open[i] == 0 {
			order = append(order, i)
		}
	}
	for k := 0; k < len(order); k++ {
		for _, j := range s.wf.Step(order[k]).Succs {
			if open[j]--; open[j] == 0 {
				order = append(order, j)
			}
		}
	}
	s.order = order
	return order
}
