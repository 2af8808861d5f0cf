package testkit

import (
	"fmt"
	"time"

	"github.com/ringmaster-dev/ringmaster/engine/machine"
)

// Moment is a point in a run's course: when its history has a certain event, or
// a time on the clock. See [Event], [Kind], [Scheduled], [Succeeded], [Failed],
// [Waiting] and [Elapsed].
type Moment struct {
	seq     int // event number; 0: any
	kind    machine.EventKind
	step    string // empty: any
	nth     int    // of those that match; 0: the first
	commit  int    // decision number; 0: any
	elapsed time.Duration
	timed   bool
}

// Event is the moment of the run's event with that number, from 1.
func Event(number int) Moment { return Moment{seq: number} }

// Kind is the moment of the first event of a kind.
func Kind(kind machine.EventKind) Moment { return Moment{kind: kind} }

// Scheduled is the moment when a step's first attempt is decided on.
func Scheduled(step string) Moment { return Kind(machine.AttemptScheduled).Of(step) }

// Succeeded is the moment when a step's success is taken.
func Succeeded(step string) Moment { return Kind(machine.AttemptSucceeded).Of(step) }

// Failed is the moment when a step's first failure is taken.
func Failed(step string) Moment { return Kind(machine.AttemptFailed).Of(step) }

// Waiting is the moment when a step begins to wait, for a time or a signal.
func Waiting(step string) Moment { return Kind(machine.WaitStarted).Of(step) }

// Elapsed is the moment when the run is as old as d.
func Elapsed(d time.Duration) Moment { return Moment{elapsed: d, timed: true} }

// Of narrows the moment down to events of a step's task: "pay", or
// "pay/compensate".
func (m Moment) Of(step string) Moment {
	m.step = step
	return m
}

// Nth makes it the n-th event that matches, from 1.
func (m Moment) Nth(n int) Moment {
	m.nth = n
	return m
}

// String says which moment it is.
func (m Moment) String() string {
	switch {
	case m.timed:
		return m.elapsed.String()
	case m.commit > 0:
		return fmt.Sprintf("decision %d", m.commit)
	case m.seq > 0:
		return fmt.Sprintf("event %d", m.seq)
	}
	s := m.kind.String()
	if m.step != "" {
		s += " of " + m.step
	}
	if m.nth > 1 {
		s += fmt.Sprintf(", number %d", m.nth)
	}
	return s
}

// deed is what happens at a moment.
type deed uint8

const (
	cancelling   deed = iota
	crashing          // after what the event calls for was done
	crashingIdle      // before
	signalling
)

// trigger has something happen at a moment, once per run.
type trigger struct {
	at     Moment
	target target // of at.step
	do     deed
	reason string
	signal machine.Signal
}

func (k *Kit) trigger(at Moment, do deed, reason string) {
	k.t.Helper()
	if !at.timed && at.seq <= 0 && at.kind == 0 {
		k.t.Fatalf("testkit: that is no moment: %v", at)
	}
	t := trigger{at: at, do: do, reason: reason, target: target{step: -1, item: everyItem}}
	if at.step != "" {
		t.target = k.resolve(at.step)
	}
	k.triggers = append(k.triggers, t)
}

// Cancel asks at a moment for the run to be undone, before any answer that is
// on its way is taken.
func (k *Kit) Cancel(at Moment, reason string) {
	k.t.Helper()
	k.trigger(at, cancelling, reason)
}

// Signal gives the run a signal at a moment, before any answer that is on its way
// is taken. The payload is encoded as JSON; []byte is taken as JSON text. A
// signal that the run refuses fails the test.
func (k *Kit) Signal(at Moment, name string, payload any) {
	k.t.Helper()
	k.trigger(at, signalling, "")
	k.triggers[len(k.triggers)-1].signal = machine.Signal{Name: name, Payload: k.encode(payload), By: operator}
}

// CrashAfter has the orchestrator crash once what the moment's event calls for
// has been done: tasks are out and performed. The run is rebuilt from its
// encoded history. Attempts that failed answer again, because their workers kept
// the answer; all others that are outstanding are sent again, to handlers that
// have had them before.
func (k *Kit) CrashAfter(at Moment) {
	k.t.Helper()
	k.trigger(at, crashing, "")
}

// CrashBeforeActing has the orchestrator crash once the moment's event is
// durable and before anything is done about it.
func (k *Kit) CrashBeforeActing(at Moment) {
	k.t.Helper()
	k.trigger(at, crashingIdle, "")
}

// order is what an operator does when a step stalls.
type order struct {
	target target
	in     func(step int) machine.Input
}

// operator signs the orders of the kit.
const operator = "operator"

func (k *Kit) order(step string, in func(i int) machine.Input) {
	k.t.Helper()
	t := k.resolve(step)
	if t.step < 0 {
		k.t.Fatalf("testkit: an order names its step")
	}
	k.orders = append(k.orders, order{t, in})
}

// Retry has an operator try a step again when it stalls; with other input if
// that is not nil. Of several orders for a step, the first is for the first time
// that it stalls, the second for the second.
func (k *Kit) Retry(step string, input any) {
	k.t.Helper()
	var data []byte
	if input != nil {
		data = k.encode(input)
	}
	k.order(step, func(i int) machine.Input {
		return machine.Retry{Step: i, Input: data, By: operator, Reason: "as the test says"}
	})
}

// Skip has an operator leave a step when it stalls.
func (k *Kit) Skip(step, reason string) {
	k.t.Helper()
	k.order(step, func(i int) machine.Input { return machine.Skip{Step: i, By: operator, Reason: reason} })
}

// Resolve has an operator state, when a step stalls, whether it took effect, and
// with which output.
func (k *Kit) Resolve(step string, applied bool, output any, reason string) {
	k.t.Helper()
	data := k.encode(output)
	k.order(step, func(i int) machine.Input {
		return machine.Resolve{Step: i, Applied: applied, Output: data, By: operator, Reason: reason}
	})
}
