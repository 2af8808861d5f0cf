package machine

import (
	"fmt"
	"time"
)

// Limits of texts that workers send along with a failure; longer ones are cut.
const (
	MaxCodeBytes    = 128
	MaxMessageBytes = 2 << 10
	MaxStackBytes   = 8 << 10
)

// isolateAfter is how many workers may die under a task.
const isolateAfter = 3

// decision is one Step under way.
type decision struct {
	*State
	now    int64 // ms
	events []Event
	budget budget
}

// Step decides on an input at time now, folds the resulting events into the
// state and returns them; none means that the input changes nothing. With an
// error the state is unchanged. The events alias memory of the input
// (payloads).
func (s *State) Step(in Input, now time.Time) ([]Event, error) {
	d := decision{State: s, now: milli(now)}
	if err := d.take(in); err != nil {
		return nil, err
	}
	if len(d.events) > 0 {
		d.advance()
	}
	return d.events, nil
}

// take judges the input. It emits nothing if it returns an error.
func (d *decision) take(in Input) error {
	switch in := in.(type) {
	case Start:
		return d.start(&in)
	case *Start:
		return d.start(in)
	}
	if d.seq == 0 {
		return fmt.Errorf("%w: the run has not started", ErrNotAllowed)
	}
	switch in := in.(type) {
	case Result:
		return d.result(&in)
	case *Result:
		return d.result(in)
	case Lost:
		return d.lostAttempt(&in)
	case *Lost:
		return d.lostAttempt(in)
	case Expired:
		return d.expired(&in)
	case *Expired:
		return d.expired(in)
	case Withdrawn:
		return d.withdrawn(&in)
	case *Withdrawn:
		return d.withdrawn(in)
	case Granted:
		return d.granted(&in)
	case *Granted:
		return d.granted(in)
	case Refused:
		return d.refused(&in)
	case *Refused:
		return d.refused(in)
	case Tick, *Tick:
		d.advance()
		return nil
	case Signal:
		return d.signal(&in)
	case *Signal:
		return d.signal(in)
	}
	if d.status.Final() {
		return ErrEnded
	}
	switch in := in.(type) {
	case Cancel:
		d.cancel(&in)
		return nil
	case *Cancel:
		d.cancel(in)
		return nil
	case Retry:
		return d.retry(&in)
	case *Retry:
		return d.retry(in)
	case Skip:
		return d.skip(&in)
	case *Skip:
		return d.skip(in)
	case Resolve:
		return d.resolve(&in)
	case *Resolve:
		return d.resolve(in)
	}
	return fmt.Errorf("%w: input of type %T", ErrRejected, in)
}

// emit adds an event and folds it.
func (d *decision) emit(e Event) {
	e.Seq = d.seq + 1
	e.At = fromMilli(d.now)
	if d.events == nil {
		d.events = make([]Event, 0, 3)
	}
	d.events = append(d.events, e)
	d.fold(&d.events[len(d.events)-1])
}

// start begins the run.
func (d *decision) start(in *Start) error {
	if d.seq != 0 {
		return fmt.Errorf("%w: the run has started already", ErrNotAllowed)
	}
	key, child := in.Key, in.Parent.RunID != ""
	if key == "" || child {
		own, err := d.wf.EvalRoutingKey(orNull(in.Input))
		if err != nil {
			return fmt.Errorf("%w: %w", ErrRejected, err)
		}
		if own != "" {
			key = own
		}
	}
	if key == in.RunID {
		key = ""
	}
	locks, err := d.wf.EvalLocks(orNull(in.Input))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRejected, err)
	}
	deadline := milli(in.Deadline)
	if own := d.wf.Deadline(); own > 0 && (deadline == 0 || child) {
		at := min(d.now+own.Milliseconds(), maxMilli)
		if deadline == 0 || at < deadline {
			deadline = at
		}
	}
	d.emit(Event{
		Kind: RunStarted, Step: -1, RunID: in.RunID, Key: key, RetryOf: in.RetryOf, Priority: in.Priority, Parent: in.Parent,
		Until: fromMilli(deadline), Payload: in.Input,
	})
	d.wantLocks(locks)
	return nil
}

// advance moves the run on as far as it goes.
func (d *decision) advance() {
	if d.status.Final() {
		return
	}
	if d.participants {
		d.coordinate()
		return
	}
	if !d.turned {
		d.forward()
	}
	if d.turned {
		d.backward()
	}
}
