// Package redis keeps leases in Redis: on one node, or on the majority of several
// independent ones (the algorithm known as Redlock, with fencing tokens).
//
// A session is a member of a sorted set with the time at which it expires, by the
// clock of the node; one command renews it and with it every lease that it holds.
// Everything that must be decided at one moment is a script.
//
// # One node
//
// The lease excludes as long as the node keeps its data: with appendonly yes and
// appendfsync always, what was granted outlives a crash. With appendfsync
// everysec, the default of appendonly, a crash forgets up to the last second:
// leases may be granted twice, and tokens may repeat. A failover to a replica
// (Sentinel) forgets what had not arrived there yet, since replication is
// asynchronous. An eviction policy other than noeviction may drop leases. Those
// who wait get the lease in order, and TryLock does not pass them.
//
// # Several nodes
//
// A lease is held when more than half of the nodes have granted it, and a session
// lives as long as each of its leases is renewed by more than half. Any minority
// may be down. The nodes must be independent masters, not replicas of each other.
// What holds then, and what does not:
//
//   - While no node loses data, two sessions never hold a lease at the same time,
//     give or take the drift of clocks: each node counts the time by its own.
//   - While no node loses data, tokens grow, whatever the clocks do: the token is
//     the highest that a majority proposes, and is held only after a majority that
//     still granted the lease has written it back. Any later majority has one of
//     those nodes among it.
//   - A node that comes back without its data takes its vote back. If that makes a
//     majority with those that had not granted, a second session gets the lease
//     while the first holds it, and its token may be lower. Use appendfsync
//     always, or let a node stay away for longer than every TTL after a crash
//     (which saves exclusion, but not tokens: a node without data counts from
//     zero). The tokens of a deployment that lost a majority's data start anew.
//   - There is no order among those who wait, and several who ask at once may all
//     be refused for a moment.
//
// The debate about it is worth reading before it is chosen: Martin Kleppmann, "How
// to do distributed locking", and Salvatore Sanfilippo's answer, "Is Redlock
// safe?", both of 2016. Where correctness rests on the lock alone, take etcd,
// ZooKeeper or PostgreSQL; with a resource that checks tokens, and a node that
// keeps its data, Redis is enough.
//
// # Clocks
//
// Redis expires by its wall clock. A clock of a node that jumps ahead ends
// sessions early there; the session notices at its next renewal, a third of the
// TTL later at most. One that jumps back keeps the leases of dead sessions for
// longer.
//
// All keys carry the same hash tag. A server in cluster mode is reached by
// a client of one's own; scripts name their keys by the prefix only.
package redis
