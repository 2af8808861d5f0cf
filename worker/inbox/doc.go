// Package inbox makes the effect of a handler happen once, in the handler's
// own database.
//
// Tasks are delivered at least once. A handler registered with [Handle] runs in
// a transaction that also writes a row under the task's key, so that both are
// there or neither:
//
//   - A duplicate, also one that arrives while the first still runs, does not
//     run the handler; it answers the stored result.
//   - A failure rolls back and leaves no row. It is reported as failed without
//     effect even where the handler ran out of time or panicked, unless the
//     handler itself returns a [worker.Unknown].
//   - A compensation whose action has left no row is a null compensation: it
//     does nothing, succeeds, and writes the action's row as blocked, so that
//     the action, should it arrive later, fails finally with code "suspended".
//     The same holds for an abort and its prepare. The compensation of a child
//     run had no action here, and always runs.
//   - A participant's [worker.ErrReadOnly] is stored too: its prepare, delivered
//     again, votes the same, and its abort does nothing.
//   - A task whose fencing token (of a named lock, or of a serial workflow's key)
//     is lower than the highest that was seen of its name fails finally with code
//     "stale_token", without effect: another holds the lock now. Until a
//     handler's transaction ends, no task with a higher token gets past it.
//   - Where a commit's answer is lost, the row is looked up again; the answer is
//     an unknown outcome only if that fails too.
//
// The row's key is run/step/phase; its generation is a column. Of two
// generations of a task (an operator retried with other input) the one that
// took effect stays: an older one that comes late fails finally with code
// "superseded".
//
// The databases are SQLite, PostgreSQL, MariaDB and MySQL: see [Dialect].
// For handlers whose state is in Redis there is [Redis], whose effects are Lua
// scripts.
//
// Effects outside of the transaction (a call to another system, a message) are
// not covered: give them the idempotency key of [worker.TaskFrom].
//
// Rows have to stay for as long as a duplicate can arrive, and an action's row
// for as long as its compensation may still come. See [Inbox.Cleanup].
package inbox
