// Package lock is the port to leases with fencing tokens.
//
// A [Provider] opens sessions. A [Session] is alive as long as its provider
// hears of it: it renews itself in the background, well before its time to live
// is over. What it holds are leases: at most one session holds the lease of a
// name at a time, as the provider counts time.
//
// No lock over a network excludes everybody: a process may be paused for longer
// than its lease, wake up, and go on as if nothing had happened. So each lease
// carries a fencing token, a number higher than that of every holder of the name
// before. Whatever the lock protects must remember the highest token it has seen
// and refuse a lower one; a lease alone only makes overlap rare. (The argument
// is Martin Kleppmann's, "How to do distributed locking", 2016; the word fencing
// token is from there too.)
//
// Implementations are in lock/postgres, lock/redis, lock/zookeeper and
// lock/etcd; lock/locktest is the suite that all pass.
package lock
