package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/ringmaster-dev/ringmaster/internal/spelling"
)

// reader walks the syntax tree and gathers faults.
type reader struct {
	file   string
	lookup func(string) (string, bool)
	faults []Fault
}

// field reads the value of one field; at is the field's full name.
type field func(n ast.Node, at string)

// pair is one entry of a mapping.
type pair struct {
	key     string
	keyNode ast.Node
	value   ast.Node
}

func (r *reader) fault(n ast.Node, field, rule string, args ...any) {
	line := 1
	if n != nil && n.GetToken() != nil && n.GetToken().Position != nil {
		line = n.GetToken().Position.Line
	}
	// A mapping's own token is its first colon, which is on its first line.
	r.faults = append(r.faults, Fault{File: r.file, Line: line, Field: field, Rule: fmt.Sprintf(rule, args...)})
}

// mapping reads the known fields of a mapping and returns which were there;
// nil if n is no mapping.
func (r *reader) mapping(n ast.Node, at string, fields map[string]field) map[string]bool {
	pairs, ok := r.pairs(n, at)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for _, p := range pairs {
		name := p.key
		if at != "" {
			name = at + "." + p.key
		}
		read := fields[p.key]
		switch {
		case read == nil:
			r.fault(p.keyNode, name, "unknown field%s", hint(p.key, fields))
		case seen[p.key]:
			r.fault(p.keyNode, name, "is there twice")
		default:
			seen[p.key] = true
			read(p.value, name)
		}
	}
	return seen
}

// hint names the field that was probably meant.
func hint(key string, fields map[string]field) string {
	if near := spelling.Nearest(key, slices.Sorted(maps.Keys(fields))); near != "" {
		return fmt.Sprintf(" (did you mean %s?)", near)
	}
	return ""
}

func (r *reader) pairs(n ast.Node, at string) ([]pair, bool) {
	var values []*ast.MappingValueNode
	switch m := n.(type) {
	case *ast.MappingNode:
		values = m.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{m}
	default:
		r.fault(n, at, "must be a mapping of names to values")
		return nil, false
	}
	out := make([]pair, 0, len(values))
	for _, v := range values {
		key, ok := scalar(v.Key)
		if !ok {
			r.fault(v.Key, at, "its keys must be plain names")
			continue
		}
		out = append(out, pair{key: key, keyNode: v.Key, value: v.Value})
	}
	return out, true
}

// text reads a string and fills in ${NAME} from the environment. It returns ""
// only if it has recorded a fault.
func (r *reader) text(n ast.Node, at string) string {
	s, ok := scalar(n)
	if !ok {
		r.fault(n, at, "must be a text")
		return ""
	}
	var out strings.Builder
	for rest := s; ; {
		before, after, found := strings.Cut(rest, "${")
		out.WriteString(before)
		if !found {
			break
		}
		name, tail, closed := strings.Cut(after, "}")
		if !closed {
			r.fault(n, at, "has ${ without }")
			return ""
		}
		value, set := r.lookup(name)
		if !set {
			r.fault(n, at, "the environment variable %s is not set", name)
			return ""
		}
		out.WriteString(value)
		rest = tail
	}
	if out.Len() == 0 {
		r.fault(n, at, "must not be empty")
	}
	return out.String()
}

func (r *reader) name(n ast.Node, at string) string {
	s := r.text(n, at)
	if s == "" {
		return ""
	}
	if rule := checkName(s); rule != "" {
		r.fault(n, at, "%s", rule)
	}
	return s
}

func (r *reader) integer(n ast.Node, at string, least, most int64) int64 {
	var i int64
	err := strconv.ErrSyntax
	if node, ok := n.(*ast.IntegerNode); ok {
		i, err = strconv.ParseInt(fmt.Sprint(node.Value), 10, 64)
	}
	if err != nil || i < least || i > most {
		r.fault(n, at, "must be a whole number from %d to %d", least, most)
	}
	return i
}

// scalar is the text of a plain value.
func scalar(n ast.Node) (string, bool) {
	switch v := n.(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.LiteralNode:
		return v.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return v.GetToken().Value, true
	}
	return "", false
}
