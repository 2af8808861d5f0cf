package protocol

import (
	"cmp"
	"strconv"
)

// DefaultNamespace is used by the functions of this package where the given
// namespace is empty.
const DefaultNamespace = "ringmaster"

// maxQueueWorker bounds the part of a queue's name that is the worker's, so
// that namespace, worker and the broker's own suffix stay below AMQP's 255
// bytes. The suffix keeps cut names apart.
const maxQueueWorker = 128

func name(ns, rest string) string { return cmp.Or(ns, DefaultNamespace) + "." + rest }

// WorkerQueue is the prefix of the exclusive queue of a worker incarnation.
// The queue's actual name, made anew by the broker for every connection, is
// what the worker's heartbeats say.
func WorkerQueue(ns, worker string) string {
	return name(ns, "worker."+cut(worker, maxQueueWorker))
}

// ResultsExchange is the direct exchange that workers publish results to,
// with the key of the result's shard (see [ShardKey]).
func ResultsExchange(ns string) string { return name(ns, "results") }

// ResultsQueue is the prefix of the exclusive queue on which an orchestrator
// incarnation gets the results of its shards.
func ResultsQueue(ns, orchestrator string) string {
	return name(ns, "results."+cut(orchestrator, maxQueueWorker))
}

// ShardKey is the routing key of a shard on the results exchange.
func ShardKey(shard uint32) string { return "shard." + strconv.FormatUint(uint64(shard), 10) }

// HeartbeatsExchange is the fanout exchange of workers' heartbeats.
func HeartbeatsExchange(ns string) string { return name(ns, "heartbeats") }

// AnnouncementsExchange is the fanout exchange of orchestrators' announcements.
func AnnouncementsExchange(ns string) string { return name(ns, "announcements") }

// RequestsQueue is the shared, durable queue of requests.
func RequestsQueue(ns string) string { return name(ns, "requests") }

// DeadLettersQueue is the shared, durable queue of messages that could not be
// decoded.
func DeadLettersQueue(ns string) string { return name(ns, "deadletters") }
