package definitions

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// maxJSONDepth bounds the nesting of the JSON that expressions see and yield.
const maxJSONDepth = 512

// jsonError is a fault in JSON text. The path is built while the decoder
// returns from the place of the fault.
type jsonError struct {
	path   string
	offset int
	rule   string
	reason string
}

func (e *jsonError) Error() string {
	where := "at offset " + strconv.Itoa(e.offset)
	if e.path != "" {
		where = e.path + ", " + where
	}
	return where + ": " + e.reason
}

// decoder turns JSON straight into the values that CEL works with: no tree of
// interfaces in between, integers exact, objects ordered by key, so that
// whatever is computed from them is the same every time.
type decoder struct {
	data   string // strings without escapes are parts of it
	pos    int
	strict bool // refuse duplicate keys and invalid UTF-8
}

// decodeJSON decodes a whole JSON text; an empty one is null.
func decodeJSON(data []byte, strict bool) (ref.Val, error) {
	d := decoder{data: string(data), strict: strict}
	d.space()
	if d.pos == len(data) && !strict {
		return types.NullValue, nil
	}
	v, err := d.value(0)
	if err != nil {
		return nil, err
	}
	if d.space(); d.pos != len(data) {
		return nil, d.fault("unexpected text after the JSON value")
	}
	return v, nil
}

// The error result of the decoder's methods is a concrete type inside, so that
// paths can be added on the way out.

func (d *decoder) fault(format string, args ...any) *jsonError {
	return &jsonError{offset: d.pos, rule: RuleSyntax, reason: fmt.Sprintf(format, args...)}
}

func (d *decoder) space() {
	for d.pos < len(d.data) {
		switch d.data[d.pos] {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return
		}
	}
}

func (d *decoder) value(depth int) (ref.Val, error) {
	if depth > maxJSONDepth {
		return nil, d.fault("nested deeper than %d levels", maxJSONDepth)
	}
	if d.pos == len(d.data) {
		return nil, d.fault("unexpected end of JSON")
	}
	switch c := d.data[d.pos]; c {
	case '{':
		return d.object(depth)
	case '[':
		return d.list(depth)
	case '"':
		s, err := d.text()
		if err != nil {
			return nil, err
		}
		return types.String(s), nil
	case 't':
		return types.True, d.word("true")
	case 'f':
		return types.False, d.word("false")
	case 'n':
		return types.NullValue, d.word("null")
	default:
		if c == '-' || c >= '0' && c <= '9' {
			return d.number()
		}
		return nil, d.fault("unexpected character %q", d.char())
	}
}

func (d *decoder) char() rune {
	r, _ := utf8.DecodeRuneInString(d.data[d.pos:])
	return r
}

func (d *decoder) word(w string) error {
	if !strings.HasPrefix(d.data[d.pos:], w) {
		return d.fault("expected %s", w)
	}
	d.pos += len(w)
	return nil
}

func (d *decoder) object(depth int) (ref.Val, error) {
	d.pos++ // the brace
	o := &object{}
	d.space()
	if d.pos < len(d.data) && d.data[d.pos] == '}' {
		d.pos++
		return o, nil
	}
	ordered := true
	o.keys = make([]string, 0, 4)
	o.vals = make([]ref.Val, 0, 4)
	for {
		d.space()
		if d.pos == len(d.data) || d.data[d.pos] != '"' {
			return nil, d.fault("expected a key in quotes")
		}
		key, err := d.text()
		if err != nil {
			return nil, err
		}
		d.space()
		if d.pos == len(d.data) || d.data[d.pos] != ':' {
			return nil, d.fault("expected ':' after the key %q", key)
		}
		d.pos++
		d.space()
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, within(key, err)
		}
		if n := len(o.keys); n > 0 && o.keys[n-1] >= key {
			ordered = false
		}
		o.keys = append(o.keys, key)
		o.vals = append(o.vals, v)
		d.space()
		more, err := d.next('}')
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
	}
	if !ordered {
		if twice, found := o.order(); found && d.strict {
			return nil, &jsonError{path: twice, offset: d.pos, rule: RuleDuplicate, reason: "the key is there twice"}
		}
	}
	return o, nil
}

