// Package zookeeper keeps leases in ZooKeeper.
//
// A lock session is a session of ZooKeeper's, on a connection of its own. The
// lease of a name belongs to the ephemeral sequential node with the lowest number
// below the node of that name; who waits has a higher one and watches the node
// before its own, so that the end of a lease wakes one and not all. All its nodes
// vanish with the session.
//
// # Promises
//
// What ZooKeeper has granted is agreed on by a majority of its servers and written
// to their disks: exclusion and tokens outlive the failure of any minority, as
// long as forceSync is left on. The token is the transaction (zxid) in which the
// holder's node was created; transactions only grow, over all nodes. Those who
// wait get the lease in the order of their nodes. A TryLock makes a node and
// removes it if it is not the first; for that moment another TryLock may find a
// lease held that is about to be free.
//
// Sessions run by the monotonic clock of the leading server, in ticks, and a new
// leader gives every session its full time again. The servers bound the TTL
// (minSessionTimeout, two ticks or four seconds by default; maxSessionTimeout,
// twenty ticks). A shorter TTL is rounded up by them, so that others wait longer,
// and kept as it is by the session, so that the holder gives up earlier; a longer
// one than they grant is refused.
//
// The end of a session is seen when the servers say so, which they do as soon as
// a connection is there, and by the session's own deadline without one. A node
// that an operator deletes is a lost lease at once.
//
// The nodes of names are containers, which ZooKeeper (3.6 or newer) removes some
// time after they are empty.
package zookeeper
