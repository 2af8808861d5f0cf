// Package engine is the shell around the pure core (engine/machine): it makes
// the core's events durable, then does what the core's commands ask for.
//
// Data flows in one circle:
//
//	start, result, timer, operator
//	      -> shard      one goroutine per shard; folds inputs into runs
//	      -> committer  one goroutine; one transaction for all shards' parts
//	      -> effects    after the commit: replies, watermarks, dispatch
//	      -> dispatcher rings, credit, queues of waiting tasks, leases
//	      -> sender     many tasks for one worker in one message
//	      -> worker ... -> result
//
// A shard may decide on a run again before an earlier decision is durable; the
// committer keeps order, so nothing is lost by that, and no effect leaves
// before the commit that it belongs to. A commit that fails ends the engine
// (see [Engine.Done]): what is on disk is then unknown, and only a restart that
// folds the histories again is safe.
//
// Memory holds a bounded cache of runs. A run that is not in it is folded again
// from its history when something happens to it.
package engine
