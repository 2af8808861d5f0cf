// Package definitions is the language in which workflows are written: builders
// for sagas, two-phase commit and TCC, their validation, and the canonical JSON
// in which they travel. It does no I/O.
//
// A definition is Go code in the user's repository. The builder compiles it to
// an immutable [Workflow]:
//
//	b := definitions.Saga("order-flow").Service("orders")
//	b.Step("create").Action("orders.create").Compensation("orders.cancel")
//	b.Step("pay").Service("payments").
//		Action("payments.charge").Compensation("payments.refund").
//		Input("{'order': steps.create.output.id, 'amount': input.total}")
//	b.Step("deliver").Service("deliveries").Action("deliveries.ship").Pivot()
//	wf, err := b.Build()
//
// # The graph
//
// Steps run in the order written, or in the order that After gives. Every step
// before the pivot, and every step of a saga without a pivot, says how it is
// undone: by a compensation, or by NoCompensation with a reason. The pivot is
// the point of no return: once it has succeeded the run only goes forward, so
// neither it nor a step after it has a compensation, and every step is an
// ancestor or a descendant of it. (A pivot is optional.)
//
// # Steps that wait
//
// A step can wait in place of an action: for a while (Sleep), until a time
// that an expression yields (SleepUntil), or for a signal that someone sends to
// the run (WaitSignal), whose payload is then the step's output. It has no task, and so no service,
// compensation or retry policy; it may have After and When, and stand before or
// after the pivot, but not be the pivot:
//
//	b.Step("cool-off").Sleep(24 * time.Hour)
//	b.Step("embargo").SleepUntil("input.ships_at")
//	b.Step("approve").WaitSignal("approval").Timeout(72 * time.Hour).TimeoutOutput("{'ok': false}")
//
// # Choices
//
// A step can choose in place of an action: it takes the first of its cases whose
// condition is true, and its output is the name of that case. Other steps are put
// on a branch, and skipped unless it was taken:
//
//	b.Step("route").Choice().
//		Case("express", "input.total > 100").
//		Case("freight", "input.weight > 30").
//		Otherwise("standard")
//	b.Step("fly").Action("ship.fly").Compensation("ship.recall").Branch("route", "express")
//	b.Step("post").Action("ship.post").Compensation("ship.recall").Branch("route", "standard").After("route")
//
// # Fan-out
//
// A step with ForEach has its task performed once for each item of a list, some
// of them side by side:
//
//	b.Step("ship").Action("parcels.ship").Compensation("parcels.recall").
//		ForEach("input.parcels").Parallel(4).MaxItems(100).
//		Input("{'parcel': item, 'number': index + 1, 'order': steps.create.output.id}")
//
// Each item is a step of its own, "ship[0]", "ship[1]" and so on, with attempts
// and a compensation of its own. The output of the step is the list of the items'
// outputs. See [StepBuilder.ForEach].
//
// # Steps that are runs
//
// A step can be a run of another workflow, of any kind, in place of an action. It
// is started when the step starts; its output is the step's, and so is its
// failure. What it did is undone by the step's own compensation:
//
//	b.Step("settle").Service("bank").Workflow("transfer").Compensation("transfer.reverse").
//		Input("{'from': input.account, 'amount': input.total}")
//
// The workflow is looked up by its name when the step starts; here nothing is
// known of it but the name.
//
// # Participants
//
// A two-phase commit or a TCC has participants in place of steps. All prepare
// (try) side by side; then all commit (confirm), or all abort (cancel):
//
//	b := definitions.TwoPhase("transfer")
//	b.Participant("debit").Service("bank").
//		Prepare("debit.prepare").Commit("debit.commit").Abort("debit.abort")
//	b.Participant("credit").Service("ledger").
//		Prepare("credit.prepare").Commit("credit.commit").Abort("credit.abort")
//	wf, err := b.Build()
//
// A single participant is committed in one phase: it gets a commit task and
// nothing else, so that its commit must be able to do the whole work.
//
// # Isolation
//
// Lock and LockShared name locks that a run holds from before its first step
// until it has ended; runs that name the same one take turns. Serial lets at most
// one task of a routing key be in flight, and leaves the runs side by side.
//
// # Expressions
//
// A closure cannot travel, so conditions, inputs, outputs and routing keys are
// expressions in CEL over two variables:
//
//   - input: the run's input;
//   - steps.NAME.output, or steps["NAME"].output where the name is not an
//     identifier: the output of a step; null if the step has none, because it
//     was skipped or its outcome is unknown.
//
// When, ForEach, Input, CompensationInput, SleepUntil, TimeoutOutput and Case of a step see the outputs of its
// ancestors, CompensationInput also that of the step itself; Output sees all
// steps, RoutingKey and locks none. A participant counts as a step here: its output is
// what its prepare yielded. Its own Input sees the run's input alone. Input and CompensationInput of
// a step that fans out see two variables more, item and index. All references are checked when the definition is
// built, and so are syntax and types. The standard functions and macros of CEL
// are there. There is no clock and no randomness, and maps are iterated in the
// order of their keys: the same input gives the same result, to the byte.
//
// A JSON number written as an integer that fits 64 bits stays an exact
// integer; any other number is a double. CEL does not mix the two in
// arithmetic: write double(input.total) * 1.2.
//
// An evaluation is bounded in cost (EvaluationCostLimit) and in the size of its
// result (MaxResultBytes). Results that JSON does not know are written as strings:
// bytes in base64, timestamps in RFC 3339, durations in seconds ("3600s").
//
// # The canonical JSON
//
// [Workflow.JSON] writes a definition in one way only: fields in a fixed
// order, no insignificant space, services and After written out for each step,
// every other setting left out where it equals the default. Two definitions
// that mean the same have the same JSON and so the same version. The defaults
// are part of the format: they do not change under a stored definition.
// [Parse] reads it back, and is strict.
package definitions
