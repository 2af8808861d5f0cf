// Package plan draws what is done to a deployment, and when, from a seed. It is
// pure: the same seed and topology give the same plan.
package plan

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// Role is a kind of process.
type Role string

// The roles.
const (
	Orchestrator Role = "orchestrator"
	Worker       Role = "worker"
	Rabbit       Role = "rabbitmq"
	Postgres     Role = "postgres"
	Books        Role = "books" // of the services: a disk, not a process
)

// Kind is what a fault does.
type Kind string

// The kinds of faults.
const (
	Kill    Kind = "kill"    // SIGKILL; started again after For
	Pause   Kind = "pause"   // SIGSTOP, SIGCONT after For
	Cut     Kind = "cut"     // nothing gets through for For; connections stay
	Drop    Kind = "drop"    // connections are reset, and refused for For
	Isolate Kind = "isolate" // what it sends to its peers is lost for For; others reach it
	Restart Kind = "restart" // ended in the regular way, and started again
	Fill    Kind = "fill"    // its disk is full for For
)

// Fault is one thing that is done to one member of a role.
type Fault struct {
	Role   Role
	Member int // from 0
	Kind   Kind
	For    time.Duration
	Within time.Duration // how long after the beginning of its strike
}

func (f Fault) String() string {
	return fmt.Sprintf("%s %s-%d for %v", f.Kind, f.Role, f.Member+1, f.For)
}

// Strike is one fault, or two that overlap.
type Strike struct {
	After  time.Duration // the end of the strike before, everything being back
	Faults []Fault
}

// Topology is what there is to strike at.
type Topology struct {
	Members map[Role]int
	Lease   time.Duration // how long an orchestrator may be silent before it loses its shards
	Disks   []Role        // of whose first member the disk can be filled
}

// Plan is all that is done.
type Plan struct {
	Seed    uint64
	Strikes []Strike
}

// kinds says what can be done to whom. Cutting off means from everybody else, by
// what stands between.
var kinds = []struct {
	role  Role
	kinds []Kind
}{
	{Orchestrator, []Kind{Kill, Pause, Cut, Drop, Restart}},
	{Worker, []Kind{Kill, Pause, Cut, Drop, Restart}},
	{Rabbit, []Kind{Kill, Pause, Cut, Isolate, Restart}},
	{Postgres, []Kind{Kill, Pause, Cut, Restart}},
}

// The limits of what is drawn.
const (
	minAfter  = 1500 * time.Millisecond // of calm, for a median of the throughput
	maxAfter  = 3 * time.Second
	maxDown   = 2 * time.Second // of most kills
	maxFull   = 3 * time.Second
	pairs     = 5 // one in so many strikes hits two members
	longDowns = 4 // one in so many kills lasts longer than a lease
	settling  = 2 * time.Second
)

// Make draws a plan of n faults, one of which fills a disk. Every other kind of
// fault comes before any comes again.
func Make(seed uint64, t Topology, n int) Plan {
	d := drawer{rand.New(rand.NewPCG(seed, 0xc4a05)), t}
	var queue []Fault
	for len(queue) < n {
		queue = append(queue, d.deck()...)
	}
	queue = queue[:n]
	if len(t.Disks) > 0 && n > 0 {
		queue[d.IntN(n)] = Fault{Role: t.Disks[d.IntN(len(t.Disks))], Kind: Fill, For: d.between(maxFull/3, maxFull)}
	}
	p := Plan{Seed: seed}
	for len(queue) > 0 {
		s := Strike{After: d.between(minAfter, maxAfter), Faults: queue[:1:1]}
		if len(queue) > 1 && d.IntN(pairs) == 0 && compatible(queue[0], queue[1]) {
			second := queue[1]
			second.Within = d.between(0, max(s.Faults[0].For, time.Second))
			s.Faults = append(s.Faults, second)
		}
		queue = queue[len(s.Faults):]
		p.Strikes = append(p.Strikes, s)
	}
	return p
}

type drawer struct {
	*rand.Rand
	t Topology
}

// deck is every kind of fault once, in any order, each at some member.
func (d drawer) deck() (deck []Fault) {
	for _, k := range kinds {
		if d.t.Members[k.role] == 0 {
			continue
		}
		for _, kind := range k.kinds {
			if kind == Isolate && d.t.Members[k.role] == 1 {
				continue
			}
			deck = append(deck, Fault{Role: k.role, Member: d.IntN(d.t.Members[k.role]), Kind: kind, For: d.duration(kind)})
		}
	}
	d.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
	return deck
}

func (d drawer) duration(k Kind) time.Duration {
	switch k {
	case Pause, Cut, Isolate:
		return d.between(d.t.Lease/2, 3*d.t.Lease)
	case Drop:
		return d.between(d.t.Lease/10, d.t.Lease)
	case Kill:
		if d.IntN(longDowns) == 0 {
			return d.between(d.t.Lease, 2*d.t.Lease)
		}
		return d.between(0, maxDown)
	}
	return 0
}

func (d drawer) between(least, most time.Duration) time.Duration {
	if most <= least {
		return least
	}
	return (least + time.Duration(d.Int64N(int64(most-least)))).Round(time.Millisecond)
}

// compatible tells whether two faults may overlap: not at one member, and not two
// at a role of which a majority must be left.
func compatible(a, b Fault) bool { return a.Role != b.Role || a.Role == Worker && a.Member != b.Member }

// Lasts is about how long a strike takes, until everything is back.
func (s Strike) Lasts() time.Duration {
	var longest time.Duration
	for _, f := range s.Faults {
		longest = max(longest, f.Within+f.For)
	}
	return s.After + longest + settling
}

// Lasts is about how long the plan takes from its n-th strike on.
func (p Plan) Lasts(from int) (sum time.Duration) {
	for _, s := range p.Strikes[min(from, len(p.Strikes)):] {
		sum += s.Lasts()
	}
	return sum
}

// Faults is how many there are.
func (p Plan) Faults() (n int) {
	for _, s := range p.Strikes {
		n += len(s.Faults)
	}
	return n
}

// String is the plan, a strike a line.
func (p Plan) String() string {
	var b strings.Builder
	for i, s := range p.Strikes {
		fmt.Fprintf(&b, "%3d  after %v: %v", i+1, s.After, s.Faults[0])
		for _, f := range s.Faults[1:] {
			fmt.Fprintf(&b, "; after %v more: %v", f.Within, f)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
