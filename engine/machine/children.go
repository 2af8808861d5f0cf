package machine

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// Parent says of which run another one is a child.
type Parent struct {
	RunID string // empty: the run is nobody's child
	Step  string // of that run
	Depth uint8  // 1 for the child of a run that is nobody's
}

// maxRunID bounds the ids of child runs, in bytes. It is the protocol's limit of
// a run's id.
const maxRunID = 200

// ChildID is the id of the run that an attempt of a child step is: RUN:STEP:1,
// with :2 for the second attempt, and :2.1 for the first of the second
// generation. Where that is longer than an id may be, a hash stands for RUN. The
// same attempt is the same run, so that starting it again changes nothing; the
// rule cannot change under stored histories.
func ChildID(runID, step string, generation, attempt uint32) string {
	tail := ":" + step + ":"
	if generation != 1 {
		tail += strconv.FormatUint(uint64(generation), 10) + "."
	}
	tail += strconv.FormatUint(uint64(attempt), 10)
	if len(runID)+len(tail) > maxRunID {
		sum := sha256.Sum256([]byte(runID))
		runID = "~" + hex.EncodeToString(sum[:16])
	}
	return runID + tail
}

// Child is what the Dispatch command of a child step asks for: that this run be
// started.
type Child struct {
	Workflow string
	Start    Start
}

// Child returns the run that an outstanding attempt of a child step is. The
// child may run until the step's timeout has passed, and, before the pivot, until
// the run's own deadline.
func (s *State) Child(c Command) Child {
	def := s.Def(c.Step)
	deadline := time.Time{}
	if def.Timeout > 0 {
		deadline = c.Scheduled.Add(def.Timeout)
	}
	if own := s.Deadline(); !s.passed && !own.IsZero() && (deadline.IsZero() || own.Before(deadline)) {
		deadline = own
	}
	return Child{Workflow: def.Workflow, Start: Start{
		RunID: ChildID(s.runID, def.Name, c.Generation, c.Attempt), Input: s.TaskInput(c.Step, c.Phase), Key: s.RoutingKey(),
		Deadline: deadline, Priority: s.priority, Parent: Parent{RunID: s.runID, Step: def.Name, Depth: s.parent.Depth + 1},
	}}
}

// ChildCancel is what a child is told whose attempt has a CancelTask.
func (s *State) ChildCancel() Cancel {
	reason := "run " + s.runID + " has turned back"
	if code, message := s.turnCode, s.turnMessage; code != "" {
		reason += ": " + code
		if message != "" {
			reason += ": " + message
		}
	}
	return Cancel{By: "its parent", Reason: cut(reason, MaxMessageBytes)}
}

// Parent is the run of which this one is a child, if it is one.
func (s *State) Parent() Parent { return s.parent }

// Codes of the outcomes of child runs.
const (
	CodeChildUndone    = "child_undone"    // failure: the child has ended compensated or aborted, and says no code
	CodeChildWaived    = "child_waived"    // unknown: an operator left a part of what it did or undid
	CodeChildHeuristic = "child_heuristic" // unknown: a participant decided by itself
	CodeChildDepth     = "child_depth"     // failure: runs are nested too deep; it is final for all of them
)

// ChildResult is what the end of this run means to the attempt of its parent
// that it is; which attempt that is, the caller fills in. An unknown outcome is
// not to be tried again: the next attempt would be another run, with effects of
// its own.
func (s *State) ChildResult() Result {
	r := Result{Outcome: OutcomeUnknown, Message: "child run " + s.runID + " of workflow " + s.wf.Name() + " ended " + s.status.String()}
	switch {
	case s.heuristic:
		r.Code = CodeChildHeuristic
		r.Message += ", and a participant has decided by itself"
	case s.waived:
		r.Code = CodeChildWaived
		r.Message += ", and an operator has left a part as it is"
	case s.status == Succeeded || s.status == Committed:
		return Result{Outcome: OutcomeSucceeded, Output: s.output}
	default:
		r.Outcome, r.Retryable, r.Code = OutcomeFailed, true, CodeChildUndone
		s.blame(&r)
	}
	r.Message = cut(r.Message, MaxMessageBytes)
	return r
}

// blame adds to the failure of a child why it failed.
func (s *State) blame(r *Result) {
	code, message := s.Failure()
	if code == "" {
		return
	}
	if code == CodeChildDepth {
		r.Retryable, r.Code, r.Message = false, code, message // of the innermost
		return
	}
	if i := s.FailedStep(); i >= 0 {
		r.Message += " because of " + s.Def(i).Name
	}
	r.Message += ": " + code
	if message != "" {
		r.Message += ": " + message
	}
	r.Code = code
}

// schedule emits that an attempt is to be made. That of a child step says which
// run it is.
func (d *decision) schedule(e Event) {
	if e.Phase == Action && d.def(e.Step).Kind == definitions.StepChild {
		e.RunID = ChildID(d.runID, d.name(e.Step), e.Generation, e.Attempt)
	}
	d.emit(e)
}

// childView is the run that the last attempt of a child step is; empty, if the
// step is none or has none.
func (s *State) childView(i int) string {
	t := &s.steps[i].action
	if s.def(i).Kind != definitions.StepChild || t.attempt == 0 || t.total == 0 {
		return ""
	}
	return ChildID(s.runID, s.name(i), t.generation, t.attempt)
}

func appendParent(b []byte, p Parent) []byte {
	return append(appendString(appendString(b, p.RunID), p.Step), p.Depth)
}

func (r *reader) parent() Parent {
	return Parent{RunID: r.string(), Step: r.string(), Depth: r.byte()}
}
