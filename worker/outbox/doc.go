// Package outbox lets a message leave exactly when a local transaction commits.
//
// An application that changes its own database and then asks for a run can
// crash in between: then there is an order without a run, or a run without an
// order. [Outbox.Start], [Outbox.Signal] and [Outbox.Cancel] write the request as a row in the
// application's own transaction instead, so that the business row and the
// request exist both or neither. A [Relay] takes the rows from there to the
// orchestrators' requests queue, and removes them when the broker has
// confirmed that it keeps them.
//
// # What is guaranteed
//
//   - A row of a committed transaction is delivered at least once; one that was
//     rolled back never. A repetition does no harm: a start's id is its
//     idempotency key, and a cancel changes nothing the second time.
//   - Requests under the same key, which is the run's id, are delivered in the
//     order of their rows: a cancel does not overtake its start. Of two
//     transactions that overlap in time either may come first. A repetition,
//     after a crash, may come after later ones.
//   - Any number of relays may run on one table. One of them leads, by a lease
//     in the same database whose time is that database's clock; when it stops
//     or dies, another takes over.
//   - A row that can never be sent is set aside with its reason, and holds
//     nothing up: see [Outbox.SetAside].
//
// What an orchestrator refuses (an unknown workflow, the same id with another
// input) it keeps among its dead letters; the outbox knows nothing of it.
//
// The databases are SQLite, PostgreSQL, MariaDB and MySQL: see [Dialect].
//
// A relay looks for rows whenever [Outbox.Notify] is called in its process, as
// [Outbox.Do] does after each commit, and otherwise once per poll interval.
// While the broker is away the rows wait in the table.
//
// An application that cannot have a relay can be asked instead whether its
// transaction has committed: see [Marks].
package outbox
