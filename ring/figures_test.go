package ring

import (
	"fmt"
	"math"
	"testing"
)

// The figures of the package comment. All hashing is deterministic, so that
// they are the same on every run.

// spread returns the standard deviation of the shares relative to the fair
// share, and the largest relative share.
func spread(r *Ring) (deviation, largest float64) {
	for i, s := range r.Shares() {
		rel := s * float64(r.weights) / float64(r.Member(i).Weight)
		deviation += (rel - 1) * (rel - 1)
		largest = math.Max(largest, rel)
	}
	return math.Sqrt(deviation / float64(r.Len())), largest
}

func TestSharesDeviateByTheRootOfThePoints(t *testing.T) {
	for _, n := range []int{10, 100, 1000} {
		for _, points := range []int{64, 128, 256, 512} {
			// The weight stands in for another number of points per member.
			members := equalMembers(n)
			for i := range members {
				members[i].Weight = OrdinaryWeight * points / PointsPerWeight
			}
			deviation, largest := spread(must(members))
			t.Logf("%4d members of %3d points: standard deviation %.1f %%, largest %.2f of its fair share",
				n, points, 100*deviation, largest)
			if ideal := 1 / math.Sqrt(float64(points)); deviation > 1.5*ideal {
				t.Errorf("deviation %.3f, more than 1.5 times %.3f", deviation, ideal)
			}
			if points == PointsPerWeight && (deviation > 0.08 || largest > 1.30) {
				t.Errorf("as the ring is made: deviation %.3f, largest %.2f", deviation, largest)
			}
		}
	}
}

func TestSharesFollowWeightsAndAddUpToOne(t *testing.T) {
	members := equalMembers(20)
	for i := range members {
		members[i].Weight = 50 * (1 + i%4)
	}
	r := must(members)
	deviation, largest := spread(r)
	t.Logf("weights 50 to 200: standard deviation %.1f %%, largest %.2f of its fair share", 100*deviation, largest)
	if deviation > 0.12 || largest > 1.3 {
		t.Errorf("deviation %.3f, largest %.2f", deviation, largest)
	}
	sum, counted := 0.0, make([]float64, len(members))
	for _, s := range r.Shares() {
		sum += s
	}
	const keys = 200_000
	for i := range keys {
		counted[r.LookupKey(fmt.Sprintf("order-%d", i))] += 1.0 / keys
	}
	for i, s := range r.Shares() {
		if math.Abs(s-counted[i]) > 0.004 {
			t.Errorf("member %d has %.4f of the hashes and %.4f of the keys", i, s, counted[i])
		}
	}
	if math.Abs(sum-1) > 1e-9 {
		t.Errorf("the shares add up to %v", sum)
	}
	if s := must(equalMembers(1)).Shares(); math.Abs(s[0]-1) > 1e-9 {
		t.Errorf("a member alone has %v", s)
	}
}

func TestAJoinOrLeaveMovesOnlyTheFairShare(t *testing.T) {
	hashes := randomHashes(100_000)
	for _, n := range []int{3, 10, 100, 1000} {
		large := must(equalMembers(n + 1))
		small := update(large, equalMembers(n))
		moved := 0
		for _, h := range hashes {
			a, b := small.Lookup(h), large.Lookup(h)
			if a == b {
				continue
			}
			moved++
			if b != n { // in both directions: joining and leaving
				t.Fatalf("a key moved between members %d and %d, which stayed", a, b)
			}
		}
		got, ideal := float64(moved)/float64(len(hashes)), 1/float64(n+1)
		t.Logf("%4d members and one: moved %.3f %% of the keys, ideal %.3f %%", n, 100*got, 100*ideal)
		if got > 1.3*ideal+0.0005 || got < 0.7*ideal-0.0005 {
			t.Errorf("%d members: moved %.4f, ideal %.4f", n, got, ideal)
		}
	}
}

func TestAChangeOfWeightMovesOnlyItsDifference(t *testing.T) {
	members := equalMembers(10)
	before := must(members)
	members[4].Weight = 150
	after := update(before, members)
	moved := 0
	hashes := randomHashes(50_000)
	for _, h := range hashes {
		if a, b := before.Lookup(h), after.Lookup(h); a != b {
			moved++
			if b != 4 {
				t.Fatalf("a key moved from %d to %d, not to the one that grew", a, b)
			}
		}
	}
	got, ideal := float64(moved)/float64(len(hashes)), 150.0/1050-100.0/1000
	t.Logf("weight 100 to 150 of ten: moved %.2f %%, ideal %.2f %%", 100*got, 100*ideal)
	if got > 1.5*ideal {
		t.Errorf("moved %.4f, ideal %.4f", got, ideal)
	}
}

func TestABucketHoldsAPointOrTwo(t *testing.T) {
	r := must(equalMembers(1000))
	looked, most := 0, 0
	hashes := randomHashes(100_000)
	for _, h := range hashes {
		b := h >> r.shift
		n := int(r.first[b+1] - r.first[b])
		looked += n
		most = max(most, n)
	}
	mean := float64(looked) / float64(len(hashes))
	bytes := float64(12*r.Points()+4*len(r.first)) / float64(r.Points())
	t.Logf("points in a hash's bucket: %.2f on average, %d at most; %.1f bytes a point", mean, most, bytes)
	if mean > 1.1 || most > 16 || bytes > 20 {
		t.Errorf("mean %.2f, most %d, %.1f bytes a point", mean, most, bytes)
	}
}

