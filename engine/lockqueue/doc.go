// Package lockqueue is the queue of one named lock, as a pure value: who holds
// it, who waits, and who is next. There is no goroutine, clock or I/O here; the
// shell (package engine) keeps a queue in the shard of the lock's name, makes
// every change durable, and only then tells anybody about it.
//
// A lock is held by one run exclusively, or by several that share it. Who asks
// first is served first: a run that would share waits behind one that wants the
// lock for itself, so that nobody waits for ever. Those who share and stand next
// to each other in the queue get the lock together.
//
// Asking and releasing are idempotent by the run's number: whoever asks is told
// how things stand, and may ask again until it is answered.
//
// # Tokens
//
// Whenever a lock passes on it gets a token higher than any before, from the
// caller. Runs that share it at the same time have the same token, since either
// may still act while the other does. A resource that refuses a lower token than
// the highest it has seen is safe from a holder that was thought to be gone.
package lockqueue
