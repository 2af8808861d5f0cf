// Package sqlite keeps durable state in one SQLite file: the store of a single
// daemon.
//
// One process has the file open, guarded by an operating-system lock on a file
// next to it (the database's path with ".lock" appended). All writes go
// through one connection, in write-ahead-log mode with synchronous=FULL, so a
// commit that has returned survives a power cut. Reads go through a small pool
// of read-only connections and never wait for writes.
//
// # Commits
//
// A commit is one transaction with one fsync, whatever the number of parts. It
// is optimistic: rows are inserted with statements of many rows each, which
// roll the whole transaction back on a conflict; only then is the transaction
// done again, slowly, with every part checked first, so that the parts in
// conflict are left out and the others written. When a transaction fails in
// any other way, what is on disk is unknown and the store refuses to write
// from then on: the process must end and start again from what is there.
//
// # The write-ahead log
//
// Checkpoints run beside commits, on a connection of their own. When the log
// has grown past a threshold, its bulk is copied into the database while
// commits go on; the short rest is copied between two commits, so that the
// next one starts the log from its beginning. The log therefore stays at a few
// times the threshold, and no commit waits for the copying of a full log.
package sqlite
