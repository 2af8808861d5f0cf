package api

import (
	"encoding/json"
	"time"
	"unicode/utf8"

	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// readStart decodes a start as huma would, where it is sure that huma would
// accept it; otherwise ok is false, and nothing is said about why. Whatever it
// returns holds copies of b's bytes.
func readStart(b []byte) (s rest.Start, ok bool) {
	if !utf8.Valid(b) || !json.Valid(b) {
		return s, false
	}
	c := cursor{b: b}
	return s, c.start(&s) && c.end()
}

// readBatch is readStart for a batch.
func readBatch(b []byte) (runs []rest.Start, ok bool) {
	if !utf8.Valid(b) || !json.Valid(b) {
		return nil, false
	}
	c := cursor{b: b}
	seen := false
	ok = c.object(func(name []byte) bool {
		if string(name) != "runs" || seen {
			return false
		}
		seen = true
		return c.array(func() bool {
			if len(runs) == rest.MaxBatch {
				return false
			}
			runs = append(runs, rest.Start{})
			return c.start(&runs[len(runs)-1])
		})
	})
	return runs, ok && c.end() && len(runs) > 0
}

// cursor walks over bytes that are known to be valid JSON.
type cursor struct {
	b []byte
	i int
}

// peek returns the next byte that is not space; 0 at the end.
func (c *cursor) peek() byte {
	for c.i < len(c.b) {
		switch c.b[c.i] {
		case ' ', '\t', '\n', '\r':
			c.i++
		default:
			return c.b[c.i]
		}
	}
	return 0
}

func (c *cursor) end() bool { return c.peek() == 0 }

// object calls member at the value of each member of an object.
func (c *cursor) object(member func(name []byte) bool) bool {
	if c.peek() != '{' {
		return false
	}
	c.i++
	for first := true; c.peek() != '}'; first = false {
		if !first {
			c.i++ // the comma
			c.peek()
		}
		name := c.value()
		c.peek()
		c.i++ // the colon
		if !member(name[1 : len(name)-1]) {
			return false
		}
	}
	c.i++
	return true
}

// array calls element at each element of an array.
func (c *cursor) array(element func() bool) bool {
	if c.peek() != '[' {
		return false
	}
	c.i++
	for first := true; c.peek() != ']'; first = false {
		if !first {
			c.i++ // the comma
		}
		if !element() {
			return false
		}
	}
	c.i++
	return true
}

// value returns the next value as it is written and goes past it.
func (c *cursor) value() []byte {
	c.peek()
	from, depth := c.i, 0
	for c.i < len(c.b) {
		switch c.b[c.i] {
		case '"':
			c.skipString()
		case '{', '[':
			depth++
			c.i++
		case '}', ']':
			if depth == 0 {
				return c.b[from:c.i] // the end of what the value is in
			}
			depth--
			c.i++
		case ',', ':', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return c.b[from:c.i]
			}
			c.i++
			continue
		default:
			c.i++
			continue // within a number or a literal
		}
		if depth == 0 {
			break
		}
	}
	return c.b[from:c.i]
}

func (c *cursor) skipString() {
	for c.i++; c.b[c.i] != '"'; c.i++ {
		if c.b[c.i] == '\\' {
			c.i++
		}
	}
	c.i++
}

// text reads a string of at most limit characters.
func (c *cursor) text(to *string, limit int) bool {
	if c.peek() != '"' {
		return false
	}
	v := c.value()
	plain := true
	for _, x := range v[1 : len(v)-1] {
		if x == '\\' {
			plain = false
			break
		}
	}
	if plain {
		*to = string(v[1 : len(v)-1])
	} else if json.Unmarshal(v, to) != nil {
		return false
	}
	return len(*to) <= limit || utf8.RuneCountInString(*to) <= limit
}

// noLimit is for strings whose length the schema does not bound.
const noLimit = 1 << 30

func (c *cursor) start(s *rest.Start) bool {
	var seen uint
	once := func(bit uint) bool {
		again := seen&(1<<bit) != 0
		seen |= 1 << bit
		return !again
	}
	ok := c.object(func(name []byte) bool {
		switch string(name) {
		case "workflow":
			return once(0) && c.text(&s.Workflow, 128)
		case "id":
			return once(1) && c.text(&s.ID, maxIDBytes)
		case "input":
			c.peek()
			s.Input = append(json.RawMessage(nil), c.value()...)
			return once(2)
		case "key":
			return once(3) && c.text(&s.Key, 256)
		case "priority":
			v := c.value()
			if len(v) != 1 || v[0] < '0' || v[0] > '9' {
				return false
			}
			s.Priority = int(v[0] - '0')
			return once(4)
		case "tags":
			return once(5) && c.tags(s)
		case "deadline":
			s.Deadline = new(time.Time)
			return once(6) && s.Deadline.UnmarshalJSON(c.value()) == nil && !s.Deadline.IsZero()
		}
		return false
	})
	return ok && s.Workflow != "" && brokenIDRule(s.ID) == ""
}

func (c *cursor) tags(s *rest.Start) bool {
	s.Tags = map[string]string{}
	return c.object(func(name []byte) bool {
		for _, x := range name {
			if x == '\\' {
				return false
			}
		}
		var value string
		if !c.text(&value, noLimit) {
			return false
		}
		s.Tags[string(name)] = value
		return true
	})
}
