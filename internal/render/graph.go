package render

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Node is a step of a graph as it is drawn.
type Node struct {
	// After are the indexes of the nodes that come directly before.
	After []int
	// Symbol is one character; Paint colours it where it is not nil.
	Symbol string
	Paint  func(string) string
	// Cells are put to the right of the drawing, in columns. They are plain
	// text of one line; PaintCell colours one where it is not nil.
	Cells     []string
	PaintCell func(column int, text string) string
	// Notes are lines below the cells.
	Notes []string
}

// Graph draws an acyclic graph from top to bottom, in the manner of a version
// history: every node on a line of its own, edges in lanes to its left.
// It returns lines without their ends.
func Graph(nodes []Node) []string {
	d := drawing{nodes: nodes, next: successors(nodes)}
	for _, n := range topological(nodes, d.next) {
		d.node(n)
	}
	return d.lines()
}

func successors(nodes []Node) [][]int {
	next := make([][]int, len(nodes))
	for i, n := range nodes {
		for _, p := range n.After {
			next[p] = append(next[p], i)
		}
	}
	return next
}

// topological orders nodes so that each comes after those before it; where
// there is a choice, a lane that was begun is gone on with.
func topological(nodes []Node, next [][]int) []int {
	missing := make([]int, len(nodes))
	var ready, order []int
	for i, n := range nodes {
		if missing[i] = len(n.After); missing[i] == 0 {
			ready = append(ready, i)
		}
	}
	slices.Reverse(ready) // a stack
	for len(ready) > 0 {
		n := ready[len(ready)-1]
		ready = ready[:len(ready)-1]
		order = append(order, n)
		for _, s := range slices.Backward(next[n]) {
			if missing[s]--; missing[s] == 0 {
				ready = append(ready, s)
			}
		}
	}
	return order
}

const free = -1

// row is one line: lanes, and for a node its cells or a note.
type row struct {
	lanes string
	width int // characters of lanes
	node  int
	kind  rowKind
	note  string
}

type rowKind int

const (
	rowEdges rowKind = iota
	rowNode
	rowNote
)

type drawing struct {
	nodes []Node
	next  [][]int
	lanes []int // by column: the node that the edge there leads to, or free
	rows  []row
}

func (d *drawing) node(n int) {
	var mine []int
	for col, to := range d.lanes {
		if to == n {
			mine = append(mine, col)
		}
	}
	if len(mine) == 0 {
		mine = []int{d.takeLane(0, n)}
	}
	at := mine[0]
	if len(mine) > 1 {
		d.edges(at, mine[1:], '┴', '╯')
		for _, col := range mine[1:] {
			d.lanes[col] = free
		}
	}
	d.add(row{lanes: d.verticals(at, n), width: 2 * len(d.lanes), node: n, kind: rowNode})
	next := d.next[n]
	if len(next) == 0 {
		d.lanes[at] = free
	} else {
		d.lanes[at] = next[0]
	}
	for _, note := range d.nodes[n].Notes {
		d.add(row{lanes: d.verticals(free, n), width: 2 * len(d.lanes), node: n, kind: rowNote, note: note})
	}
	if len(next) > 1 {
		var opened []int
		for _, s := range next[1:] {
			opened = append(opened, d.takeLane(at+1, s))
		}
		slices.Sort(opened)
		d.edges(at, opened, '┬', '╮')
	}
	for len(d.lanes) > 0 && d.lanes[len(d.lanes)-1] == free {
		d.lanes = d.lanes[:len(d.lanes)-1]
	}
}

// takeLane gives an edge to a node the first free column from a given one on.
func (d *drawing) takeLane(from, to int) int {
	for col := from; col < len(d.lanes); col++ {
		if d.lanes[col] == free {
			d.lanes[col] = to
			return col
		}
	}
	for len(d.lanes) < from {
		d.lanes = append(d.lanes, free)
	}
	d.lanes = append(d.lanes, to)
	return len(d.lanes) - 1
}

func (d *drawing) add(r row) { d.rows = append(d.rows, r) }

// verticals draws the lanes, with a node's symbol in one of them.
func (d *drawing) verticals(at, n int) string {
	var b strings.Builder
	for col, to := range d.lanes {
		switch {
		case col == at:
			symbol := d.nodes[n].Symbol
			if paint := d.nodes[n].Paint; paint != nil {
				symbol = paint(symbol)
			}
			b.WriteString(symbol + " ")
		case to == free:
			b.WriteString("  ")
		default:
			b.WriteString("│ ")
		}
	}
	return b.String()
}

// edges draws a line from one lane to others to its right.
func (d *drawing) edges(from int, to []int, middle, last rune) {
	end := to[len(to)-1]
	var b strings.Builder
	for col, lane := range d.lanes {
		within := col > from && col < end
		sign := ' '
		switch {
		case col == from:
			sign = '├'
		case col == end:
			sign = last
		case slices.Contains(to, col):
			sign = middle
		case within && lane != free:
			sign = '┼'
		case within:
			sign = '─'
		case lane != free:
			sign = '│'
		}
		b.WriteRune(sign)
		if col >= from && col < end {
			b.WriteRune('─')
		} else {
			b.WriteByte(' ')
		}
	}
	d.add(row{lanes: b.String(), width: 2 * len(d.lanes), kind: rowEdges})
}

// lines puts the columns of cells beside the lanes.
func (d *drawing) lines() []string {
	lanes := 0
	var widths []int
	for _, r := range d.rows {
		lanes = max(lanes, r.width)
		if r.kind != rowNode {
			continue
		}
		for i, cell := range d.nodes[r.node].Cells {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var out []string
	for _, r := range d.rows {
		line := r.lanes + strings.Repeat(" ", lanes-r.width)
		switch r.kind {
		case rowNode:
			n := d.nodes[r.node]
			for i, cell := range n.Cells {
				pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2)
				if n.PaintCell != nil {
					cell = n.PaintCell(i, cell)
				}
				line += cell + pad
			}
		case rowNote:
			line += "  " + r.note
		}
		out = append(out, strings.TrimRight(line, " "))
	}
	return out
}
