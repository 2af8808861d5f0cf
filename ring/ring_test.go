package ring

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"

	"github.com/cespare/xxhash/v2"
	"pgregory.net/rapid"
)

func equalMembers(n int) []Member {
	ms := make([]Member, n)
	for i := range ms {
		ms[i] = Member{Name: fmt.Sprintf("payments-%d", i), Weight: OrdinaryWeight}
	}
	return ms
}

// must makes a ring of members that are in order.
func must(members []Member) *Ring {
	r, err := New(members)
	if err != nil {
		panic(err)
	}
	return r
}

func update(r *Ring, members []Member) *Ring {
	n, err := r.Update(members)
	if err != nil {
		panic(err)
	}
	return n
}

// dumb is a ring as one would explain it: every point in one list, looked
// through from the start.
type dumb struct {
	members []Member
	points  []dumbPoint
}

type dumbPoint struct {
	hash  uint64
	seat  string
	owner int
}

func newDumb(members []Member) *dumb {
	d := &dumb{members: members}
	for i, m := range members {
		seat := m.Name
		for _, o := range members {
			if o.Name == m.Name && o.ID < m.ID {
				seat = m.Name + "\x00" + m.ID
			}
		}
		n := int(math.Max(1, math.Round(float64(m.Weight)*PointsPerWeight/100)))
		for p := range n {
			key := seat + string([]byte{0, byte(p), byte(p >> 8), byte(p >> 16), byte(p >> 24)})
			d.points = append(d.points, dumbPoint{xxhash.Sum64String(key), seat, i})
		}
	}
	sort.Slice(d.points, func(i, j int) bool {
		a, b := d.points[i], d.points[j]
		if a.hash != b.hash {
			return a.hash < b.hash
		}
		return a.seat < b.seat
	})
	return d
}

// order is every member in the order of the ring from hash on.
func (d *dumb) order(hash uint64) (order []int) {
	from := 0
	for from < len(d.points) && d.points[from].hash < hash {
		from++
	}
	for i := range d.points {
		o := d.points[(from+i)%len(d.points)].owner
		if !slices.Contains(order, o) {
			order = append(order, o)
		}
	}
	return order
}

func (d *dumb) place(hash uint64, loads []int, epsilon float64) int {
	total, weights := 0, 0
	for i, l := range loads {
		total += l
		weights += d.members[i].Weight
	}
	for _, i := range d.order(hash) {
		mean := float64(total+1) * float64(d.members[i].Weight) / float64(weights)
		if loads[i] < max(1, int(math.Ceil((1+epsilon)*mean))) {
			return i
		}
	}
	return -1
}

var genMembers = rapid.Custom(func(t *rapid.T) []Member {
	type key struct{ name, id string }
	return rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) Member {
		return Member{
			Name:   rapid.StringMatching(`[a-d]{1,2}`).Draw(t, "name"),
			ID:     rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "id"),
			Weight: rapid.IntRange(1, 300).Draw(t, "weight"),
		}
	}), 0, 12, func(m Member) key { return key{m.Name, m.ID} }).Draw(t, "members")
})

func TestRingAgreesWithADumbOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := genMembers.Draw(t, "members")
		r, d := must(members), newDumb(members)
		hashes := rapid.SliceOfN(rapid.Uint64(), 8, 8).Draw(t, "hashes")
		hashes = append(hashes, 0, math.MaxUint64)
		for _, p := range d.points[:min(3, len(d.points))] {
			hashes = append(hashes, p.hash, p.hash+1, p.hash-1)
		}
		loads := rapid.SliceOfN(rapid.IntRange(0, 5), len(members), len(members)).Draw(t, "loads")
		epsilon := rapid.Float64Range(0.01, 2).Draw(t, "epsilon")
		total := 0
		for _, l := range loads {
			total += l
		}
		for _, h := range hashes {
			want := d.order(h)
			if got := slices.Collect(r.Successors(h)); !slices.Equal(got, want) {
				t.Fatalf("successors of %x: got %v, want %v", h, got, want)
			}
			owner := -1
			if len(want) > 0 {
				owner = want[0]
			}
			if got := r.Lookup(h); got != owner {
				t.Fatalf("lookup of %x: got %d, want %d", h, got, owner)
			}
			if got := r.Place(h, func(i int) int { return loads[i] }, total, epsilon); got != d.place(h, loads, epsilon) {
				t.Fatalf("place of %x under %v: got %d, want %d", h, loads, got, d.place(h, loads, epsilon))
			}
		}
	})
}

func TestRingDoesNotDependOnTheOrderOfMembers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := genMembers.Draw(t, "members")
		other := rapid.Permutation(members).Draw(t, "other order")
		a, b := must(members), must(other)
		for range 50 {
			h := rapid.Uint64().Draw(t, "hash")
			i, j := a.Lookup(h), b.Lookup(h)
			if (i < 0) != (j < 0) || i >= 0 && a.Member(i) != b.Member(j) {
				t.Fatalf("%x: %v and %v", h, i, j)
			}
			zero := func(int) int { return 0 }
			if i, j := a.Least(h, zero), b.Least(h, zero); i >= 0 && a.Member(i) != b.Member(j) {
				t.Fatalf("least of %x: %v and %v", h, a.Member(i), b.Member(j))
			}
		}
	})
}

func TestUpdateMakesWhatNewMakes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := must(nil)
		for range rapid.IntRange(1, 5).Draw(t, "changes") {
			members := genMembers.Draw(t, "members")
			r = update(r, members)
			if want := must(members); !reflect.DeepEqual(r, want) {
				t.Fatalf("an updated ring of %v differs from a new one", members)
			}
		}
	})
}

