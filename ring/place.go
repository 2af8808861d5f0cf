package ring

import "math"

// Policy says how a step's tasks are placed. The words are those of a
// definition's placement.
type Policy string

// The policies. [Strict] is "ring": the same key always goes to the same
// worker. Bounded spills to the next worker past a bound; it is the default.
// LeastLoaded looks at loads alone, unless the owner has none. Under each, members
// get tasks in proportion to their weights.
const (
	Strict      Policy = "ring"
	Bounded     Policy = "bounded"
	LeastLoaded Policy = "least-loaded"
)

// DefaultEpsilon is how far above its fair share of the load a worker may be
// before keys spill to the next.
const DefaultEpsilon = 0.25

// Full is the load of a member that can take nothing more.
const Full = math.MaxInt

// Choose places a hash by a policy; an unknown or empty one is [Bounded].
// Strict gives the owner even if it is full: its tasks wait for it. See
// [Ring.Place] for the rest.
func (r *Ring) Choose(p Policy, hash uint64, load func(i int) int, total int, epsilon float64) int {
	switch p {
	case Strict:
		return r.Lookup(hash)
	case LeastLoaded:
		return r.Least(hash, load)
	default:
		return r.Place(hash, load, total, epsilon)
	}
}

// Place is consistent hashing with bounded loads (Mirrokni, Thorup and
// Zadimoghaddam): the first member in the order of the ring from hash on whose
// load is below its bound, [Bound] of its weight.
//
// load gives a member's load, 0 or more, or [Full]; total is the sum of all
// loads but full ones. An epsilon below 0, or not a number, is 0.
//
// No member is given a task that takes it past its bound, and as long as total
// is the sum of all loads there always is one below its bound. Where there is
// none (a total too low, or members that are full), Place returns what
// [Ring.Least] does: -1 only if all are full or there are none. A bound falls
// as tasks end elsewhere; a member may then be above it for as long as its own
// tasks run, and is given none.
//
// It takes O(1) while the owner is below its bound; each member passed over
// adds a few points to look at. It does not allocate for rings of up to 1,024
// members.
func (r *Ring) Place(hash uint64, load func(i int) int, total int, epsilon float64) int {
	if i := r.Lookup(hash); i < 0 || load(i) < r.Bound(i, total, epsilon) {
		return i
	}
	for i := range r.Successors(hash) {
		if load(i) < r.Bound(i, total, epsilon) {
			return i
		}
	}
	return r.Least(hash, load)
}

// Bound is the load that member i may reach when total tasks are placed and
// one more comes: ceil((1+epsilon) * (total+1) * weight/weights), at least 1.
func (r *Ring) Bound(i, total int, epsilon float64) int {
	if !(epsilon > 0) { // also NaN
		epsilon = 0
	}
	share := (float64(total) + 1) * float64(r.members[i].Weight) / float64(r.weights)
	bound := math.Ceil((1 + epsilon) * share)
	if bound >= Full {
		return Full
	}
	return max(1, int(bound))
}

// Least returns the owner of hash if it has no load, so that an idle service
// sends to its members by their weights; else the member that would have the
// lowest load for its weight with one task more; -1 if all are full. Among equals,
// hash decides. It is O(n) unless the owner is idle, and does not allocate.
func (r *Ring) Least(hash uint64, load func(i int) int) int {
	n := len(r.bySeat)
	if n == 0 {
		return -1
	}
	if i := r.Lookup(hash); load(i) == 0 {
		return i
	}
	best, bestLoad, bestWeight := -1, 0.0, 0.0
	at := int(hash % uint64(n))
	for range n {
		i := int(r.bySeat[at])
		if at++; at == n {
			at = 0
		}
		l := load(i)
		if l == Full {
			continue
		}
		after, w := float64(l)+1, float64(r.members[i].Weight)
		if best < 0 || after*bestWeight < bestLoad*w {
			best, bestLoad, bestWeight = i, after, w
		}
	}
	return best
}
