package machine

// forward moves a run on that has not turned back: it ends it, turns it, or
// starts what can start.
func (d *decision) forward() {
	for {
		if d.complete() {
			d.succeed()
			return
		}
		if d.deadline != 0 && d.now >= d.deadline && !d.overdue {
			d.emit(Event{Kind: DeadlinePassed, Step: -1})
		}
		if (d.cancelled || d.overdue) && d.mayTurn() {
			if d.cancelled {
				d.turn(-1, CodeCancelled, d.cancelWhy)
			} else {
				d.turn(-1, CodeDeadline, "")
			}
			return
		}
		if d.missing() >= 0 || !d.startReady() {
			return
		}
	}
}

// complete tells whether every step has succeeded or been skipped.
func (s *State) complete() bool {
	for i := range s.wf.Len() {
		if st := s.steps[i].state; st != stepSucceeded && st != stepSkipped {
			return false
		}
	}
	return true
}

// mayTurn tells whether the run may turn back: it has not passed its pivot,
// and its pivot is not in the balance.
func (s *State) mayTurn() bool {
	if s.passed || s.turned {
		return false
	}
	pivot := s.wf.PivotIndex()
	if pivot < 0 {
		return true
	}
	st := &s.steps[pivot]
	return st.state == stepPending || st.state == stepFailed && st.stalled == 0 ||
		st.state == stepActive && !st.action.outstanding && st.action.unknown == 0
}

// succeed ends a run whose steps are all done.
func (d *decision) succeed() {
	if !d.wf.HasOutput() {
		d.emit(Event{Kind: RunSucceeded, Step: -1})
		return
	}
	output, err := d.getScope().Output()
	if err == nil {
		d.emit(Event{Kind: RunSucceeded, Step: -1, Payload: output})
		return
	}
	if d.passed {
		d.emit(Event{Kind: OutputFailed, Step: -1, Code: CodeOutput, Message: cut(err.Error(), MaxMessageBytes)})
		d.emit(Event{Kind: RunSucceeded, Step: -1})
		return
	}
	d.turn(-1, CodeOutput, cut(err.Error(), MaxMessageBytes))
}

// startReady starts the steps that can start, and the attempts that are due.
// It tells whether more may have become possible by that, or by a failure.
func (d *decision) startReady() (again bool) {
	for i := range d.wf.Len() {
		st := &d.steps[i]
		before := st.state
		switch {
		case before == stepPending && d.ready(i),
			before == stepActive && st.action.waiting && st.action.retryAt <= d.now:
			d.launch(i, Action)
		case d.over(i):
			d.leave(i)
		case st.fan == nil:
			continue
		}
		st = &d.steps[i] // which has moved, if the step fans out
		if st.fan != nil && st.state == stepActive {
			d.startItems(i)
		}
		if d.turned {
			return false
		}
		again = again || st.state != before && (st.state == stepSkipped || st.state == stepSucceeded)
	}
	return again
}

// ready tells whether all that step i comes after is done.
func (s *State) ready(i int) bool {
	for _, p := range s.def(i).Preds {
		if st := s.steps[p].state; st != stepSucceeded && st != stepSkipped {
			return false
		}
	}
	return true
}

// launch schedules the next attempt of a phase. The first attempt of a
// generation evaluates the step's expressions, unless an operator gave the input.
func (d *decision) launch(i int, p Phase) {
	def, item := d.def(i), i >= d.wf.Len()
	if !def.Kind.HasTask() {
		d.enter(i)
		return
	}
	if p == Action && def.ForEach && !item {
		d.expand(i)
		return
	}
	e := Event{Kind: AttemptScheduled, Step: i, Phase: p, Generation: 1, Attempt: 1}
	if t := d.task(i, p); t != nil && t.generation > 0 {
		e.Generation, e.Attempt = t.generation, t.attempt+1
		if t.attempt > 0 || t.ordered {
			d.schedule(e)
			return
		}
	} else if p == Compensate {
		e.Generation = max(d.steps[i].action.generation, 1)
	}
	if p == Action && !item && !d.wanted(i, e.Generation) {
		return
	}
	var err error
	switch {
	case p == Action && def.HasInput && item:
		e.Payload, err = d.getScope().ItemInput(d.item(i))
	case p == Action && def.HasInput:
		e.Payload, err = d.getScope().Input(i)
	case p == Compensate && def.HasCompensationInput && item:
		e.Payload, err = d.getScope().ItemCompensationInput(d.item(i), d.steps[i].output)
	case p == Compensate && def.HasCompensationInput:
		e.Payload, err = d.getScope().CompensationInput(i)
	}
	if err != nil {
		d.refuse(i, p, e.Generation, err)
		return
	}
	if len(e.Payload) > 0 && string(e.Payload) == string(d.TaskInput(i, p)) {
		e.Payload = nil
	}
	d.schedule(e)
}

// wanted tells whether the condition of a step holds. If not, the step is
// skipped; if it cannot be told, it has failed.
func (d *decision) wanted(i int, generation uint32) bool {
	if !d.onBranch(i) {
		d.emit(Event{Kind: StepSkipped, Step: i, Phase: Action, Code: CodeBranch})
		return false
	}
	if !d.def(i).HasWhen {
		return true
	}
	wanted, err := d.getScope().When(i)
	if err != nil {
		d.refuse(i, Action, generation, err)
	} else if !wanted {
		d.emit(Event{Kind: StepSkipped, Step: i, Phase: Action})
	}
	return wanted && err == nil
}

// refuse records that a phase cannot start because an expression failed.
func (d *decision) refuse(i int, p Phase, generation uint32, err error) {
	d.emit(Event{
		Kind: StepFailed, Step: i, Phase: p, Generation: generation,
		Code: CodeExpression, Message: cut(err.Error(), MaxMessageBytes),
	})
	d.concludes(i, p, CodeFinal)
}

// concludes draws the consequence of a phase that will not be tried again by
// itself. Why is told where the step stalls.
func (d *decision) concludes(i int, p Phase, why string) {
	if d.participants {
		d.unprepared(i, p, why)
		return
	}
	st := &d.steps[i]
	switch {
	case p == Compensate, d.passed, d.def(i).Pivot && st.state == stepUnknown:
		d.emit(Event{Kind: StepStalled, Step: i, Phase: p, Code: why})
	case !d.turned:
		d.turn(i, CodeStepFailed, "")
	}
}

// turn turns the run to backward recovery.
func (d *decision) turn(i int, code, message string) {
	d.emit(Event{Kind: TurnedBack, Step: i, Code: code, Message: message})
}
