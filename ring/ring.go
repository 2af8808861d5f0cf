package ring

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math/bits"
	"slices"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

const (
	// PointsPerWeight is how many points a member has per 100 of weight.
	PointsPerWeight = 256
	// OrdinaryWeight is the weight of a member like any other.
	OrdinaryWeight = 100
	// MaxWeight is the largest weight: ten times the ordinary one.
	MaxWeight = 1_000
)

// Member is one worker as the ring sees it.
type Member struct {
	// Name decides where the member's points are. It should outlive restarts,
	// so that a worker that comes back gets its keys back.
	Name string
	// ID tells members of the same name apart: the lowest has the place of the
	// name, and the others have places of their own, made of name and ID, until
	// they are alone. It may be empty where names are unique.
	ID string
	// Weight is the member's part relative to the others', 1 to [MaxWeight];
	// what is outside is moved to the nearer end. Zero is [OrdinaryWeight].
	Weight int
}

// ErrMember is wrapped by the errors of [New] and [Ring.Update].
var ErrMember = errors.New("invalid ring member")

// Ring is an immutable ring. Members are named by their index in the slice
// that the ring was made from. The zero value is a ring without members. It is
// safe for concurrent use; its methods do not allocate except where they say.
type Ring struct {
	members []Member
	seats   []string // by index: what a member's points are made of: its name, or name and ID
	bySeat  []int32  // indexes of members in the order of their seats
	rank    []int32  // the reverse: position in bySeat by index
	weights int      // sum of all

	// The points in ascending order, and whose they are. Where points of two
	// members coincide, the lower seat has the keys.
	points []uint64
	owners []int32
	// first[b] is the first point whose top bits are b or more; its last entry
	// is len(points).
	first []uint32
	shift uint // a hash >> shift is its bucket
}

// New makes a ring. It refuses a weight out of range and a member that is
// there twice, by an error that wraps [ErrMember]. It takes time in proportion
// to n log n of all points.
func New(members []Member) (*Ring, error) { return empty.Update(members) }

// Update makes a ring of other members, equal to what [New] would make of
// them. Points of members that were there with the same weight are reused, so
// that a change of few members takes one pass over the points instead of
// sorting them. r is not changed; it is the answer if nothing is.
func (r *Ring) Update(members []Member) (*Ring, error) {
	if len(members) > 0 && slices.Equal(members, r.members) {
		return r, nil
	}
	n, err := arrange(members)
	if err != nil {
		return nil, err
	}
	kept, fresh := r.match(n)
	added := make([]point, 0, pointsOf(n, fresh))
	for _, i := range fresh {
		added = n.appendPoints(added, i)
	}
	slices.SortFunc(added, n.compare)
	n.merge(r, kept, added)
	n.index()
	return n, nil
}

// arrange returns a ring that has no points yet.
func arrange(members []Member) (*Ring, error) {
	n := &Ring{
		members: slices.Clone(members),
		seats:   make([]string, len(members)),
		bySeat:  make([]int32, len(members)),
		rank:    make([]int32, len(members)),
	}
	for i := range n.members {
		m := &n.members[i]
		if m.Weight == 0 {
			m.Weight = OrdinaryWeight
		}
		if m.Weight < 1 || m.Weight > MaxWeight {
			return nil, fmt.Errorf("%w: %q: weight %d is not between 1 and %d", ErrMember, m.Name, m.Weight, MaxWeight)
		}
		n.bySeat[i] = int32(i)
		n.weights += m.Weight
	}
	slices.SortFunc(n.bySeat, func(a, b int32) int {
		x, y := &n.members[a], &n.members[b]
		return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.ID, y.ID))
	})
	for at, i := range n.bySeat {
		m := &n.members[i]
		n.seats[i] = m.Name
		if at == 0 || n.members[n.bySeat[at-1]].Name != m.Name {
			continue
		}
		n.seats[i] = m.Name + "\x00" + m.ID
		if n.members[n.bySeat[at-1]].ID == m.ID {
			return nil, fmt.Errorf("%w: %q (id %q) is there twice", ErrMember, m.Name, m.ID)
		}
	}
	slices.SortFunc(n.bySeat, func(a, b int32) int { return cmp.Compare(n.seats[a], n.seats[b]) })
	for at, i := range n.bySeat {
		n.rank[i] = int32(at)
		if at > 0 && n.seats[n.bySeat[at-1]] == n.seats[i] {
			return nil, fmt.Errorf("%w: %q (id %q) has the place of another", ErrMember, n.members[i].Name, n.members[i].ID)
		}
	}
	return n, nil
}

// match walks the members of r and n by seat. kept gives, by index in r, the
// index in n of the member that has the same points, or -1; fresh are the
// members of n that need points.
func (r *Ring) match(n *Ring) (kept, fresh []int32) {
	kept = make([]int32, len(r.members))
	for i := range kept {
		kept[i] = -1
	}
	at := 0
	for _, j := range n.bySeat {
		for at < len(r.bySeat) && r.seats[r.bySeat[at]] < n.seats[j] {
			at++
		}
		if at < len(r.bySeat) {
			if i := r.bySeat[at]; r.seats[i] == n.seats[j] && r.members[i].Weight == n.members[j].Weight {
				kept[i] = j
				at++
				continue
			}
		}
		fresh = append(fresh, j)
	}
	return kept, fresh
}

type point struct {
	hash  uint64
	owner int32
}

// compare orders points, and those that coincide by their members' seats.
func (r *Ring) compare(a, b point) int {
	if a.hash != b.hash {
		return cmp.Compare(a.hash, b.hash)
	}
	return cmp.Compare(r.rank[a.owner], r.rank[b.owner])
}

