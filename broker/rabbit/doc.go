// Package rabbit is the port to RabbitMQ, on amqp091-go.
//
// A Conn is a succession of sessions. A session is a pair of connections to
// one node, one for publishing and one for consuming, so that a broker that
// stops reading publishes (a memory or disk alarm) still delivers and takes
// acknowledgements. The pair lives and dies together: when either connection
// is lost, the session is over, and a supervisor dials the next one, declares
// what was declared, subscribes again, and only then says that it is
// connected.
//
// Everything that belongs to a session (channels, deliveries, their
// acknowledgements, pending confirmations) is bound to its objects and ends
// with it. That is why an acknowledgement cannot reach a message of another
// connection: the delivery holds the channel it came from, and that channel is
// never reopened. The library's own recovery, which does reuse channels, stays
// off.
//
// Each Conn has the nodes of a cluster in an order of its own. The next session
// is with the first of them that answers and whose turn it is; after some
// minutes elsewhere a Conn goes back to the first of all. A session that gets
// stuck while it declares is given up for another node, for a node may wait for
// a peer that is cut off and not yet missed.
//
// Within a session the server may close a single channel (a publish to an
// exchange that does not exist) or cancel a consumer (its queue was deleted).
// Then that channel or subscription alone is made anew. So is a channel for
// confirmed publishes that refuses, or does not confirm: when the node dies that
// leads a quorum queue, channels elsewhere may not learn who leads it then.
package rabbit
