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
package machine