func (d *decoder) list(depth int) (ref.Val, error) {
	d.pos++ // the bracket
	var vals []ref.Val
	d.space()
	if d.pos < len(d.data) && d.data[d.pos] == ']' {
		d.pos++
		return types.NewRefValList(types.DefaultTypeAdapter, vals), nil
	}
	for {
		d.space()
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, within("["+strconv.Itoa(len(vals))+"]", err)
		}
		vals = append(vals, v)
		d.space()
		more, err := d.next(']')
		if err != nil {
			return nil, err
		}
		if !more {
			return types.NewRefValList(types.DefaultTypeAdapter, vals), nil
		}
	}
}

// next reads a comma or the closing character.
func (d *decoder) next(closing byte) (more bool, err error) {
	if d.pos == len(d.data) {
		return false, d.fault("unexpected end of JSON")
	}
	switch d.data[d.pos] {
	case ',':
		d.pos++
		return true, nil
	case closing:
		d.pos++
		return false, nil
	}
	return false, d.fault("expected ',' or '%c'", closing)
}

// text reads a string. One with escapes is left to the standard library.
func (d *decoder) text() (string, error) {
	start := d.pos
	plain := true
	for i := d.pos + 1; i < len(d.data); i++ {
		switch c := d.data[i]; {
		case c == '"':
			d.pos = i + 1
			token := d.data[start:d.pos]
			if plain {
				return token[1 : len(token)-1], nil
			}
			return d.unescape(start, token)
		case c == '\\':
			plain = false
			i++
		case c < ' ':
			d.pos = i
			return "", d.fault("control character in a string")
		case c >= utf8.RuneSelf:
			plain = false
		}
	}
	return "", d.fault("unexpected end of JSON in a string")
}

func (d *decoder) unescape(start int, token string) (string, error) {
	valid := utf8.ValidString(token)
	if d.strict && !valid {
		d.pos = start
		return "", d.fault("a string that is not valid UTF-8")
	}
	if valid && strings.IndexByte(token, '\\') < 0 {
		return token[1 : len(token)-1], nil
	}
	var s string
	if err := json.Unmarshal([]byte(token), &s); err != nil {
		d.pos = start
		return "", d.fault("malformed string: %v", err)
	}
	return s, nil
}

// number reads an integer of 64 bits exactly, anything else as a double.
func (d *decoder) number() (ref.Val, error) {
	start := d.pos
	if d.data[d.pos] == '-' {
		d.pos++
	}
	if d.pos < len(d.data) && d.data[d.pos] == '0' {
		d.pos++
	} else if !d.digits() {
		return nil, d.fault("expected a digit")
	}
	whole := true
	if d.pos < len(d.data) && d.data[d.pos] == '.' {
		whole = false
		if d.pos++; !d.digits() {
			return nil, d.fault("expected a digit after the decimal point")
		}
	}
	if d.pos < len(d.data) && (d.data[d.pos] == 'e' || d.data[d.pos] == 'E') {
		whole = false
		d.pos++
		if d.pos < len(d.data) && (d.data[d.pos] == '+' || d.data[d.pos] == '-') {
			d.pos++
		}
		if !d.digits() {
			return nil, d.fault("expected a digit in the exponent")
		}
	}
	token := d.data[start:d.pos]
	if whole {
		if i, err := strconv.ParseInt(token, 10, 64); err == nil {
			return types.Int(i), nil
		}
	}
	f, err := strconv.ParseFloat(token, 64)
	if err != nil || math.IsInf(f, 0) {
		d.pos = start
		return nil, d.fault("the number %s is out of range", token)
	}
	return types.Double(f), nil
}

func (d *decoder) digits() bool {
	start := d.pos
	for d.pos < len(d.data) && d.data[d.pos] >= '0' && d.data[d.pos] <= '9' {
		d.pos++
	}
	return d.pos > start
}

// within puts a key or an index in front of a fault's path.
func within(part string, err error) error {
	var e *jsonError
	if !errors.As(err, &e) {
		return err
	}
	switch {
	case e.path == "":
		e.path = part
	case strings.HasPrefix(e.path, "["):
		e.path = part + e.path
	default:
		e.path = part + "." + e.path
	}
	return e
}
