package machine

import (
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// standing is what an attempt that an input names is to the run.
type standing uint8

const (
	neverMade   standing = iota // not an attempt of this run
	outstanding                 // the one that the run waits for
	stale                       // answered, given up or overtaken
)

// attempt names one attempt.
type attempt struct {
	step       int
	phase      Phase
	generation uint32
	number     uint32
}

// event is an event about the attempt.
func (a attempt) event(k EventKind) Event {
	return Event{Kind: k, Step: a.step, Phase: a.phase, Generation: a.generation, Attempt: a.number}
}

// find looks an attempt up.
func (s *State) find(a attempt) (standing, error) {
	if a.step < 0 || a.step >= len(s.steps) {
		return neverMade, fmt.Errorf("%w: step %d of %d", ErrNoStep, a.step, len(s.steps))
	}
	if !s.has(a.phase) {
		return neverMade, fmt.Errorf("%w: a step of this kind of workflow has no phase %d", ErrRejected, a.phase)
	}
	if s.participants && !s.reached(a.phase) {
		return neverMade, nil
	}
	t := s.task(a.step, a.phase)
	switch {
	case t == nil || a.number == 0 || a.generation == 0:
		return neverMade, nil
	case a.generation > t.generation || a.generation == t.generation && a.number > t.attempt:
		return neverMade, nil
	case a.generation == t.generation && a.number == t.attempt && t.outstanding:
		return outstanding, nil
	}
	return stale, nil
}

// result takes a worker's answer.
func (d *decision) result(in *Result) error {
	if in.Outcome < OutcomeSucceeded || in.Outcome > OutcomeReadOnly || in.Outcome == OutcomeReadOnly && !d.participants {
		return fmt.Errorf("%w: outcome %d", ErrRejected, in.Outcome)
	}
	a := attempt{in.Step, in.Phase, in.Generation, in.Attempt}
	at, err := d.find(a)
	if err != nil || at == neverMade || d.status.Final() {
		return err
	}
	if d.participants {
		d.answer(a, at, in)
		return nil
	}
	if in.Outcome == OutcomeSucceeded && a.phase == Action && !d.fits(a.step, in.Output) {
		tooLarge := *in
		tooLarge.Outcome, tooLarge.Retryable, tooLarge.Output, tooLarge.Code = OutcomeUnknown, false, nil, CodeOutput
		tooLarge.Message = fmt.Sprintf("the outputs of all items together are larger than %d bytes", MaxItemOutputs)
		in = &tooLarge
	}
	if d.settled(a.step, a.phase) && !d.revives(a, in.Outcome) {
		if at == outstanding {
			d.closeAttempt(a, in.Worker)
		}
		return nil
	}
	if in.Outcome == OutcomeSucceeded {
		e := a.event(AttemptSucceeded)
		e.Worker, e.Payload, e.Late = in.Worker, in.Output, at == stale
		d.emit(e)
		return nil
	}
	if at == stale {
		if in.Outcome == OutcomeFailed && d.clears(a) {
			e := a.event(AttemptFailed)
			e.Worker, e.Code, e.Message, e.Late = in.Worker, cut(in.Code, MaxCodeBytes), cut(in.Message, MaxMessageBytes), true
			d.emit(e)
		}
		return nil
	}
	d.unsuccessful(a.failed(in), in.Retryable)
	return nil
}

// failed is the event of an answer that is not a success.
func (a attempt) failed(in *Result) Event {
	e := a.event(AttemptFailed)
	if in.Outcome == OutcomeUnknown {
		e.Kind = AttemptUnknown
	}
	e.Worker, e.Code = in.Worker, cut(in.Code, MaxCodeBytes)
	e.Message, e.Stack = cut(in.Message, MaxMessageBytes), cut(in.Stack, MaxStackBytes)
	e.Payload = in.Output
	return e
}

// revives tells whether an answer counts although its step is settled: the
// success of an action that was thought to have had no effect, or of which
// nothing was known.
func (s *State) revives(a attempt, o Outcome) bool {
	if o != OutcomeSucceeded || a.phase != Action {
		return false
	}
	st := s.steps[a.step].state
	return st == stepFailed || st == stepUnknown
}

// clears tells whether the late failure of an attempt makes known that its
// task has had no effect so far. That is so only while nothing was decided on
// the ground that it may have had one.
func (s *State) clears(a attempt) bool {
	t := s.task(a.step, a.phase)
	undecided := s.steps[a.step].stalled == 0 && !s.settled(a.step, a.phase) && (a.phase == Compensate || !s.turned)
	return undecided && t.generation == a.generation && t.unknown == 1 && t.lost == a.number
}

// closeAttempt records that the outstanding attempt of a settled step has come
// to its end, one way or another.
func (d *decision) closeAttempt(a attempt, worker string) {
	e := a.event(AttemptClosed)
	e.Worker = worker
	d.emit(e)
}

// lostAttempt takes the news that an attempt will not answer.
func (d *decision) lostAttempt(in *Lost) error {
	a := attempt{in.Step, in.Phase, in.Generation, in.Attempt}
	if open, err := d.open(a, in.Worker); !open {
		return err
	}
	e := a.event(AttemptLost)
	e.Worker, e.Code, e.Payload = in.Worker, in.Reason.code(), in.Progress
	if in.Reason == LostWorkerDied && int(d.task(a.step, a.phase).deaths)+1 >= isolateAfter {
		e.Code = CodeIsolated
		e.Message = "three workers died under this task"
		d.unsuccessful(e, false)
		return nil
	}
	d.unsuccessful(e, true)
	return nil
}

// expired takes the news that no worker started an attempt in time. For an
// action and for a vote that ends the policy; but a pivot or a commit in one
// phase of which any attempt may have reached a worker is asked again, and so are
// compensations, commits and aborts, by their policies.
func (d *decision) expired(in *Expired) error {
	a := attempt{in.Step, in.Phase, in.Generation, in.Attempt}
	if open, err := d.open(a, ""); !open {
		return err
	}
	e := a.event(AttemptExpired)
	e.Code, e.Message, e.Sent = CodeQueueTimeout, "no worker started the task within its queue timeout", in.Sent
	asked := in.Sent || d.task(a.step, a.phase).unknown > 0
	d.unsuccessful(e, !d.first(a.phase) || asked && (d.single || d.def(a.step).Pivot))
	return nil
}

// withdrawn takes the news that an attempt never left the engine.
func (d *decision) withdrawn(in *Withdrawn) error {
	a := attempt{in.Step, in.Phase, in.Generation, in.Attempt}
	if open, err := d.open(a, ""); !open {
		return err
	}
	e := a.event(AttemptWithdrawn)
	if !d.first(a.phase) || !d.turned {
		e.Until = fromMilli(d.now) // nobody asked for it: schedule it again
	}
	d.emit(e)
	return nil
}

// open tells whether the run waits for an attempt whose step is not settled;
// if it is settled, the attempt is closed.
func (d *decision) open(a attempt, worker string) (bool, error) {
	at, err := d.find(a)
	if err != nil || at != outstanding || d.status.Final() {
		return false, err
	}
	if d.settled(a.step, a.phase) {
		d.closeAttempt(a, worker)
		return false, nil
	}
	return true, nil
}

// unsuccessful records the end of the outstanding attempt of an unsettled step,
// with the time of the next if the policy has one.
func (d *decision) unsuccessful(e Event, retryable bool) {
	i, p := e.Step, e.Phase
	if d.first(p) && d.turned {
		d.emit(e) // nothing is tried again; the fold settles the step
		return
	}
	policy := d.policy(i, p)
	why := CodeFinal
	if e.Code == CodeIsolated && e.Kind == AttemptLost {
		why = CodeIsolated
	} else if retryable && !slices.Contains(policy.NonRetryable, e.Code) {
		if until, ok := nextAttempt(policy, d.task(i, p), d.now, d.jitter(&e)); ok {
			e.Until = fromMilli(until)
			d.emit(e)
			return
		}
		why = CodeExhausted
	}
	d.emit(e)
	d.concludes(i, p, why)
}

// policy is the retry policy of a phase of a step or participant.
func (s *State) policy(i int, p Phase) *definitions.RetryPolicy {
	switch def := s.def(i); {
	case s.first(p):
		return &def.Retry
	case p == Compensate:
		return &def.CompensationRetry
	default:
		return &def.PhaseTwoRetry
	}
}

// cut shortens text to at most limit bytes of valid UTF-8.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}
