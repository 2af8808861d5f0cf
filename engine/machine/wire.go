package machine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// ErrCorrupt is wrapped by every error about bytes or events that do not make
// a history.
var ErrCorrupt = errors.New("corrupt history")

// The times that history holds: years 1 to 9999, so that they print.
const (
	minMilli = -62135596800000
	maxMilli = 253402300799999
)

// milli is t in ms; the zero time is 0.
func milli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return min(max(t.UnixMilli(), minMilli), maxMilli)
}

// fromMilli is the reverse of milli.
func fromMilli(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func appendBytes(b, p []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(p))), p...)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// reader takes varints and length-prefixed strings off the front of data. It
// accepts only the shortest form of a varint, so that what decodes has one
// encoding. After the first fault every read returns zero and err is set.
type reader struct {
	data []byte
	text string // the same bytes, from which strings are cut; made on first use
	off  int
	err  error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s at byte %d", ErrCorrupt, what, r.off)
		r.off = len(r.data)
	}
}

func (r *reader) more() bool { return r.off < len(r.data) }

func (r *reader) byte() byte {
	if r.off >= len(r.data) {
		r.fail("cut short")
		return 0
	}
	b := r.data[r.off]
	r.off++
	return b
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.data[r.off:])
	if n <= 0 {
		r.fail("bad number")
		return 0
	}
	if n > 1 && r.data[r.off+n-1] == 0 {
		r.fail("number not in its shortest form")
		return 0
	}
	r.off += n
	return v
}

// upTo reads a number of at most limit.
func (r *reader) upTo(limit uint64, what string) uint64 {
	v := r.uvarint()
	if v > limit {
		r.fail(what + " out of range")
		return 0
	}
	return v
}

func (r *reader) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// milli reads a time relative to base.
func (r *reader) milli(base int64) int64 {
	d := r.varint()
	if r.err != nil {
		return 0
	}
	ms := base + d
	if (d > 0) != (ms > base) && d != 0 || ms < minMilli || ms > maxMilli {
		r.fail("time out of range")
		return 0
	}
	return ms
}

// bytes returns a part of data, with no room to grow.
func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.data)-r.off) {
		r.fail("cut short")
		return nil
	}
	p := r.data[r.off : r.off+int(n) : r.off+int(n)]
	r.off += int(n)
	return p
}

func (r *reader) string() string {
	n := r.uvarint()
	if n > uint64(len(r.data)-r.off) {
		r.fail("cut short")
		return ""
	}
	if n == 0 {
		return ""
	}
	if r.text == "" {
		r.text = string(r.data)
	}
	s := r.text[r.off : r.off+int(n)]
	r.off += int(n)
	return s
}
