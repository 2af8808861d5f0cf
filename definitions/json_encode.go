package definitions

import (
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// encodeValue appends the value of an expression as compact JSON with keys in
// order. limit bounds the length of the result.
func encodeValue(b []byte, v ref.Val, limit, depth int) ([]byte, error) {
	if depth > maxJSONDepth {
		return nil, fmt.Errorf("the result is nested deeper than %d levels", maxJSONDepth)
	}
	if len(b) > limit {
		return nil, fmt.Errorf("the result is larger than %d bytes", limit)
	}
	switch v := v.(type) {
	case types.Null:
		return append(b, "null"...), nil
	case types.Bool:
		return strconv.AppendBool(b, bool(v)), nil
	case types.Int:
		return strconv.AppendInt(b, int64(v), 10), nil
	case types.Uint:
		return strconv.AppendUint(b, uint64(v), 10), nil
	case types.Double:
		return appendDouble(b, float64(v))
	case types.String:
		if len(b)+len(v) > limit {
			return nil, fmt.Errorf("the result is larger than %d bytes", limit)
		}
		return appendString(b, string(v)), nil
	case types.Bytes:
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, v)
		return append(b, '"'), nil
	case types.Timestamp, types.Duration:
		s, ok := v.ConvertToType(types.StringType).(types.String)
		if !ok {
			return nil, fmt.Errorf("a %s out of range", v.Type().TypeName())
		}
		return appendString(b, string(s)), nil
	case *object:
		return encodeObject(b, v, limit, depth)
	case traits.Mapper:
		return encodeMap(b, v, limit, depth)
	case traits.Lister:
		return encodeList(b, v, limit, depth)
	case *types.Err:
		return nil, v
	}
	return nil, fmt.Errorf("a value of type %s has no JSON form", v.Type().TypeName())
}

func encodeObject(b []byte, o *object, limit, depth int) ([]byte, error) {
	var err error
	b = append(b, '{')
	for i, k := range o.keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, k), ':')
		if b, err = encodeValue(b, o.vals[i], limit, depth+1); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

// encodeMap writes a map that an expression built. Keys that are not strings
// are written as strings, as JSON wants it.
func encodeMap(b []byte, m traits.Mapper, limit, depth int) ([]byte, error) {
	if o, ok := m.(ordered); ok {
		m = o.Mapper
	}
	o := &object{}
	for it := m.Iterator(); it.HasNext() == types.True; {
		k := it.Next()
		v, _ := m.Find(k)
		s, ok := k.(types.String)
		if !ok {
			if s, ok = k.ConvertToType(types.StringType).(types.String); !ok {
				return nil, fmt.Errorf("a map key of type %s has no JSON form", k.Type().TypeName())
			}
		}
		o.keys = append(o.keys, string(s))
		o.vals = append(o.vals, v)
	}
	if k, found := o.order(); found {
		return nil, fmt.Errorf("two map keys have the same JSON form %q", k)
	}
	return encodeObject(b, o, limit, depth)
}

func encodeList(b []byte, l traits.Lister, limit, depth int) ([]byte, error) {
	size, ok := l.Size().(types.Int)
	if !ok {
		return nil, fmt.Errorf("a list without a size")
	}
	var err error
	b = append(b, '[')
	for i := range size {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = encodeValue(b, l.Get(i), limit, depth+1); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

// appendDouble writes the shortest text that reads back as f, in the manner of
// encoding/json.
func appendDouble(b []byte, f float64) ([]byte, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil, fmt.Errorf("the number %v has no JSON form", f)
	}
	if f == 0 {
		return append(b, '0'), nil // also for minus zero
	}
	format := byte('f')
	if abs := math.Abs(f); abs < 1e-6 || abs >= 1e21 {
		format = 'e'
	}
	start := len(b)
	b = strconv.AppendFloat(b, f, format, -1, 64)
	if n := len(b); format == 'e' && n-start >= 4 && b[n-4] == 'e' && b[n-3] == '-' && b[n-2] == '0' {
		b[n-2] = b[n-1] // e-09 is written e-9
		b = b[:n-1]
	}
	return b, nil
}

const hexDigits = "0123456789abcdef"

// appendString writes s as a JSON string, escaping no more than JSON demands.
// Bytes that are not UTF-8 become the replacement character.
func appendString(b []byte, s string) []byte {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\ufffd")
	}
	b = slices.Grow(b, len(s)+2)
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		default:
			b = append(b, `\u00`...)
			b = append(b, hexDigits[c>>4], hexDigits[c&15])
		}
		start = i + 1
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}
