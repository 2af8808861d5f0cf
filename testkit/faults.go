package testkit

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/ringmaster-dev/ringmaster/engine/machine"
)

// Every, as the number of an attempt, means all of them.
const Every = 0

// AnyStep, as the name of a step, means all of them, in every phase.
const AnyStep = "*"

// faultKind is what is to befall an attempt.
type faultKind uint8

const (
	failing   faultKind = iota // answers err; no handler is called
	vanishing                  // never arrives, and is noticed to be missing
	killing                    // its worker dies before it begins
	muting                     // is performed; its answer gets lost
	waiting                    // no worker starts it in time
	repeating                  // is delivered several times
	delaying                   // answers later
	reading                    // is performed, and votes that it only read
)

// fault says what is to befall one attempt, or every one of a task.
type fault struct {
	kind   faultKind
	target target
	n      int // which attempt, over all generations; Every
	err    error
	times  int
	by     time.Duration
}

// target is a phase of a step, or of an item of a step that fans out.
type target struct {
	step  int // of the workflow; -1: any
	item  int // everyItem: the step, and each of its items
	phase machine.Phase
}

// everyItem, as an item, is all of them.
const everyItem = -1

// covers tells whether what was asked for t is for one task.
func (t target) covers(one target) bool {
	return t.step < 0 || t.step == one.step && t.phase == one.phase && (t.item == everyItem || t.item == one.item)
}

// resolve reads the name of a task: a step ("pay", its first phase), or a step
// with a phase ("pay/compensate").
func (k *Kit) resolve(name string) target {
	k.t.Helper()
	if name == AnyStep {
		return target{step: -1, item: everyItem}
	}
	step, word, given := strings.Cut(name, "/")
	i, item := k.find(step)
	if i < 0 {
		k.t.Fatalf("testkit: workflow %s has no step %q", k.wf.Name(), step)
	}
	if !given {
		return target{i, item, phasesOf(k.wf, i)[0]}
	}
	for _, p := range phasesOf(k.wf, i) {
		if p.String() == word {
			return target{i, item, p}
		}
	}
	k.t.Fatalf("testkit: step %q has no phase %q", step, word)
	return target{}
}

// find looks for a step, or an item of one that fans out: "ship[3]".
func (k *Kit) find(name string) (step, item int) {
	if i := k.wf.StepIndex(name); i >= 0 {
		return i, everyItem
	}
	name, digits, _ := strings.Cut(strings.TrimSuffix(name, "]"), "[")
	i := k.wf.StepIndex(name)
	item, err := strconv.Atoi(digits)
	if i < 0 || err != nil || item < 0 || !k.wf.Step(i).ForEach {
		return -1, everyItem
	}
	return i, item
}

func (k *Kit) fault(kind faultKind, step string, n int, f fault) {
	k.t.Helper()
	if n < 0 {
		k.t.Fatalf("testkit: attempt %d: attempts are counted from 1", n)
	}
	f.kind, f.target, f.n = kind, k.resolve(step), n
	k.faults = append(k.faults, f)
}

// FailAttempt has the n-th attempt of a step's action (of a participant: to
// prepare) fail with err, without a call of its handler. Errors mean what they mean from a handler: see
// worker.Final, Retryable and Unknown; a plain error is retryable.
//
// Here as in all that follows, n is counted from 1, or Every, and the name of a
// step followed by a phase, as in "pay/compensate", means the task of that
// phase. An item of a step that fans out is named like "ship[3]"; the name of such
// a step means each of its items.
func (k *Kit) FailAttempt(step string, n int, err error) {
	k.t.Helper()
	if err == nil {
		k.t.Fatalf("testkit: FailAttempt of %s without an error", step)
	}
	k.fault(failing, step, n, fault{err: err})
}

// Lose has the n-th attempt vanish: it reaches no handler, and the engine
// notices three seconds later that no worker has it. It does not know whether
// there was an effect.
func (k *Kit) Lose(step string, n int) {
	k.t.Helper()
	k.fault(vanishing, step, n, fault{})
}

// LoseAnswer has the n-th attempt performed, and its answer lost.
func (k *Kit) LoseAnswer(step string, n int) {
	k.t.Helper()
	k.fault(muting, step, n, fault{})
}

// KillWorker has a worker die under the n-th attempt, before its handler does
// anything. The third death isolates a task.
func (k *Kit) KillWorker(step string, n int) {
	k.t.Helper()
	k.fault(killing, step, n, fault{})
}

// Expire has no worker start the n-th attempt within the step's queue timeout,
// which the step must have.
func (k *Kit) Expire(step string, n int) {
	k.t.Helper()
	t := k.resolve(step)
	if t.step < 0 || k.wf.Step(t.step).QueueTimeout == 0 || t.phase != phasesOf(k.wf, t.step)[0] {
		k.t.Fatalf("testkit: Expire: %s has no queue timeout", step)
	}
	k.fault(waiting, step, n, fault{})
}

// Deliver has the n-th attempt delivered the given number of times: its handler
// is called that often, and each call is answered.
func (k *Kit) Deliver(step string, n, times int) {
	k.t.Helper()
	if times < 1 {
		k.t.Fatalf("testkit: Deliver: %d times; to drop an attempt, use Lose", times)
	}
	k.fault(repeating, step, n, fault{times: times})
}

// Delay has the answer to the n-th attempt arrive later by d. If that is after
// the step's timeout, the attempt counts as lost by then, and its answer is
// late.
func (k *Kit) Delay(step string, n int, d time.Duration) {
	k.t.Helper()
	k.fault(delaying, step, n, fault{by: d})
}

// VoteReadOnly has a participant answer that it only read, where its handler
// prepares with success: it has no part in what follows.
func (k *Kit) VoteReadOnly(participant string) {
	k.t.Helper()
	if t := k.resolve(participant); t.step >= 0 && k.wf.Step(t.step).Prepare == "" {
		k.t.Fatalf("testkit: VoteReadOnly: %s is no participant", participant)
	}
	k.fault(reading, participant, Every, fault{})
}

// faultOf returns what is to befall an attempt in one way; of several the last
// that was asked for.
func (k *Kit) faultOf(kind faultKind, task target, n int) *fault {
	for i := len(k.faults) - 1; i >= 0; i-- {
		f := &k.faults[i]
		if f.kind == kind && f.target.covers(task) && (f.n == Every || f.n == n) {
			return f
		}
	}
	return nil
}

// injected is a handler that fails.
func injected(err error) func(context.Context, []byte) ([]byte, error) {
	return func(context.Context, []byte) ([]byte, error) { return nil, err }
}