// The same on every machine and in every version of this package: if this
// fails, an upgrade would move keys.
func TestPlacesAreStable(t *testing.T) {
	r := must(equalMembers(10))
	var got []int
	for i := range 12 {
		got = append(got, r.LookupKey(fmt.Sprintf("order-%d", i)))
	}
	want := []int{5, 4, 5, 5, 1, 0, 5, 0, 0, 5, 6, 8}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Two names whose points coincide are not known, so they are made.
func TestCoincidingPointsGoToTheLowerSeat(t *testing.T) {
	for _, members := range [][]Member{{{Name: "a"}, {Name: "b"}}, {{Name: "b"}, {Name: "a"}}} {
		n, err := arrange(members)
		if err != nil {
			t.Fatal(err)
		}
		ps := []point{{hash: 9, owner: 0}, {hash: 9, owner: 1}, {hash: 1 << 63, owner: 0}, {hash: 1 << 63, owner: 1}}
		slices.SortFunc(ps, n.compare)
		whole := &Ring{members: n.members, seats: n.seats, bySeat: n.bySeat, rank: n.rank}
		whole.merge(&Ring{}, nil, ps)
		whole.index()
		for _, h := range []uint64{0, 9, 10, 1 << 63, 1<<63 + 1} {
			if m := whole.Member(whole.Lookup(h)); m.Name != "a" {
				t.Errorf("%x belongs to %s", h, m.Name)
			}
		}
		if s := whole.Shares(); s[whole.Index("a")] != 1 || s[whole.Index("b")] != 0 {
			t.Errorf("shares %v", s)
		}
	}
}

func TestMembersThatAreNotInOrderAreRefused(t *testing.T) {
	for _, c := range []struct {
		members []Member
		names   string
	}{
		{[]Member{{Name: "a", Weight: -1}}, "weight -1"},
		{[]Member{{Name: "a", Weight: MaxWeight + 1}}, "weight 1001"},
		{[]Member{{Name: "a"}, {Name: "b"}, {Name: "a"}}, `"a"`},
		{[]Member{{Name: "a", ID: "1"}, {Name: "a", ID: "2"}, {Name: "a", ID: "2"}}, `id "2"`},
		{[]Member{{Name: "a", ID: "1"}, {Name: "a", ID: "2"}, {Name: "a\x002"}}, "place of another"},
	} {
		if r, err := New(c.members); r != nil || !errors.Is(err, ErrMember) || !strings.Contains(err.Error(), c.names) {
			t.Errorf("%v: %v", c.members, err)
		}
	}
}

func TestAMemberThatComesBackGetsItsKeysBack(t *testing.T) {
	before := must([]Member{{Name: "a", ID: "1"}, {Name: "b", ID: "1"}})
	both := update(before, []Member{{Name: "a", ID: "1"}, {Name: "b", ID: "1"}, {Name: "b", ID: "2"}})
	after := update(both, []Member{{Name: "a", ID: "1"}, {Name: "b", ID: "2"}})
	for i := range 2000 {
		h := Hash(fmt.Sprint(i))
		if a, b := before.Member(before.Lookup(h)), after.Member(after.Lookup(h)); a.Name != b.Name {
			t.Fatalf("key %d moved from %v to %v", i, a, b)
		}
		if a, b := before.Lookup(h), both.Lookup(h); b != a && b != 2 {
			t.Fatalf("key %d moved between members that stayed", i)
		}
	}
	if i := both.Index("b"); i != 1 {
		t.Errorf("the place of b is at member %d", i)
	}
	if i := both.Index("c"); i != -1 {
		t.Errorf("the place of c is at member %d", i)
	}
}

func TestPointsFollowTheWeight(t *testing.T) {
	r := must([]Member{{Name: "a"}, {Name: "b", Weight: 1}, {Name: "c", Weight: MaxWeight}})
	if want := 256 + 3 + 2560; r.Points() != want || r.Len() != 3 || r.Member(0).Weight != OrdinaryWeight {
		t.Errorf("%d points of %d members, want %d", r.Points(), r.Len(), want)
	}
}

func TestAnEmptyRingHasNobody(t *testing.T) {
	var table Table
	load := func(int) int { return 0 }
	for _, r := range []*Ring{{}, must(nil), table.Load()} {
		if r.Lookup(7) != -1 || r.LookupKey("a") != -1 || r.Place(7, load, 0, 1) != -1 || r.Least(7, load) != -1 ||
			len(slices.Collect(r.Successors(7))) != 0 || len(r.Shares()) != 0 || r.Index("a") != -1 {
			t.Error("an empty ring named a member")
		}
	}
}

func TestReadersSeeWholeRingsWhileTheTableIsSwapped(t *testing.T) {
	var table Table
	rings := []*Ring{must(equalMembers(3)), must(equalMembers(50)), nil}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for h := uint64(1); ; h *= 3 {
				select {
				case <-stop:
					return
				default:
				}
				if r := table.Load(); r.Lookup(h) >= r.Len() {
					t.Error("a lookup went past the members")
				}
			}
		})
	}
	for i := range 3000 {
		table.Store(rings[i%len(rings)])
	}
	close(stop)
	wg.Wait()
}

func randomHashes(n int) []uint64 {
	rng := rand.New(rand.NewPCG(1, 2))
	hs := make([]uint64, n)
	for i := range hs {
		hs[i] = rng.Uint64()
	}
	return hs
}
