// Package spread makes one [store.Store] of several, so that shards lie in more
// databases than one. It can, because no commit is about two shards: the parts of
// one are written side by side, each in the database of its shard.
//
// # Where a shard is
//
// The first store is the home: it keeps notes, the definitions that count, and a
// note of each shard that is elsewhere. A shard that nobody has ever acquired goes to the
// database whose turn it is by its number; one that was there before there were
// several stays where it is, until [Store.Move] moves it. Workflows are written to every
// store.
//
// # Moving a shard
//
// Move notes that the shard is on its way, acquires it where it is, so that its owner
// can commit nothing more, copies all of its rows, notes that it is in the other store, and
// removes what was copied. It can end anywhere and be begun again: until it is noted
// that the shard is elsewhere nothing has changed but that copies lie about, and they are
// removed by the next try. Meanwhile nobody acquires the shard: [ErrMoving]. An
// acquisition counts only if the note is the same after it as before, and so nobody
// commits where the shard no longer is.
//
// # Reading
//
// Lists are merged, newest first, and rows of a shard count only where the shard
// is. Counts are those of all stores added up; while a shard is moved its runs may count twice.
// Runs are found by their ids where those belong ([store.ShardOf]).
package spread