// count is how many points a weight has; at least one.
func count(weight int) int {
	return max(1, (weight*PointsPerWeight+OrdinaryWeight/2)/OrdinaryWeight)
}

func pointsOf(r *Ring, members []int32) (n int) {
	for _, i := range members {
		n += count(r.members[i].Weight)
	}
	return n
}

// appendPoints appends the points of member i: xxhash64 of its seat, a zero
// byte and the point's number as four bytes, little endian.
func (r *Ring) appendPoints(ps []point, i int32) []point {
	key := append([]byte(r.seats[i]), 0, 0, 0, 0, 0)
	number := key[len(key)-4:]
	for p := range count(r.members[i].Weight) {
		binary.LittleEndian.PutUint32(number, uint32(p))
		ps = append(ps, point{hash: xxhash.Sum64(key), owner: i})
	}
	return ps
}

// merge fills the points from those that r has of kept members, and from the
// added ones; both are sorted.
func (n *Ring) merge(r *Ring, kept []int32, added []point) {
	total := len(added)
	for i, j := range kept {
		if j >= 0 {
			total += count(r.members[i].Weight)
		}
	}
	n.points = make([]uint64, 0, total)
	n.owners = make([]int32, 0, total)
	a := 0
	for i, h := range r.points {
		owner := kept[r.owners[i]]
		if owner < 0 {
			continue
		}
		p := point{hash: h, owner: owner}
		for a < len(added) && n.compare(added[a], p) < 0 {
			n.push(added[a])
			a++
		}
		n.push(p)
	}
	for ; a < len(added); a++ {
		n.push(added[a])
	}
}

func (n *Ring) push(p point) {
	n.points = append(n.points, p.hash)
	n.owners = append(n.owners, p.owner)
}

// index makes the table of buckets: between one and two of them per point.
func (n *Ring) index() {
	if len(n.points) == 0 {
		return
	}
	width := bits.Len(uint(len(n.points)))
	n.shift = uint(64 - width)
	n.first = make([]uint32, 1<<width+1)
	b := 0
	for i, h := range n.points {
		for ; b <= int(h>>n.shift); b++ {
			n.first[b] = uint32(i)
		}
	}
	for ; b < len(n.first); b++ {
		n.first[b] = uint32(len(n.points))
	}
}

// Hash is the place of a key on every ring: xxhash64 of its bytes.
func Hash(key string) uint64 { return xxhash.Sum64String(key) }

// Len is the number of members.
func (r *Ring) Len() int { return len(r.members) }

// Points is the number of points of all members.
func (r *Ring) Points() int { return len(r.points) }

// Member returns a member by its index.
func (r *Ring) Member(i int) Member { return r.members[i] }

// Index returns the index of the member that has the place of the given name,
// or -1, in O(log n).
func (r *Ring) Index(name string) int {
	at, ok := slices.BinarySearchFunc(r.bySeat, name, func(i int32, name string) int {
		return cmp.Compare(r.seats[i], name)
	})
	if !ok {
		return -1
	}
	return int(r.bySeat[at])
}

// start is the first point at or after hash; len(points) is around the end.
func (r *Ring) start(hash uint64) int {
	b := hash >> r.shift
	lo, hi := r.first[b], r.first[b+1]
	for lo < hi {
		mid := (lo + hi) / 2
		if r.points[mid] < hash {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return int(lo)
}

// Lookup returns the index of the member that owns a hash; -1 on a ring
// without members.
func (r *Ring) Lookup(hash uint64) int {
	if len(r.points) == 0 {
		return -1
	}
	i := r.start(hash)
	if i == len(r.points) {
		i = 0
	}
	return int(r.owners[i])
}

// LookupKey is Lookup of the key's [Hash].
func (r *Ring) LookupKey(key string) int { return r.Lookup(Hash(key)) }

// Successors yields every member once, in the order of the ring from hash on:
// the owner first, then whoever would own it if those before were gone. The
// first few cost O(1) each; all n of them cost about n log n. It does not
// allocate for rings of up to 1,024 members.
func (r *Ring) Successors(hash uint64) iter.Seq[int] {
	return func(yield func(int) bool) {
		if len(r.points) == 0 {
			return
		}
		var small [16]uint64
		seen := small[:]
		if len(r.members) > 64*len(small) {
			seen = make([]uint64, (len(r.members)+63)/64)
		}
		left := len(r.members)
		for i := r.start(hash); left > 0; i++ {
			if i >= len(r.points) {
				i = 0
			}
			m := r.owners[i]
			if bit := uint64(1) << (m & 63); seen[m>>6]&bit == 0 {
				seen[m>>6] |= bit
				left--
				if !yield(int(m)) {
					return
				}
			}
		}
	}
}

// Shares returns, by member, the part of all hashes that it owns; the parts
// add up to 1. It allocates the result.
func (r *Ring) Shares() []float64 {
	shares := make([]float64, len(r.members))
	if len(r.points) == 0 {
		return shares
	}
	last := r.points[len(r.points)-1] // its arc to the first point goes around the end
	if len(r.points) == 1 {
		shares[r.owners[0]] = 1
		return shares
	}
	for i, h := range r.points {
		shares[r.owners[i]] += float64(h-last) / (1 << 64)
		last = h
	}
	return shares
}

// Table holds the present ring for readers that must not wait. The zero value
// holds a ring without members. It is safe for concurrent use.
type Table struct{ p atomic.Pointer[Ring] }

// empty is never written to.
var empty Ring

// Load returns the present ring; never nil.
func (t *Table) Load() *Ring {
	if r := t.p.Load(); r != nil {
		return r
	}
	return &empty
}

// Store makes r the present ring. Readers that loaded the one before go on
// with it. Nil is a ring without members.
func (t *Table) Store(r *Ring) { t.p.Store(r) }
