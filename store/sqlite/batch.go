package sqlite

import (
	"database/sql/driver"
	"strings"
)

// batchSizes are the numbers of rows that an inserter has statements for,
// largest first. A statement of many rows saves most of the cost of starting
// and ending one for each.
var batchSizes = [...]int{64, 16, 4, 1}

// inserter writes rows of one table. Rows gather in its argument list and are
// written by add when the largest statement is full, and by flush.
type inserter struct {
	columns int
	stmts   [len(batchSizes)]*stmt
	args    args
	rows    int
}

// newInserter prepares an inserter. head is an INSERT statement up to VALUES,
// tail what follows the rows.
func newInserter(c *conn, head string, columns int, tail string) (*inserter, error) {
	row := "(" + strings.Repeat("?,", columns-1) + "?)"
	in := &inserter{columns: columns, args: make(args, 0, columns*batchSizes[0])}
	for i, n := range batchSizes {
		var err error
		in.stmts[i], err = c.prepare(head + " VALUES " + strings.Repeat(row+",", n-1) + row + tail)
		if err != nil {
			return nil, err
		}
	}
	return in, nil
}

func (in *inserter) add(values ...driver.Value) error {
	in.args.add(values...)
	in.rows++
	if in.rows < batchSizes[0] {
		return nil
	}
	return in.flush()
}

// flush writes what has gathered, with as few statements as there can be.
func (in *inserter) flush() error {
	done := 0
	defer in.reset()
	for i, n := range batchSizes {
		for in.rows-done >= n {
			a := in.args[done*in.columns : (done+n)*in.columns]
			for j := range a {
				a[j].Ordinal = j + 1
			}
			if err := in.stmts[i].exec(a); err != nil {
				return err
			}
			done += n
		}
	}
	return nil
}

// reset forgets what has gathered.
func (in *inserter) reset() {
	clear(in.args)
	in.args, in.rows = in.args[:0], 0
}
