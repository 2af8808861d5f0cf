package machine

import (
	"fmt"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// cancel takes a request for backward recovery. Where it cannot be followed it
// is recorded; where it is followed already it is not.
func (d *decision) cancel(in *Cancel) {
	if d.cancelled || d.turned {
		return
	}
	d.emit(Event{Kind: CancelRequested, Step: -1, By: in.By, Message: cut(in.Reason, MaxMessageBytes)})
}

// stalledTask returns the stalled phase of a step.
func (s *State) stalledTask(i int) (Phase, error) {
	if i < 0 || i >= len(s.steps) {
		return 0, fmt.Errorf("%w: step %d of %d", ErrNoStep, i, len(s.steps))
	}
	if s.steps[i].stalled == 0 {
		return 0, fmt.Errorf("%w: %s", ErrNotStalled, s.name(i))
	}
	return s.steps[i].stalled, nil
}

// retry takes an operator's order to try a stalled task again.
func (d *decision) retry(in *Retry) error {
	p, err := d.stalledTask(in.Step)
	if err != nil {
		return err
	}
	t := d.ensure(in.Step, p)
	e := Event{
		Kind: RetryOrdered, Step: in.Step, Phase: p, Generation: t.generation,
		By: in.By, Message: cut(in.Reason, MaxMessageBytes),
	}
	if in.Input != nil && d.participants {
		return fmt.Errorf("%w: other input for %s: a participant's tasks all have the input that it prepared",
			ErrNotAllowed, d.name(in.Step))
	}
	if in.Input != nil && !d.def(in.Step).Kind.HasTask() {
		return fmt.Errorf("%w: other input for %s: a %s has none", ErrNotAllowed, d.name(in.Step), d.def(in.Step).Kind)
	}
	if d.Def(in.Step).Kind == definitions.StepChild && d.first(p) && t.unknown > 0 {
		return fmt.Errorf("%w: %s is a child run that may have had an effect, and another run would have another; resolve or skip it",
			ErrNotAllowed, d.Def(in.Step).Name)
	}
	if in.Input != nil {
		if t.unknown > 0 {
			return fmt.Errorf("%w: other input for %s, of which an attempt may have had an effect",
				ErrNotAllowed, d.name(in.Step))
		}
		e.Generation++
		e.Payload = orNull(in.Input)
	}
	d.emit(e)
	return nil
}

// skip takes an operator's order to leave a stalled step.
func (d *decision) skip(in *Skip) error {
	p, err := d.stalledTask(in.Step)
	if err != nil {
		return err
	}
	if in.Reason == "" {
		return fmt.Errorf("%w: reason: required", ErrRejected)
	}
	if d.first(p) && d.single {
		return fmt.Errorf("%w: the commit of a single participant cannot be skipped; resolve it as applied or not", ErrNotAllowed)
	}
	if p == Action && d.def(in.Step).Pivot {
		return fmt.Errorf("%w: the pivot cannot be skipped; resolve it as applied or not", ErrNotAllowed)
	}
	d.emit(Event{Kind: SkipOrdered, Step: in.Step, Phase: p, By: in.By, Message: cut(in.Reason, MaxMessageBytes)})
	return nil
}

// resolve takes an operator's word on what happened.
func (d *decision) resolve(in *Resolve) error {
	p, err := d.stalledTask(in.Step)
	if err != nil {
		return err
	}
	if in.Reason == "" {
		return fmt.Errorf("%w: reason: required", ErrRejected)
	}
	pivot := p == Action && d.def(in.Step).Pivot || d.first(p) && d.single
	if !in.Applied && !pivot && d.participants {
		return fmt.Errorf("%w: the run is decided; %s cannot be resolved as not applied: retry or skip it",
			ErrNotAllowed, d.name(in.Step))
	}
	if !in.Applied && !pivot {
		return fmt.Errorf("%w: only a pivot can be resolved as not applied; retry or skip %s",
			ErrNotAllowed, d.name(in.Step))
	}
	if d.def(in.Step).Kind == definitions.StepChoice && !d.hasCase(in.Step, in.Output) {
		return fmt.Errorf("%w: output: must be the name of a case of %s", ErrRejected, d.name(in.Step))
	}
	e := Event{
		Kind: StepResolved, Step: in.Step, Phase: p, Applied: in.Applied,
		By: in.By, Message: cut(in.Reason, MaxMessageBytes),
	}
	if in.Applied && d.first(p) {
		e.Payload = in.Output
	}
	d.emit(e)
	if !in.Applied && d.single {
		d.decideAbort(in.Step, CodeVotedNo, "")
	} else if !in.Applied {
		d.turn(in.Step, CodeStepFailed, "")
	}
	return nil
}
