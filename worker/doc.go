// Package worker is the SDK for programs that perform tasks.
//
// A worker serves one service. It registers a handler for each task type, and
// [Worker.Run] takes tasks from the broker until its context ends:
//
//	w, err := worker.New(worker.Config{Broker: b, Name: "payments-1", Service: "payments"})
//	worker.Handle(w, Charge, func(ctx context.Context, in ChargeIn) (ChargeOut, error) {
//		...
//	})
//	err = w.Run(ctx)
//
// # What a handler's return means
//
// The engine decides by the outcome that a handler asserts:
//
//   - nil: it succeeded; the output is the step's.
//   - a plain error, or [Retryable]: it failed without effect, and another
//     attempt may help.
//   - [Final]: it failed without effect, and no attempt will help ("card
//     declined"): a saga turns back.
//   - [Unknown]: it may have had an effect. So may a panic, and an error after
//     the context has ended, unless the handler vouches for the contrary with
//     [NoEffect], as those of package inbox do.
//
// Tasks are delivered at least once. A handler whose effect must happen once
// uses [TaskInfo.IdempotencyKey], or package worker/inbox, which keeps that key
// in the handler's own database transaction.
//
// # How results survive
//
// Nothing of a worker is on disk, and its queue vanishes with its connection.
// So it keeps every result, and lists it in its heartbeats, until the
// orchestrator that owns the run's shard says that the result is durable. It
// sends results again when they came back, when the connection or the owner
// changed, when an owner says hello, and when nothing was heard for a while.
// Results are numbered by orchestrator; a watermark covers all results of that
// orchestrator up to a number. A result that goes to a new owner leaves a gap
// in the old one's numbers: Heartbeat.Floor says from which number on an
// orchestrator may still expect results.
package worker
