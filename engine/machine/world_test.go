package machine

import (
	"fmt"
	"math/rand/v2"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// world is what is true outside of the engine: which effects there are. Its
// workers keep an inbox: an effect happens once per key, and a compensation
// ahead of its action blocks it (S5, S6).
type world struct {
	rng     *rand.Rand
	wf      *definitions.Workflow
	applied []map[uint32]int // effects of a step's action, by generation
	undone  []int            // effects of its compensation
	blocked []bool           // its action is refused from now on
	ghosts  []attempt        // declared lost, and may yet run
	said    []Result         // answers that may come again
	// What operators settled against or without the truth, by step.
	excused []bool
	// What became of child runs: an attempt is one, and ends in one way.
	children map[attempt]Result
	def      func(step int) *definitions.Step // also of items
}

func newWorld(rng *rand.Rand, wf *definitions.Workflow) *world {
	w := &world{
		rng: rng, wf: wf, applied: make([]map[uint32]int, wf.Len()), undone: make([]int, wf.Len()),
		blocked: make([]bool, wf.Len()), excused: make([]bool, wf.Len()), children: map[attempt]Result{}, def: wf.Step,
	}
	for i := range w.applied {
		w.applied[i] = map[uint32]int{}
	}
	return w
}

// know makes room for the items that there are by now.
func (w *world) know(steps int) {
	for len(w.applied) < steps {
		w.applied = append(w.applied, map[uint32]int{})
		w.undone, w.blocked, w.excused = append(w.undone, 0), append(w.blocked, false), append(w.excused, false)
	}
}

func (w *world) effects(step int) (n int) {
	for _, k := range w.applied[step] {
		n += k
	}
	return n
}

// perform has a worker run an attempt, and returns its answer. Faithful
// workers succeed if they may.
func (w *world) perform(a attempt, faithful bool) Result {
	r := Result{
		Step: a.step, Phase: a.phase, Generation: a.generation, Attempt: a.number,
		Outcome: OutcomeSucceeded, Worker: "w" + fmt.Sprint(w.rng.IntN(3)), Output: []byte(`{"n":1}`),
	}
	luck := w.rng.IntN(10)
	if faithful {
		luck = 0
	}
	if w.child(a) {
		return w.runChild(a, r, luck)
	}
	if a.phase == Compensate {
		switch {
		case luck < 6 || w.undone[a.step] > 0:
			w.undo(a.step)
		case luck < 8:
			w.fail(&r, OutcomeFailed)
		default:
			w.fail(&r, OutcomeUnknown)
			if w.rng.IntN(2) == 0 {
				w.undo(a.step)
			}
		}
	} else {
		switch {
		case w.applied[a.step][a.generation] > 0:
			// The stored answer.
		case w.blocked[a.step]:
			w.fail(&r, OutcomeFailed)
			r.Code, r.Retryable = "suspended", false
		case luck < 5:
			w.applied[a.step][a.generation]++
		case luck < 8:
			w.fail(&r, OutcomeFailed)
		default:
			w.fail(&r, OutcomeUnknown)
			if w.rng.IntN(2) == 0 {
				w.applied[a.step][a.generation]++
			}
		}
	}
	w.said = append(w.said, r)
	return r
}

// child tells whether an attempt is a run of its own.
func (w *world) child(a attempt) bool {
	return a.phase == Action && w.def(a.step).Kind == definitions.StepChild
}

// runChild is the end of a child run: it has had its effect, it has had none, or
// a part of it stays.
func (w *world) runChild(a attempt, r Result, luck int) Result {
	if said, ok := w.children[a]; ok {
		return said
	}
	switch {
	case luck < 5:
		w.applied[a.step][a.generation]++
	case luck < 8:
		w.fail(&r, OutcomeFailed)
	default:
		w.fail(&r, OutcomeUnknown)
		r.Retryable = false
		if w.rng.IntN(2) == 0 {
			w.applied[a.step][a.generation]++
		}
	}
	w.children[a] = r
	w.said = append(w.said, r)
	return r
}

// runs is what a child run has its parent told: that it is never to start, or its
// end.
func (w *world) runs(a attempt, withdrawn bool) Input {
	if _, begun := w.children[a]; withdrawn && !begun {
		return Withdrawn{a.step, a.phase, a.generation, a.number}
	}
	return w.perform(a, false)
}

func (w *world) undo(step int) {
	w.blocked[step] = true
	if w.undone[step] == 0 && w.effects(step) > 0 {
		w.undone[step]++
	}
}

func (w *world) fail(r *Result, o Outcome) {
	r.Outcome, r.Output = o, nil
	r.Code, r.Message = "error", "no luck"
	r.Retryable = w.rng.IntN(4) > 0
	if w.rng.IntN(8) == 0 {
		r.Code = "declined"
	}
}

// audit compares the truth with how the run ended.
func (w *world) audit(s *State) error {
	w.know(s.NumSteps())
	for i := range s.NumSteps() {
		if _, _, fanned := s.Items(i); fanned || w.excused[i] || !s.Def(i).Kind.HasTask() {
			continue
		}
		n, undone := w.effects(i), w.undone[i]
		switch s.Status() {
		case Succeeded:
			skipped := s.StepView(i).State == "skipped"
			if undone > 0 || skipped && n != 0 || !skipped && n != 1 {
				return fmt.Errorf("S2: succeeded, but step %d has %d effects, %d of them undone", i, n, undone)
			}
		case Compensated:
			if s.Def(i).Compensation != "" && n != undone {
				return fmt.Errorf("S2: compensated, but step %d has %d effects, %d of them undone", i, n, undone)
			}
			if s.Def(i).Pivot && n > 0 && !s.Waived() {
				return fmt.Errorf("S7: compensated, but the pivot has its effect")
			}
		}
	}
	return nil
}
