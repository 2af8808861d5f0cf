// Package memory is a message broker inside the process: exchanges, exclusive
// and shared queues, mandatory returns, redelivery. It is what an embedded
// engine and the development daemon use, with nothing to install.
//
// It keeps nothing: shared queues live as long as the Broker, and their
// messages are gone with the process. Programs lose no runs by that, since
// truth lives in the store; they may lose requests that were accepted but not
// yet read.
//
// Queues are bounded. A publish to a full queue waits for room, for at most
// broker.WriteDeadline, which is how a slow consumer slows its publishers
// down. A Handler that publishes must therefore not be the only one that can
// make room in the queue it publishes to.
package memory
