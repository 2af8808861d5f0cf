package ring

import (
	"fmt"
	"testing"
)

func TestLookupsDoNotAllocate(t *testing.T) {
	r := must(equalMembers(1000))
	hashes := randomHashes(64)
	over := func(i int) int { return i % 3 }
	n, sum := 0, 0
	for what, f := range map[string]func(h uint64){
		"Lookup":    func(h uint64) { sum += r.Lookup(h) },
		"LookupKey": func(uint64) { sum += r.LookupKey("order-1001") },
		"Place":     func(h uint64) { sum += r.Place(h, over, 900, 0) },
		"Least":     func(h uint64) { sum += r.Least(h, over) },
		"Successors": func(h uint64) {
			for i := range r.Successors(h) {
				sum += i
			}
		},
	} {
		if got := testing.AllocsPerRun(100, func() { n++; f(hashes[n%len(hashes)]) }); got != 0 {
			t.Errorf("%s: %v allocations", what, got)
		}
	}
}

func sizes(b *testing.B, f func(b *testing.B, r *Ring, hashes []uint64)) {
	hashes := randomHashes(1 << 12)
	for _, n := range []int{10, 100, 1000} {
		r := must(equalMembers(n))
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			f(b, r, hashes)
		})
	}
}

func BenchmarkLookup(b *testing.B) {
	sizes(b, func(b *testing.B, r *Ring, hashes []uint64) {
		for i := 0; b.Loop(); i++ {
			r.Lookup(hashes[i%len(hashes)])
		}
	})
}

func BenchmarkLookupKey(b *testing.B) {
	sizes(b, func(b *testing.B, r *Ring, _ []uint64) {
		for b.Loop() {
			r.LookupKey("01890a5d-ac96-774b-bcce-b302099a8057")
		}
	})
}

func BenchmarkLookupParallel(b *testing.B) {
	sizes(b, func(b *testing.B, r *Ring, hashes []uint64) {
		var table Table
		table.Store(r)
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				table.Load().Lookup(hashes[i%len(hashes)])
			}
		})
	})
}

// Every other owner is at its bound.
func BenchmarkPlace(b *testing.B) {
	sizes(b, func(b *testing.B, r *Ring, hashes []uint64) {
		load := func(i int) int { return 10 + 10*(i%2) }
		for i := 0; b.Loop(); i++ {
			r.Place(hashes[i%len(hashes)], load, 15*r.Len(), DefaultEpsilon)
		}
	})
}

func BenchmarkLeast(b *testing.B) {
	sizes(b, func(b *testing.B, r *Ring, hashes []uint64) {
		load := func(i int) int { return i & 7 }
		for i := 0; b.Loop(); i++ {
			r.Least(hashes[i%len(hashes)], load)
		}
	})
}

func BenchmarkNew(b *testing.B) {
	sizes(b, func(b *testing.B, r *Ring, _ []uint64) {
		for b.Loop() {
			must(r.members)
		}
	})
}

func BenchmarkUpdateOneMember(b *testing.B) {
	sizes(b, func(b *testing.B, r *Ring, _ []uint64) {
		for b.Loop() {
			update(r, r.members[1:])
		}
	})
}
