// Package machine is the pure core: it decides everything, and the shell
// around it (package engine) only carries.
//
// A [State] is the fold of a run's events. [State.Step] takes an [Input] and
// the time, decides what happened, appends the corresponding events, folds
// them, and returns them. [State.Commands] says what the state asks the shell
// to do. There is no goroutine, clock, randomness, log or I/O here, so a run
// can be rebuilt from its history, simulated with a virtual clock, and
// explained event by event.
//
// The shell's duty is: make the events durable, then do what Commands says.
// After a crash it folds the history and does what Commands says again.
//
// # How it is laid out
//
// Inputs (inputs.go) come in through Step (decide.go). Answers to attempts are
// judged in attempts.go, operators' orders in orders.go; after each, the run is
// moved on as far as it goes, in forward.go before the turn to backward
// recovery and in backward.go after it. All that these may do to the state is
// to emit events (event.go), which fold.go applies; the same fold rebuilds the
// state from history. codec.go lays events out in records, snapshot.go the
// state in checkpoints.
//
// A run with participants (2PC, TCC) goes another way through the same events,
// attempts and fold: votes and acknowledgements are judged in participants.go,
// and decision.go decides, delivers the decision, and ends the run.
//
// # The decision
//
// The decision to commit or to abort is one event. It comes once, which fold
// asserts: a history with a second one, with a commit that not everybody voted
// for, or with a task of phase two ahead of its decision is refused as corrupt.
// [State.Decision] is what a participant that asks is to be told. Whatever keeps
// a vote from being a yes decides abort: a no for good, an end of the policy, the
// deadline, a cancel. Everybody then is told who may have prepared, also those
// whose vote is still out; nobody waits for these votes. A vote that turns out
// later to have been no, or read-only, ends the abort that it has made needless,
// and a yes that comes after a no brings one about. Of a single participant there
// is no vote: it gets a commit alone, whose answer is the decision; it is in the
// place of a saga's pivot, and like it may be in doubt, or need an operator.
//
// # Locks
//
// A run whose workflow has lock expressions names its locks when it starts, and
// asks for them one after the other, in the order of their names ([State.NextLock]).
// Until it holds all, nothing begins; a cancel, the deadline or a refusal then
// ends it without effect. It lets go of them when it has ended: that is the
// shell's to do.
//
// # Words for outcomes
//
// An attempt that has been scheduled and not answered is outstanding; a step
// has at most one outstanding attempt per phase. An attempt is unknown if it
// was lost, or if its worker said so: it may have had its effect. A step whose
// policy has ended is failed if every attempt answered failed, and unknown
// otherwise; an unknown step is compensated like a succeeded one.
//
// The scripts in testdata tell the semantics case by case.
package machine