// hotKeys gives many tasks few keys, the first of which are very hot.
func hotKeys(tasks int) []uint64 {
	hashes := randomHashes(tasks)
	for i, h := range hashes {
		key := uint64(math.Pow(1000, float64(h>>11)/(1<<53))) // density 1/key
		hashes[i] = Hash(fmt.Sprintf("customer-%d", key))
	}
	return hashes
}

func TestBoundedLoadsHoldForHotKeysAndUnequalWeights(t *testing.T) {
	for _, epsilon := range []float64{0.1, DefaultEpsilon, 1} {
		members := equalMembers(20)
		for i := range members {
			members[i].Weight = 50 * (1 + i%4)
		}
		r := must(members)
		loads := make([]int, r.Len())
		strict := make([]int, r.Len())
		total, stayed := 0, 0
		worst, worstStrict := 0.0, 0.0
		for _, h := range hotKeys(20_000) {
			i := r.Place(h, func(i int) int { return loads[i] }, total, epsilon)
			if loads[i] >= r.Bound(i, total, epsilon) {
				t.Fatalf("member %d was given a task at its bound %d", i, loads[i])
			}
			loads[i]++
			strict[r.Lookup(h)]++
			total++
			if i == r.Lookup(h) {
				stayed++
			}
		}
		for i, l := range loads {
			mean := float64(total) * float64(r.Member(i).Weight) / float64(r.weights)
			if l > int(math.Ceil((1+epsilon)*mean)) {
				t.Errorf("epsilon %.2f: member %d holds %d, more than its bound", epsilon, i, l)
			}
			worst = math.Max(worst, float64(l)/mean)
			worstStrict = math.Max(worstStrict, float64(strict[i])/mean)
		}
		t.Logf("epsilon %.2f: fullest member %.2f of its fair load (strict: %.2f); %.0f %% of tasks stayed with the owner",
			epsilon, worst, worstStrict, 100*float64(stayed)/float64(total))
	}
}

// With tasks ending as others begin, in proportion to what there is.
func TestBoundedLoadsHoldWhileTasksEnd(t *testing.T) {
	r := must(equalMembers(50))
	loads := make([]int, r.Len())
	var at []int // where each task that runs is
	hashes := randomHashes(40_000)
	spilled := 0
	for n, h := range hashes {
		i := r.Place(h, func(i int) int { return loads[i] }, len(at), DefaultEpsilon)
		if loads[i] >= r.Bound(i, len(at), DefaultEpsilon) {
			t.Fatalf("task %d: member %d was at its bound", n, i)
		}
		if i != r.Lookup(h) {
			spilled++
		}
		loads[i]++
		at = append(at, i)
		if len(at) > 2000 {
			k := int(h % uint64(len(at)))
			loads[at[k]]--
			at[k] = at[len(at)-1]
			at = at[:len(at)-1]
		}
	}
	part := float64(spilled) / float64(len(hashes))
	t.Logf("50 equal members, 40 tasks each, even keys: %.1f %% of tasks spilled", 100*part)
	if part > 0.15 {
		t.Errorf("%.3f of the tasks spilled", part)
	}
}

func TestFullMembersArePassedOver(t *testing.T) {
	r := must(equalMembers(3))
	loads := []int{Full, Full, 9}
	load := func(i int) int { return loads[i] }
	for _, h := range randomHashes(100) {
		if i := r.Place(h, load, 9, DefaultEpsilon); i != 2 {
			t.Fatalf("placed on %d", i)
		}
		if i := r.Choose(LeastLoaded, h, load, 9, 0); i != 2 {
			t.Fatalf("least loaded: %d", i)
		}
		if i := r.Choose(Strict, h, load, 9, 0); i != r.Lookup(h) {
			t.Fatalf("strict: %d", i)
		}
	}
	loads[2] = Full
	if i := r.Place(1, load, 0, DefaultEpsilon); i != -1 {
		t.Errorf("all full: placed on %d", i)
	}
}

func TestBoundsAreSaneForOddNumbers(t *testing.T) {
	r := must(equalMembers(4))
	for _, c := range []struct {
		total   int
		epsilon float64
		want    int
	}{
		{0, 0, 1}, {0, -3, 1}, {0, math.NaN(), 1}, {7, 0, 2}, {7, 0.25, 3}, {8, 0.25, 3}, {399, 0.25, 125},
		{1, math.Inf(1), Full}, {math.MaxInt, 10, Full},
	} {
		if got := r.Bound(1, c.total, c.epsilon); got != c.want {
			t.Errorf("bound of %d tasks, epsilon %v: %d, want %d", c.total, c.epsilon, got, c.want)
		}
	}
}

func TestLeastLoadedEvensOutByWeight(t *testing.T) {
	members := []Member{{Name: "a", Weight: 100}, {Name: "b", Weight: 300}, {Name: "c", Weight: 200}}
	r := must(members)
	loads := make([]int, 3)
	for _, h := range randomHashes(600) {
		loads[r.Choose(LeastLoaded, h, func(i int) int { return loads[i] }, 0, 0)]++
	}
	if loads[0] != 100 || loads[1] != 300 || loads[2] != 200 {
		t.Errorf("loads %v", loads)
	}
	first := make(map[int]int)
	idle := must(equalMembers(3))
	for _, h := range randomHashes(300) {
		first[idle.Least(h, func(int) int { return 0 })]++
	}
	if len(first) != 3 {
		t.Errorf("an idle service sends its tasks to %v", first)
	}
}
