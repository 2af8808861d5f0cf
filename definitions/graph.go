package definitions

import "slices"

// stepSet is a set of step indexes.
type stepSet [MaxSteps / 64]uint64

func (s *stepSet) add(i int)      { s[i/64] |= 1 << (i % 64) }
func (s *stepSet) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }
func (s *stepSet) union(t *stepSet) {
	for i := range s {
		s[i] |= t[i]
	}
}

// graph is the order of steps. It may hold cycles until it is validated.
type graph struct {
	preds     [][]int // direct, ascending
	ancestors []stepSet
}

func newGraph(preds [][]int) *graph {
	g := &graph{preds: preds, ancestors: make([]stepSet, len(preds))}
	for i, ps := range preds {
		for _, p := range ps {
			g.ancestors[i].add(p)
		}
	}
	// Warshall's transitive closure, a row at a time.
	for k := range preds {
		for i := range preds {
			if g.ancestors[i].has(k) {
				g.ancestors[i].union(&g.ancestors[k])
			}
		}
	}
	return g
}

// before reports whether a is an ancestor of b.
func (g *graph) before(a, b int) bool { return g.ancestors[b].has(a) }

func (g *graph) inCycle(i int) bool { return g.before(i, i) }

// cycles returns every group of steps that wait for each other: members in
// ascending order, and one way round, from its lowest member that closes.
func (g *graph) cycles() (groups []cycle) {
	var seen stepSet
	for i := range g.preds {
		if seen.has(i) || !g.inCycle(i) {
			continue
		}
		c := cycle{}
		for j := range g.preds {
			if g.before(i, j) && g.before(j, i) {
				seen.add(j)
				c.members = append(c.members, j)
			}
		}
		c.way = g.wayRound(i)
		groups = append(groups, c)
	}
	return groups
}

type cycle struct {
	members []int
	way     []int // in the order of execution; the first step is the last too
}

// wayRound returns a shortest way from a step back to itself, found breadth
// first along the predecessors.
func (g *graph) wayRound(start int) []int {
	next := map[int]int{} // the step after it on the way to start
	queue := []int{start}
	for len(queue) > 0 {
		i := queue[0]
		queue = queue[1:]
		for _, p := range g.preds[i] {
			if p == start {
				way := []int{start}
				for j := i; j != start; j = next[j] {
					way = append(way, j)
				}
				return append(way, start)
			}
			if _, found := next[p]; !found && g.before(start, p) {
				next[p] = i
				queue = append(queue, p)
			}
		}
	}
	return []int{start}
}

// succs returns the direct successors of every step, ascending.
func (g *graph) succs() [][]int {
	out := make([][]int, len(g.preds))
	for i, ps := range g.preds {
		for _, p := range ps {
			out[p] = append(out[p], i)
		}
	}
	for _, s := range out {
		slices.Sort(s)
	}
	return out
}
