// Package etcd keeps leases in etcd.
//
// A lock session is a lease of etcd's, and the lease of a name is the oldest key
// below that name; who waits has a younger one there. All keys are bound to
// etcd's lease and vanish with it. The layout of the keys is that of the Mutex in
// etcd's package concurrency, which therefore takes part in the same exclusion;
// it is not used itself, because its TryLock leaves others a moment in which a
// free lease looks held, because it cleans up without a deadline, and because its
// Session reckons its own end from the answer to a renewal instead of from its
// question, after which the servers may be quicker.
//
// # Promises
//
// What etcd has granted is agreed on by a majority of its members and written to
// their disks: exclusion and tokens outlive the failure of any minority. The
// token is the revision at which the holder's key was created. Revisions only
// grow, over all keys; they go back when a cluster is restored from an older
// snapshot. Those who wait get the lease in the order in which they came, since
// each waits for the key before its own to go.
//
// etcd's leases run by the monotonic clock of its leader. A new leader gives every
// lease its full time again. They last whole seconds, and at least about one and
// a half election timeouts (two seconds by default): a shorter TTL is rounded up
// by the servers, so that others wait longer, and kept as it is by the session,
// so that the holder gives up earlier.
//
// A session learns at once that it was revoked or has expired. A single key that
// somebody deletes by hand is not noticed by its holder: revoke the lease.
package etcd
