package definitions

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// Limits of named locks.
const (
	MaxLockExpressions = 16
	MaxLockNameBytes   = 255 // of an evaluated name
	MaxLockNames       = 256 // that the expressions of one run yield together
)

// SerialPrefix begins the names under which the tokens of [SagaBuilder.Serial]
// travel; a named lock may not begin with it.
const SerialPrefix = "serial:"

// Lock is a named lock that a run wants.
type Lock struct {
	Name   string
	Shared bool
}

// lockDocument is a lock expression as written.
type lockDocument struct {
	name   string
	shared bool
}

// lockExpression is a compiled one.
type lockExpression struct {
	*expression
	shared bool
}

// Lock has each run hold a named lock from before its first step until it has
// ended, for itself alone: of all runs, of whatever workflow, that name the same
// lock at most one is under way. The expression sees input alone; it yields the
// name, or a list of names. A run waits for its locks in the order of their
// names, one after the other, so that no two runs wait for each other.
func (b *SagaBuilder) Lock(expr string) *SagaBuilder {
	b.doc.locks = append(b.doc.locks, lockDocument{name: expr})
	return b
}

// LockShared is Lock, but the lock is shared with other runs that share it. Runs
// that want it for themselves are not overtaken by that.
func (b *SagaBuilder) LockShared(expr string) *SagaBuilder {
	b.doc.locks = append(b.doc.locks, lockDocument{name: expr, shared: true})
	return b
}

// Serial has at most one task be in flight of all runs of this workflow that
// have the same routing key, whatever its step and phase, in the order in which
// they came to be due. The steps of two runs may take turns: what keeps whole
// runs apart is Lock. Child runs and waits are not tasks.
func (b *SagaBuilder) Serial() *SagaBuilder {
	b.doc.serial = true
	return b
}

// Lock is [SagaBuilder.Lock]: the lock is held from before the first participant
// prepares until all know the decision.
func (b *TransactionBuilder) Lock(expr string) *TransactionBuilder {
	b.doc.locks = append(b.doc.locks, lockDocument{name: expr})
	return b
}

// LockShared is [SagaBuilder.LockShared].
func (b *TransactionBuilder) LockShared(expr string) *TransactionBuilder {
	b.doc.locks = append(b.doc.locks, lockDocument{name: expr, shared: true})
	return b
}

// Serial is [SagaBuilder.Serial]. It is for a TCC only: in a two-phase commit a
// prepare may wait for what another run has locked, and that run's commit would
// wait behind it.
func (b *TransactionBuilder) Serial() *TransactionBuilder {
	b.doc.serial = true
	return b
}

// HasLocks reports whether runs want named locks.
func (w *Workflow) HasLocks() bool { return len(w.locks) > 0 }

// Serial reports whether at most one task of a routing key may be in flight.
func (w *Workflow) Serial() bool { return w.serial }

// EvalLocks evaluates which locks a run with that input wants, in the order of
// their names (byte by byte), each once; for itself alone where one expression
// says so and another does not. The error is an *EvalError.
func (w *Workflow) EvalLocks(input []byte) ([]Lock, error) {
	if len(w.locks) == 0 {
		return nil, nil
	}
	sc := w.NewScope(input)
	var locks []Lock
	for _, e := range w.locks {
		v, err := sc.eval(e.expression)
		if err != nil {
			return nil, err
		}
		names, err := lockNames(v)
		if err != nil {
			return nil, e.fail(err)
		}
		for _, name := range names {
			locks = append(locks, Lock{Name: name, Shared: e.shared})
		}
		if len(locks) > MaxLockNames {
			return nil, e.fail(fmt.Errorf("there are more than %d locks", MaxLockNames))
		}
	}
	slices.SortFunc(locks, func(a, b Lock) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 || a.Shared == b.Shared {
			return c
		}
		if b.Shared { // the one that is not shared is kept
			return -1
		}
		return 1
	})
	return slices.CompactFunc(locks, func(a, b Lock) bool { return a.Name == b.Name }), nil
}

// lockNames reads what a lock expression has yielded.
func lockNames(v ref.Val) ([]string, error) {
	if l, ok := v.(traits.Lister); ok {
		list := values{l}
		if list.size() > MaxLockNames {
			return nil, fmt.Errorf("yields more than %d names", MaxLockNames)
		}
		names := make([]string, 0, list.size())
		for i := range list.size() {
			name, err := lockName(list.at(i))
			if err != nil {
				return nil, fmt.Errorf("[%d]: %w", i, err)
			}
			names = append(names, name)
		}
		return names, nil
	}
	name, err := lockName(v)
	return []string{name}, err
}

func lockName(v ref.Val) (string, error) {
	s, ok := v.(types.String)
	if !ok {
		return "", fmt.Errorf("yields %s, but must yield %s", v.Type().TypeName(), wantNames)
	}
	name := string(s)
	switch {
	case name == "":
		return "", errors.New("yields an empty string")
	case len(name) > MaxLockNameBytes:
		return "", fmt.Errorf("yields a string longer than %d bytes", MaxLockNameBytes)
	case strings.HasPrefix(name, SerialPrefix):
		return "", fmt.Errorf("yields a name that begins with %q, which is not for locks", SerialPrefix)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return "", errors.New("yields a string with characters that do not print")
	}
	return name, nil
}

// locks checks and compiles the lock expressions, and what goes with Serial.
func (v *validator) locks(w *Workflow) {
	if v.doc.serial && v.doc.kind == KindTwoPhase {
		v.fault(-1, "serial", RuleValue, "a two-phase commit cannot be serial, since a prepare may wait for what another run has locked; give it a lock instead")
	}
	w.serial = v.doc.serial
	if n := len(v.doc.locks); n > MaxLockExpressions {
		v.fault(-1, "locks", RuleLimit, "%d lock expressions are more than the limit of %d", n, MaxLockExpressions)
		return
	}
	for i, l := range v.doc.locks {
		field := "locks[" + strconv.Itoa(i) + "].name"
		if l.name == "" {
			v.fault(-1, field, RuleRequired, "a lock needs an expression for its name")
			continue
		}
		e := v.expression(w, -1, field, l.name, wantNames, func(int) string {
			return "locks are taken before any step runs"
		})
		if e != nil {
			w.locks = append(w.locks, lockExpression{e, l.shared})
		}
	}
}

// locks writes the fields of locks and of Serial.
func (o *writer) locks(w *Workflow) {
	if len(w.locks) > 0 {
		o.key("locks")
		o.b = append(o.b, '[')
		for i, l := range w.locks {
			if i > 0 {
				o.b = append(o.b, ',')
			}
			item := writer{b: append(o.b, '{')}
			item.expression("name", l.expression)
			item.flag("shared", l.shared)
			o.b = append(item.b, '}')
		}
		o.b = append(o.b, ']')
	}
	o.flag("serial", w.serial)
}

func (o *writer) flag(k string, on bool) {
	if on {
		o.key(k)
		o.b = append(o.b, "true"...)
	}
}

// locks reads the lock expressions.
func (f *fields) locks(key string) (locks []lockDocument) {
	l, path, _ := f.list(key)
	for i := range l.size() {
		item, ok := f.r.fields(path+"["+strconv.Itoa(i)+"]", "", l.at(i))
		if !ok {
			continue
		}
		locks = append(locks, lockDocument{name: item.text("name"), shared: item.flag("shared")})
		item.rest()
	}
	return locks
}
