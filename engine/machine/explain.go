package machine

import (
	"strconv"
	"strings"
	"time"
)

// Explain tells an event of the run in plain words. The state is that after the
// event, or a later one: it knows the items that the event may name.
func (s *State) Explain(e Event) string {
	x := explainer{s: s, e: &e}
	switch e.Kind {
	case RunStarted:
		x.started()
	case AttemptScheduled, AttemptSucceeded, AttemptFailed, AttemptUnknown, AttemptLost, AttemptExpired,
		AttemptWithdrawn, AttemptClosed, AttemptReadOnly, HeuristicOutcome:
		x.attempt()
	case StepSkipped:
		if e.Code == CodeBranch {
			x.say(x.step(), " is skipped: it is on another branch")
			break
		}
		x.say(x.step(), " is skipped: its condition is false")
	case StepExpanded:
		x.expanded()
	case StepFailed:
		if e.Code == CodeExpression {
			x.say("an expression of ")
		}
		x.say(x.task(), " failed")
		x.why(": ")
	case StepStalled:
		x.say(x.task(), " needs an operator: ", stallReason(e.Code))
	case TurnedBack:
		x.turned()
	case CancelRequested:
		x.say("a cancel was asked for")
		x.by()
		x.why(": ")
	case DeadlinePassed:
		x.say("the run's deadline has passed")
	case RetryOrdered, SkipOrdered, StepResolved:
		x.order()
	case OutputFailed:
		x.say("the output could not be computed, the run ends without one")
		x.why(": ")
	case RunSucceeded:
		x.say("the run has succeeded")
	case RunCompensated:
		x.say("the run has been undone")
	case DecidedCommit:
		x.say("decided: commit")
	case DecidedAbort:
		x.aborts()
	case RunCommitted:
		x.say("the run has committed")
	case RunAborted:
		x.say("the run has aborted")
	case WaitStarted, WaitEnded, SignalReceived:
		x.wait()
	case ChoiceMade:
		x.say(x.step(), " takes ", e.Name)
	case LocksWanted:
		x.locks()
	case LockGranted:
		x.say("the run holds lock ", e.Key, ", under token ", strconv.FormatUint(e.Token, 10))
	case Checkpointed:
		x.say("earlier events are folded into a checkpoint")
	default:
		x.say("an event of a kind that is not known here")
	}
	return x.b.String()
}

// explainer gathers the words for one event.
type explainer struct {
	s *State
	e *Event
	b strings.Builder
}

func (x *explainer) say(words ...string) {
	for _, w := range words {
		x.b.WriteString(w)
	}
}

// step is the name of the event's step.
func (x *explainer) step() string {
	if x.e.Step < 0 || x.e.Step >= x.s.NumSteps() {
		return "step " + strconv.Itoa(x.e.Step)
	}
	return x.s.name(x.e.Step)
}

func (x *explainer) expanded() {
	n := 0
	if i := x.e.Step; i >= 0 && i < x.s.NumSteps() {
		_, n, _ = x.s.Items(i)
	}
	switch n {
	case 0:
		x.say(x.step(), " has no items: it has succeeded")
	case 1:
		x.say(x.step(), " fans out to 1 item")
	default:
		x.say(x.step(), " fans out to ", strconv.Itoa(n), " items")
	}
}

// task names the step, and its phase if it is not the action.
func (x *explainer) task() string {
	switch p := x.e.Phase; p {
	case Compensate:
		return "the compensation of " + x.step()
	case Prepare, Commit, Abort:
		return p.String() + " of " + x.step()
	}
	return x.step()
}

// why adds the code and the message.
func (x *explainer) why(before string) {
	parts := make([]string, 0, 2)
	if x.e.Code != "" && x.e.Code != CodeExpression && x.e.Code != CodeOutput {
		parts = append(parts, x.e.Code)
	}
	if x.e.Message != "" {
		parts = append(parts, x.e.Message)
	}
	if len(parts) > 0 {
		x.say(before, strings.Join(parts, ": "))
	}
}

func (x *explainer) by() {
	if x.e.By != "" {
		x.say(" by ", x.e.By)
	}
}

func (x *explainer) started() {
	x.say("the run starts")
	if p := x.e.Parent; p.RunID != "" {
		x.say(" as step ", p.Step, " of run ", p.RunID)
	}
	if x.e.RetryOf != "" {
		x.say(", a retry of ", x.e.RetryOf)
	}
	if x.e.Key != "" {
		x.say(", routed by ", strconv.Quote(x.e.Key))
	}
	if !x.e.Until.IsZero() {
		x.say(", to be done by ", clock(x.e.Until))
	}
}

