package plan

import (
	"reflect"
	"testing"
	"time"
)

func topology() Topology {
	return Topology{
		Members: map[Role]int{Orchestrator: 3, Worker: 6, Rabbit: 3, Postgres: 1, Books: 1},
		Lease:   4 * time.Second,
		Disks:   []Role{Postgres, Books},
	}
}

func TestASeedSaysEverything(t *testing.T) {
	first, again, other := Make(7, topology(), 40), Make(7, topology(), 40), Make(8, topology(), 40)
	if !reflect.DeepEqual(first, again) {
		t.Error("the same seed gives two plans")
	}
	if reflect.DeepEqual(first.Strikes, other.Strikes) {
		t.Error("another seed gives the same plan")
	}
	if first.String() != again.String() || first.String() == other.String() {
		t.Error("what is printed does not tell plans apart")
	}
}

// Whatever the seed, a plan of the full length has every kind of fault at every
// kind of process, and stays within what was promised of each.
func TestPlansCoverEverythingWithinTheirBounds(t *testing.T) {
	top := topology()
	for seed := range uint64(200) {
		p := Make(seed, top, 40)
		seen := map[Role]map[Kind]int{}
		if p.Faults() != 40 {
			t.Fatalf("seed %d: %d faults", seed, p.Faults())
		}
		for _, s := range p.Strikes {
			if s.After < minAfter || s.After > maxAfter || len(s.Faults) < 1 || len(s.Faults) > 2 {
				t.Errorf("seed %d: strike %+v", seed, s)
			}
			if len(s.Faults) == 2 && !compatible(s.Faults[0], s.Faults[1]) {
				t.Errorf("seed %d: %v while %v", seed, s.Faults[1], s.Faults[0])
			}
			for _, f := range s.Faults {
				if seen[f.Role] == nil {
					seen[f.Role] = map[Kind]int{}
				}
				seen[f.Role][f.Kind]++
				checkFault(t, top, f)
			}
		}
		for _, k := range kinds {
			for _, kind := range k.kinds {
				if seen[k.role][kind] == 0 {
					t.Errorf("seed %d: no %s of a %s", seed, kind, k.role)
				}
			}
		}
		if n := seen[Books][Fill] + seen[Postgres][Fill]; n != 1 {
			t.Errorf("seed %d: disks are filled %d times", seed, n)
		}
	}
}

func checkFault(t *testing.T, top Topology, f Fault) {
	t.Helper()
	if f.Member < 0 || f.Member >= top.Members[f.Role] {
		t.Errorf("%v: there is no such member", f)
	}
	if (f.Kind == Pause || f.Kind == Cut) && (f.For < top.Lease/2 || f.For > 3*top.Lease) {
		t.Errorf("%v: not within half to three leases", f)
	}
	if f.For < 0 || f.For > 3*top.Lease || f.Within < 0 || f.Within > 3*top.Lease {
		t.Errorf("%v within %v", f, f.Within)
	}
}

func TestRolesWithoutMembersAreLeftAlone(t *testing.T) {
	p := Make(1, Topology{Members: map[Role]int{Worker: 2}, Lease: time.Second}, 20)
	for _, s := range p.Strikes {
		for _, f := range s.Faults {
			if f.Role != Worker || f.Member > 1 {
				t.Errorf("%v", f)
			}
		}
	}
}

func TestHowLongAPlanTakes(t *testing.T) {
	p := Plan{Strikes: []Strike{
		{After: time.Second, Faults: []Fault{{For: 2 * time.Second}}},
		{After: 2 * time.Second, Faults: []Fault{{For: time.Second}, {Within: time.Second, For: 3 * time.Second}}},
	}}
	if got, want := p.Lasts(0), 3*time.Second+6*time.Second+2*settling; got != want {
		t.Errorf("%v, want %v", got, want)
	}
	if p.Lasts(2) != 0 || p.Lasts(1) != 6*time.Second+settling {
		t.Error("what is left is wrong")
	}
}
