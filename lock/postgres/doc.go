// Package postgres keeps leases in PostgreSQL.
//
// A session is a row with the time at which it expires, by the clock of the
// database and nobody else's; one statement renews it and with it every lease
// that it holds. A lease whose session has expired is taken by whoever asks
// next. The connection means nothing: a session outlives any number of broken
// ones, and a restart of the server, as long as a renewal gets through in time.
//
// # Exclusion
//
// Taking and releasing a lease happens under an advisory lock on its name, and
// whoever finds a session expired removes it before taking what it held, under
// the lock of its row. So a renewal comes either before, and is seen, or after,
// and finds no session: two sessions never hold a lease at the same time, by the
// clock of the database. Commits are synchronous even where the server's default
// is otherwise (synchronous_commit = off). What a failover to a standby forgets
// that did not have it yet is forgotten here as well: use synchronous
// replication, or rely on the resource's own check of tokens and on the tokens
// alone being kept.
//
// # Tokens
//
// All leases take their tokens from one sequence, which only grows; so nothing
// has to be remembered for a name that nobody holds, and what the schema keeps
// is bounded by the sessions that live and their leases and waiters. Rows of
// sessions that nobody closed are removed, some at a time, when others are
// opened.
//
// # Waiters
//
// Those who wait stand in a table in the order in which they asked, and TryLock
// does not pass them. The next one is woken by NOTIFY, for which a provider keeps
// one connection apart from the pool. Where a note cannot come (the holder died,
// the connection is broken), a waiter asks again when the session expires that
// is in its way. Connection poolers that do not pass LISTEN on (PgBouncer in
// transaction mode) leave only the second way; the order stays.
package postgres
