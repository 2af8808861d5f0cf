package machine

import (
	"encoding/json"
	"fmt"
	"slices"
)

// expanded takes note of the items of a step.
func (o *observer) expanded(e Event) error {
	var list []any
	if err := json.Unmarshal(e.Payload, &list); err != nil {
		return err
	}
	s := &o.steps[e.Step]
	if o.turned || s.fanned || !o.def(e.Step).ForEach {
		return fmt.Errorf("F1: step %d fans out when turned %v, fanned out %v", e.Step, o.turned, s.fanned)
	}
	if err := o.mayAct(e); err != nil {
		return err
	}
	s.fanned = true
	for range list {
		s.items = append(s.items, len(o.steps))
		o.steps = append(o.steps, observedStep{of: e.Step})
		s = &o.steps[e.Step]
	}
	return nil
}

// join tells of the steps whose items have all succeeded that they have.
func (o *observer) join() {
	for i := range o.steps {
		s := &o.steps[i]
		open := func(k int) bool { return o.steps[k].outcome != "succeeded" && o.steps[k].outcome != "skipped" }
		if s.fanned && s.outcome == "active" && !o.turned && !slices.ContainsFunc(s.items, open) {
			s.outcome = "succeeded"
		}
	}
}

// window checks that an item starts in its turn, and that no more are under way
// than may be; of actions from the first on, of compensations from the last on.
func (o *observer) window(e Event) error {
	of := o.steps[e.Step].of
	if of == e.Step {
		return nil
	}
	busy := 0
	for _, k := range o.steps[of].items {
		s := &o.steps[k]
		switch {
		case e.Phase == Action && k < e.Step && s.outcome == "":
			return fmt.Errorf("F2: item %d starts before item %d", e.Step, k)
		case e.Phase == Compensate && s.undone == "" && k > e.Step && o.undoOpen(k) && o.steps[e.Step].undone == "":
			return fmt.Errorf("F2: item %d is compensated before item %d", e.Step, k)
		case k == e.Step:
		case e.Phase == Action && (s.outcome == "active" || s.stalled == Action), e.Phase == Compensate && s.undone == "active":
			busy++
		}
	}
	if most := o.wf.Step(of).Parallel; busy >= most {
		return fmt.Errorf("F3: item %d starts as number %d of %d", e.Step, busy+1, most)
	}
	return nil
}

// fanWords is what a step that has fanned out may be called.
func (o *observer) fanWords(s *observedStep) []string {
	if slices.ContainsFunc(s.items, func(k int) bool { return o.steps[k].stalled != 0 }) {
		return []string{"stalled"}
	}
	switch {
	case !o.turned && s.outcome == "active":
		return []string{"running", "retrying"}
	case !o.turned:
		return []string{"succeeded"}
	case slices.ContainsFunc(s.items, func(k int) bool { return o.steps[k].undone == "active" }):
		return []string{"compensating"}
	case slices.ContainsFunc(s.items, o.undoOpen):
		return []string{"running", "retrying", "succeeded", "failed", "unknown"}
	}
	return []string{"compensated", "waived", "resolved", "succeeded", "failed", "unknown"}
}
