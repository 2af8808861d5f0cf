// Package protocol says what travels between the orchestrator and its workers,
// and how it is laid out in AMQP messages.
//
// A [Task] is one attempt of one phase of one step of a run. A [Result] is the
// worker's answer to it. A [Heartbeat] is what a worker tells every
// orchestrator about itself, an [Announcement] what an orchestrator tells every
// worker. A [Control] is an order to one worker, and a [Request] is a start, a
// cancel or a registration that a client sends through the broker.
//
// A task's body is the user's payload and nothing else; everything the engine
// adds is in properties and headers, so that a worker in any language can take
// part. Workers that announce [CapabilityBatch] are sent many tasks in one
// message and answer many in one; see [EncodeTasks] for that form.
//
// docs/protocol.md is the specification for authors of workers in other
// languages; tests hold it to this code. Encoders trust their caller, apart
// from texts for people, which they cut. Decoders trust nobody: they check
// every field, name the one at fault, and wrap [ErrMalformed].
package protocol
