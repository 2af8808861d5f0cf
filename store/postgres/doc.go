// Package postgres keeps durable state in a schema of a PostgreSQL database: the
// store of any number of orchestrators, each of which writes the shards that it
// has acquired.
//
// # Commits
//
// A commit is one transaction and one round trip, whatever the number of parts:
// its statements, prepared once for each connection, take whole columns as
// arrays and are sent together. The first of them compares the epochs of all
// parts with the rows of their shards and holds those rows shared until the
// end, so that whoever acquires a shard waits for the commits under its old
// epoch, and no commit under that follows. A commit is optimistic: where an epoch, an id
// or a number is not as it should be, a statement fails and takes the
// whole with it. Only then is the transaction done again, slowly, with every part
// looked at first, so that the parts in conflict are left out and the others
// written.
//
// # A commit whose answer is lost
//
// Commits go through one connection, and each writes its number into the row
// that this store has in the table of writers. When the connection is lost, the
// next one first ends what is left of the one before and raises the generation
// in that row, which all that was sent before is compared with: from
// then on the commit in doubt has either been written, and its number tells so, or
// it never can be, and is sent again. So a commit is written once, whatever
// happens to connection or server, and Commit goes on trying for
// Config.Patience before it gives up; only after that is unknown what is
// in the database, and the store refuses to write from then on.
//
// # Durability
//
// A store refuses to open where synchronous_commit is off, which would lose
// commits at a crash of the server that had been reported as durable.
//
// # Reads
//
// Reads go through a pool of their own and do not wait for commits. Every list is
// read in its order from an index, whatever the number of runs that have ended.
package postgres