func (x *explainer) attempt() {
	e := x.e
	x.say(x.task(), ", attempt ", strconv.FormatUint(uint64(e.Attempt), 10))
	if e.Generation > 1 {
		x.say(" of generation ", strconv.FormatUint(uint64(e.Generation), 10))
	}
	switch e.Kind {
	case AttemptScheduled:
		if e.RunID != "" {
			x.say(": run ", e.RunID, " is to start")
			break
		}
		x.say(": scheduled")
	case AttemptSucceeded:
		if e.Phase == Prepare {
			x.say(": prepared, votes yes")
			break
		}
		x.say(": succeeded")
	case AttemptReadOnly:
		x.say(": read-only, there is nothing to commit or abort")
	case HeuristicOutcome:
		x.say(": the participant has decided by itself")
	case AttemptFailed:
		x.say(": failed, without effect")
	case AttemptUnknown:
		if e.Code == CodeChildWaived || e.Code == CodeChildHeuristic {
			x.say(": a part of it may have taken effect")
			break
		}
		x.say(": its worker does not know whether it took effect")
	case AttemptLost:
		x.say(": lost, ", lossReason(e.Code))
	case AttemptExpired:
		x.say(": not started in time")
		if e.Sent {
			x.say(", but it may have reached a worker")
		}
	case AttemptWithdrawn:
		x.say(": withdrawn before it was sent")
	case AttemptClosed:
		x.say(": ended, after the step was settled")
	}
	if e.Worker != "" {
		x.say(" (", e.Worker, ")")
	}
	if e.Late {
		x.say(", answering late")
	}
	if e.Kind == AttemptFailed || e.Kind == AttemptUnknown || e.Kind == HeuristicOutcome {
		x.why(": ")
	}
	if e.Kind != AttemptWithdrawn && !e.Until.IsZero() {
		x.say("; next attempt at ", clock(e.Until))
	}
}

func (x *explainer) turned() {
	switch x.e.Code {
	case CodeCancelled:
		x.say("the run turns back: it was cancelled")
	case CodeDeadline:
		x.say("the run turns back: its deadline has passed")
	case CodeOutput:
		x.say("the run turns back: its output could not be computed")
	case CodeLockRefused:
		x.say("the run turns back: it cannot get one of its locks")
	default:
		x.say("the run turns back because of ", x.step())
	}
	if x.e.Message != "" {
		x.say(": ", x.e.Message)
	}
}

func (x *explainer) aborts() {
	switch x.e.Code {
	case CodeCancelled:
		x.say("decided: abort, the run was cancelled")
	case CodeDeadline:
		x.say("decided: abort, the run's deadline has passed")
	case CodeOutput:
		x.say("decided: abort, the output could not be computed")
	case CodeLockRefused:
		x.say("decided: abort, the run cannot get one of its locks")
	default:
		x.say("decided: abort, because of ", x.step())
	}
	if x.e.Message != "" {
		x.say(": ", x.e.Message)
	}
}

func (x *explainer) order() {
	e := x.e
	switch {
	case e.Kind == RetryOrdered && len(e.Payload) > 0:
		x.say(x.task(), " is to be tried again with other input")
	case e.Kind == RetryOrdered:
		x.say(x.task(), " is to be tried again")
	case e.Kind == SkipOrdered && e.Phase == Compensate:
		x.say(x.task(), " is waived: its effect stays")
	case e.Kind == SkipOrdered && e.Phase != Action:
		x.say(x.task(), " is waived: the participant is left as it is")
	case e.Kind == SkipOrdered:
		x.say(x.task(), " is skipped")
	case e.Applied:
		x.say(x.task(), " is resolved as done")
	default:
		x.say(x.task(), " is resolved as not done")
	}
	if e.By != "" {
		x.say(", says ", e.By)
	}
	if e.Message != "" {
		x.say(": ", e.Message)
	}
}

// wait tells of steps that wait, and of signals.
func (x *explainer) wait() {
	e := x.e
	switch {
	case e.Kind == SignalReceived:
		x.say("signal ", e.Name, " is received")
		x.signalID()
		x.by()
	case e.Kind == WaitEnded && e.Code != "":
		x.say(x.step(), " goes on without its signal: its time is over")
	case e.Kind == WaitEnded && e.Name != "":
		x.say(x.step(), " has its signal, ", e.Name)
		x.signalID()
	case e.Kind == WaitEnded:
		x.say(x.step(), " has slept")
	case e.Step >= 0 && e.Step < x.s.NumSteps() && x.s.def(e.Step).Signal != "":
		x.say(x.step(), " waits for signal ", x.s.def(e.Step).Signal)
		if !e.Until.IsZero() {
			x.say(" until ", clock(e.Until))
		}
	default:
		x.say(x.step(), " sleeps until ", clock(e.Until))
	}
}

func (x *explainer) signalID() {
	if x.e.ID != "" {
		x.say(" (", x.e.ID, ")")
	}
}

func lossReason(code string) string {
	switch code {
	case "worker_died":
		return "its worker died"
	case "timeout":
		return "no answer within its timeout"
	case CodeIsolated:
		return "the third worker died under this task, no other gets it"
	}
	return "its worker does not have it"
}

func stallReason(code string) string {
	switch code {
	case CodeExhausted:
		return "its attempts have run out"
	case CodeIsolated:
		return "three workers died under it"
	case CodeNoCase:
		return "none of its cases applies"
	case CodeSignalTimeout:
		return "its signal did not come in time"
	}
	return "it failed and may not be tried again"
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
