package lockqueue

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrCorrupt is wrapped by every error about bytes that are not a queue.
var ErrCorrupt = errors.New("corrupt lock queue")

// version opens every encoding.
const version = 1

// Append appends the encoding of the queue to b.
func (q *Queue) Append(b []byte) []byte {
	b = append(b, version)
	for _, list := range [...][]Entry{q.holders, q.waiters} {
		b = binary.AppendUvarint(b, uint64(len(list)))
		for i := range list {
			e := &list[i]
			shared := byte(0)
			if e.Shared {
				shared = 1
			}
			b = append(binary.AppendUvarint(b, uint64(e.Ref)), shared)
			b = binary.AppendVarint(b, e.Asked)
			b = binary.AppendVarint(b, e.Got)
			b = binary.AppendUvarint(b, e.Token)
			b = binary.AppendUvarint(b, uint64(len(e.RunID)))
			b = append(b, e.RunID...)
		}
	}
	return b
}

// Decode is the reverse of Append. It refuses, with an error that wraps
// ErrCorrupt, what no queue can be: two holders of which one does not share, a
// run twice, a holder without a token.
func Decode(data []byte) (*Queue, error) {
	d := decoder{data: data}
	if len(data) == 0 || data[0] != version {
		return nil, fmt.Errorf("%w: unknown version", ErrCorrupt)
	}
	d.data = data[1:]
	q := &Queue{holders: d.entries()}
	q.waiters = d.entries()
	if d.bad || len(d.data) > 0 {
		return nil, fmt.Errorf("%w: %d bytes do not make one", ErrCorrupt, len(data))
	}
	return q, q.check()
}

// check tells what is wrong with a queue.
func (q *Queue) check() error {
	seen := make(map[int64]bool, len(q.holders)+len(q.waiters))
	for i, list := range [...][]Entry{q.holders, q.waiters} {
		for _, e := range list {
			if seen[e.Ref] {
				return fmt.Errorf("%w: run %s is there twice", ErrCorrupt, e.RunID)
			}
			seen[e.Ref] = true
			if (e.Token != 0) != (i == 0) || i == 0 && e.Token != q.holders[0].Token {
				return fmt.Errorf("%w: run %s has token %d", ErrCorrupt, e.RunID, e.Token)
			}
			if i == 0 && !e.Shared && len(q.holders) > 1 {
				return fmt.Errorf("%w: run %s holds it for itself, and is not alone", ErrCorrupt, e.RunID)
			}
		}
	}
	if q.Empty() && len(q.waiters) > 0 {
		return fmt.Errorf("%w: runs wait for a lock that nobody holds", ErrCorrupt)
	}
	return nil
}

// decoder takes values off the front of data; after a fault, all are zero.
type decoder struct {
	data []byte
	bad  bool
}

func (d *decoder) entries() []Entry {
	n := d.uvarint()
	if n > uint64(len(d.data)) { // each takes several bytes
		d.bad = true
	}
	if d.bad || n == 0 {
		return nil
	}
	list := make([]Entry, n)
	for i := range list {
		e := &list[i]
		e.Ref = int64(d.uvarint())
		e.Shared = d.bytes(1) == "\x01"
		e.Asked = d.varint()
		e.Got = d.varint()
		e.Token = d.uvarint()
		e.RunID = d.bytes(d.uvarint())
	}
	return list
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.data)
	if n <= 0 {
		d.bad, d.data = true, nil
		return 0
	}
	d.data = d.data[n:]
	return v
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (d *decoder) bytes(n uint64) string {
	if n > uint64(len(d.data)) {
		d.bad, d.data = true, nil
		return ""
	}
	s := string(d.data[:n])
	d.data = d.data[n:]
	return s
}
