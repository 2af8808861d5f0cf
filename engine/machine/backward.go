package machine

// backward moves a run on that has turned back: once no action is in flight it
// starts the compensations whose turn it is, and ends the run after the last.
func (d *decision) backward() {
	for i := range d.steps {
		if d.steps[i].action.outstanding {
			return
		}
	}
	order := d.topological()
	// held tells of each step whether something after it is still to be undone.
	held := make([]bool, len(d.steps))
	open := false
	for k := len(order) - 1; k >= 0; k-- {
		i := order[k]
		for _, j := range d.Def(i).Succs {
			held[i] = held[i] || held[j] || d.toUndo(j)
		}
		if !d.toUndo(i) {
			continue
		}
		open = true
		st := &d.steps[i]
		switch {
		case st.undo == undoNone && !held[i],
			st.undo == undoActive && st.comp.waiting && st.comp.retryAt <= d.now:
			d.launch(i, Compensate)
		}
	}
	if !open {
		d.emit(Event{Kind: RunCompensated, Step: -1})
	}
}

// toUndo tells whether step i has a compensation that is called for and not done.
func (s *State) toUndo(i int) bool {
	st := &s.steps[i]
	return (st.state == stepSucceeded || st.state == stepUnknown) && st.undo < undoDone &&
		s.Def(i).Compensation != ""
}

// topological returns the steps, each after all that it comes after.
func (s *State) topological() []int {
	if s.order != nil {
		return s.order
	}
	n := len(s.steps)
	order := make([]int, 0, n)
	open := make([]int, n) // predecessors not yet in order
	for i := range n {
		if open[i] = len(s.Def(i).Preds); open[i] == 0 {
			order = append(order, i)
		}
	}
	for k := 0; k < len(order); k++ {
		for _, j := range s.Def(order[k]).Succs {
			if open[j]--; open[j] == 0 {
				order = append(order, j)
			}
		}
	}
	s.order = order
	return order
}
