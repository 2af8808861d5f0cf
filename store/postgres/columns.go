package postgres

import (
	"encoding/binary"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// column is one parameter that is an array, in PostgreSQL's binary form. Columns
// are used again by the next commit: a commit of many rows makes no garbage.
type column struct {
	oid uint32 // of the elements
	n   uint32
	buf []byte
}

// arrayHead is the length of what precedes the elements: dimensions, whether
// there are NULLs, the type, the length and the lower bound.
const arrayHead = 20

func (c *column) reset() {
	c.n = 0
	if c.buf == nil {
		c.buf = make([]byte, 0, 1024)
	}
	c.buf = append(c.buf[:0], make([]byte, arrayHead)...)
}

// param is the parameter, valid until the column changes.
func (c *column) param() []byte {
	h := c.buf[:arrayHead]
	dimensions := uint32(1)
	if c.n == 0 {
		dimensions = 0
	}
	binary.BigEndian.PutUint32(h, dimensions)
	binary.BigEndian.PutUint32(h[4:], 0)
	binary.BigEndian.PutUint32(h[8:], c.oid)
	if c.n == 0 {
		return c.buf[:12]
	}
	binary.BigEndian.PutUint32(h[12:], c.n)
	binary.BigEndian.PutUint32(h[16:], 1)
	return c.buf
}

func (c *column) int64(v int64) {
	c.n++
	c.buf = binary.BigEndian.AppendUint32(c.buf, 8)
	c.buf = binary.BigEndian.AppendUint64(c.buf, uint64(v))
}

func (c *column) int32(v int32) {
	c.n++
	c.buf = binary.BigEndian.AppendUint32(c.buf, 4)
	c.buf = binary.BigEndian.AppendUint32(c.buf, uint32(v))
}

func (c *column) int16(v int16) {
	c.n++
	c.buf = binary.BigEndian.AppendUint32(c.buf, 2)
	c.buf = binary.BigEndian.AppendUint16(c.buf, uint16(v))
}

func (c *column) bool(v bool) {
	c.n++
	b := byte(0)
	if v {
		b = 1
	}
	c.buf = append(binary.BigEndian.AppendUint32(c.buf, 1), b)
}

func (c *column) text(s string) {
	s = clean(s)
	c.n++
	c.buf = append(binary.BigEndian.AppendUint32(c.buf, uint32(len(s))), s...)
}

func (c *column) bytes(b []byte) {
	c.n++
	c.buf = append(binary.BigEndian.AppendUint32(c.buf, uint32(len(b))), b...)
}

// never stands for a time that is NULL.
const never = -1 << 63

// moment adds a time that may be zero.
func (c *column) moment(t time.Time) {
	if t.IsZero() {
		c.int64(never)
		return
	}
	c.int64(t.UnixMilli())
}

// columns are the parameters of one statement.
type columns []column

func newColumns(oids ...uint32) columns {
	cs := make(columns, len(oids))
	for i, oid := range oids {
		cs[i].oid = oid
	}
	cs.reset()
	return cs
}

func (cs columns) reset() {
	for i := range cs {
		cs[i].reset()
	}
}

// rows is the number of rows that have been added.
func (cs columns) rows() uint32 { return cs[0].n }

// The types of elements.
const (
	i8    = pgtype.Int8OID
	i4    = pgtype.Int4OID
	i2    = pgtype.Int2OID
	boole = pgtype.BoolOID
	txt   = pgtype.TextOID
	raw   = pgtype.ByteaOID
	uid   = pgtype.UUIDOID
)
