// Package testkit runs a workflow in memory, for tests: with fakes or with the
// real handlers, on a virtual clock, and with whatever may go wrong on order.
//
// A [Kit] drives the pure core (package engine/machine), which decides here as
// it does in the orchestrator; there is no broker, store, goroutine or wait. An
// ordinary test of a saga takes well under a millisecond.
//
//	k := testkit.New(t, order)
//	testkit.On(k, Charge, func(ctx context.Context, in ChargeIn) (ChargeOut, error) { ... })
//	k.FailAttempt("pay", 2, worker.Final("card_declined", errNoMoney))
//	k.Run(input).MustBeCompensated().MustHaveUndone("reserve")
//
// # What is modelled
//
// Handlers are called at the virtual moment when their task is sent, in the
// test's goroutine; their errors and panics are judged by package worker itself.
// They take no time unless they say so with [Pass]. Their answers are taken in
// the order of the clock, which jumps to whatever comes next: an answer, the
// next attempt, a deadline. Every decision is encoded as it would be stored, and
// a crash rebuilds the run from that.
//
// Steps that sleep cost no time: the clock jumps. What a step waits for is sent
// with [Kit.Signal], at a moment of the run's history or of the clock.
//
// Named locks are there at once, unless the test says otherwise with
// [Kit.LockWait] or [Kit.LockRefused].
//
// A step that is a run of another workflow is not run: the handler of the
// workflow's name ([Kit.On], [Kit.Answer]) answers in its place.
//
// Handlers are not interrupted: a task that is told to give up has been
// performed already. There is no placement: no workers, no queues.
//
// A Kit belongs to one test and is not safe for concurrent use.
package testkit
