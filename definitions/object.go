package definitions

import (
	"fmt"
	"reflect"
	"slices"
	"sort"
	"strings"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// object is a JSON object as CEL sees it. Unlike a Go map it has an order, that
// of its keys, so that an expression which iterates over it yields the same
// every time; and it is cheaper to build.
type object struct {
	keys []string // ascending
	vals []ref.Val
}

var _ traits.Mapper = (*object)(nil)
var _ traits.Foldable = (*object)(nil)

// order sorts by key. Of equal keys the last one written stays; one that was
// there more than once is returned.
func (o *object) order() (duplicate string, found bool) {
	sort.Stable((*byKey)(o))
	n := 0
	for i := range o.keys {
		if n > 0 && o.keys[n-1] == o.keys[i] {
			n--
			duplicate, found = o.keys[i], true
		}
		o.keys[n], o.vals[n] = o.keys[i], o.vals[i]
		n++
	}
	o.keys, o.vals = o.keys[:n], o.vals[:n]
	return duplicate, found
}

// byKey sorts an object in place.
type byKey object

func (o *byKey) Len() int           { return len(o.keys) }
func (o *byKey) Less(a, b int) bool { return o.keys[a] < o.keys[b] }
func (o *byKey) Swap(a, b int) {
	o.keys[a], o.keys[b] = o.keys[b], o.keys[a]
	o.vals[a], o.vals[b] = o.vals[b], o.vals[a]
}

func (o *object) get(key string) (ref.Val, bool) {
	if len(o.keys) <= 8 { // faster than a search
		for i, k := range o.keys {
			if k == key {
				return o.vals[i], true
			}
		}
		return nil, false
	}
	if i, ok := slices.BinarySearch(o.keys, key); ok {
		return o.vals[i], true
	}
	return nil, false
}

// FindStringKey is the interpreter's short way to a field.
func (o *object) FindStringKey(key string) (any, bool) {
	return o.get(key)
}

// Find implements traits.Mapper.
func (o *object) Find(key ref.Val) (ref.Val, bool) {
	switch k := key.(type) {
	case types.String:
		return o.get(string(k))
	case *types.Err, *types.Unknown:
		return k, false
	}
	return nil, false
}

// Get implements traits.Indexer.
func (o *object) Get(key ref.Val) ref.Val {
	v, ok := o.Find(key)
	if !ok {
		return types.ValOrErr(v, "no such key: %v", key)
	}
	return v
}

// Contains implements traits.Container.
func (o *object) Contains(key ref.Val) ref.Val {
	if types.IsUnknownOrError(key) {
		return key
	}
	_, ok := o.Find(key)
	return types.Bool(ok)
}

// Size implements traits.Sizer.
func (o *object) Size() ref.Val { return types.Int(len(o.keys)) }

// Iterator implements traits.Iterable, in the order of keys.
func (o *object) Iterator() traits.Iterator {
	keys := make([]ref.Val, len(o.keys))
	for i, k := range o.keys {
		keys[i] = types.String(k)
	}
	return &keyIterator{keys: keys}
}

// Fold implements traits.Foldable, in the order of keys.
func (o *object) Fold(f traits.Folder) {
	for i, k := range o.keys {
		if !f.FoldEntry(types.String(k), o.vals[i]) {
			return
		}
	}
}

// Equal implements ref.Val.
func (o *object) Equal(other ref.Val) ref.Val {
	m, ok := other.(traits.Mapper)
	if !ok || m.Size() != o.Size() {
		return types.False
	}
	for i, k := range o.keys {
		v, found := m.Find(types.String(k))
		if !found || types.Equal(o.vals[i], v) == types.False {
			return types.False
		}
	}
	return types.True
}

// Type implements ref.Val.
func (o *object) Type() ref.Type { return types.MapType }

// Value implements ref.Val.
func (o *object) Value() any { return o }

// IsZeroValue implements traits.Zeroer.
func (o *object) IsZeroValue() bool { return len(o.keys) == 0 }

// ConvertToType implements ref.Val.
func (o *object) ConvertToType(t ref.Type) ref.Val {
	switch t {
	case types.MapType:
		return o
	case types.TypeType:
		return types.MapType
	}
	return types.NewErr("type conversion error from '%s' to '%s'", types.MapType, t)
}

// ConvertToNative implements ref.Val. Nothing here needs a Go value.
func (o *object) ConvertToNative(t reflect.Type) (any, error) {
	if reflect.TypeOf(o).AssignableTo(t) {
		return o, nil
	}
	return nil, fmt.Errorf("type conversion error from map to '%v'", t)
}

// String shows the object in error messages.
func (o *object) String() string {
	var b strings.Builder
	b.WriteByte('{')
	for i, k := range o.keys {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s: %v", k, o.vals[i])
	}
	b.WriteByte('}')
	return b.String()
}

// ordered gives a map that CEL built a fixed order of iteration.
type ordered struct {
	traits.Mapper
}

// Iterator implements traits.Iterable.
func (m ordered) Iterator() traits.Iterator {
	return &keyIterator{keys: sortedKeys(m.Mapper)}
}

// Fold implements traits.Foldable.
func (m ordered) Fold(f traits.Folder) {
	for _, k := range sortedKeys(m.Mapper) {
		v, _ := m.Find(k)
		if !f.FoldEntry(k, v) {
			return
		}
	}
}

// sortedKeys returns a map's keys by type, then by value.
func sortedKeys(m traits.Mapper) []ref.Val {
	var keys []ref.Val
	for it := m.Iterator(); it.HasNext() == types.True; {
		keys = append(keys, it.Next())
	}
	slices.SortFunc(keys, func(a, b ref.Val) int {
		if ta, tb := a.Type().TypeName(), b.Type().TypeName(); ta != tb {
			return strings.Compare(ta, tb)
		}
		if c, ok := a.(traits.Comparer); ok {
			if n, ok := c.Compare(b).(types.Int); ok {
				return int(n)
			}
		}
		return 0
	})
	return keys
}

// keyIterator walks over keys. It is never a value of its own.
type keyIterator struct {
	keys []ref.Val
}

func (it *keyIterator) HasNext() ref.Val { return types.Bool(len(it.keys) > 0) }

func (it *keyIterator) Next() ref.Val {
	if len(it.keys) == 0 {
		return nil
	}
	k := it.keys[0]
	it.keys = it.keys[1:]
	return k
}

func (it *keyIterator) ConvertToNative(reflect.Type) (any, error) {
	return nil, fmt.Errorf("type conversion on iterators not supported")
}
func (it *keyIterator) ConvertToType(ref.Type) ref.Val { return types.NewErr("no such overload") }
func (it *keyIterator) Equal(ref.Val) ref.Val          { return types.NewErr("no such overload") }
func (it *keyIterator) Type() ref.Type                 { return types.IteratorType }
func (it *keyIterator) Value() any                     { return nil }
