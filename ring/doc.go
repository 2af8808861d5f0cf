// Package ring is the consistent-hash ring that places tasks on workers.
//
// Every member owns [PointsPerWeight] points ("virtual nodes") per 100 of its
// weight, spread over the numbers of 64 bits by xxhash64 of its name. A key
// belongs to the member of the first point at or after the key's own hash,
// around the end to the beginning. When a member joins or leaves, only keys
// that it takes or gives up move, and every other key stays where it was.
//
// A [Ring] never changes; a change of membership makes a new one ([New], or
// [Ring.Update], which reuses what stayed), which a [Table] hands to readers
// without a lock. What a ring says depends on the members' names and weights
// alone, not on their order, the process or the time, so that orchestrators
// agree without talking.
//
// # What it costs and what it gives
//
// The figures below are computed by the tests, which fail if they no longer
// hold. Time is of one core.
//
//   - [Ring.Lookup] reads one entry of a table by the hash's top bits and
//     bisects the points of its bucket, one on average: O(1), about 4 to 15 ns
//     from 10 to 1,000 members (and 15 ns for hashing a key), without allocation.
//   - Spread: a member's share of the keys has a standard deviation of about
//     1/sqrt(points) of its fair share. With 256 points that is 6 to 7 %, and
//     the largest of 1,000 equal members has 1.21 times its fair share. 128
//     points would give 9 % and 1.30, 512 points 4.3 % and 1.12 at twice the
//     memory; bounded loads take off the rest, which is why it is not more.
//   - Movement: a member that joins n others takes about 1/(n+1) of the keys,
//     and not one key moves between two others. The same holds for leaving and
//     for a change of weight, by its difference.
//   - Bounded loads ([Ring.Place]): no member gets past
//     ceil((1+epsilon) * (total+1) * weight/weights) tasks, whatever the keys,
//     so that a hot key cannot drown one worker; a key stays with its owner
//     while the owner is below that.
//   - Memory is 16 to 20 bytes a point: 4 MiB for 1,000 members of ordinary
//     weight. Building such a ring anew takes about 40 ms, an update for one
//     member 4 ms.
package ring
