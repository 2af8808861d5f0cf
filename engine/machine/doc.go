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
