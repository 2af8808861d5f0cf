package definitions

import (
	"errors"
	"slices"
	"strconv"
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// Parse reads a definition from its JSON, canonical or not, validates and
// compiles it. It is strict: unknown fields, duplicate keys and values of the
// wrong type are faults. Durations are strings in Go's form ("1m30s").
//
// Beyond what canonical JSON has, a workflow may have a service, for steps
// without one, and a step may lack "after": it then comes after the step
// before it. The error is an *Invalid.
func Parse(data []byte) (*Workflow, error) {
	if len(data) > MaxDefinitionBytes {
		return nil, &Invalid{Faults: []Fault{{Rule: RuleLimit,
			Message: "the definition has " + strconv.Itoa(len(data)) + " bytes; the limit is " + strconv.Itoa(MaxDefinitionBytes)}}}
	}
	v, err := decodeJSON(data, true)
	if err != nil {
		f := Fault{Rule: RuleSyntax, Message: err.Error()}
		var e *jsonError
		if errors.As(err, &e) {
			f = Fault{Field: e.path, Rule: e.rule, Message: e.reason + " (at offset " + strconv.Itoa(e.offset) + ")"}
		}
		return nil, &Invalid{Faults: []Fault{f}}
	}
	r := &reader{}
	doc, ok := r.document(v)
	if !ok {
		return nil, &Invalid{Workflow: doc.name, Faults: r.faults}
	}
	return compile(doc, r.faults)
}

// reader turns a decoded definition into a document and notes what is not as
// the format has it.
type reader struct {
	faults []Fault
}

// document returns false if what was read is too far from a definition to
// say anything else about it.
func (r *reader) document(v ref.Val) (document, bool) {
	f, ok := r.fields("", "", v)
	if !ok {
		return document{}, false
	}
	doc := document{
		kind:        Kind(f.text("kind")),
		name:        f.text("name"),
		description: f.text("description"),
		service:     f.text("service"),
		routingKey:  f.text("routing_key"),
		deadline:    f.duration("deadline"),
		output:      f.text("output"),
		locks:       f.locks("locks"),
		serial:      f.flag("serial"),
	}
	list, item := "steps", r.step
	if doc.kind.HasParticipants() {
		list, item = "participants", r.participant
	}
	steps, path, given := f.list(list)
	f.rest()
	if given && steps == nil {
		return doc, false
	}
	if n := steps.size(); n > MaxSteps {
		return document{kind: doc.kind, name: doc.name, steps: make([]stepDocument, n)}, true
	}
	for i := range steps.size() {
		doc.steps = append(doc.steps, item(path+"["+strconv.Itoa(i)+"]", steps.at(i)))
	}
	return doc, true
}

func (r *reader) step(path string, v ref.Val) stepDocument {
	f, ok := r.member(path, v)
	if !ok {
		return stepDocument{}
	}
	s := stepDocument{
		name:              f.text("name"),
		service:           f.text("service"),
		action:            f.text("action"),
		compensation:      f.text("compensation"),
		noCompensation:    f.text("no_compensation"),
		hasNoCompensation: f.has("no_compensation"),
		pivot:             f.flag("pivot"),
	}
	s.waitDocument = f.readWait()
	s.choiceDocument = f.readChoice()
	s.childDocument = f.readChild()
	s.after, s.hasAfter = f.texts("after")
	s.when = f.text("when")
	s.forEach = f.text("for_each")
	s.parallel = f.integer("parallel")
	s.maxItems = f.integer("max_items")
	s.input = f.text("input")
	s.compensationInput = f.text("compensation_input")
	s.retry = f.retry("retry")
	s.compensationRetry = f.retry("compensation_retry")
	s.timeout = f.duration("timeout")
	s.compensationTimeout = f.duration("compensation_timeout")
	s.queueTimeout = f.duration("queue_timeout")
	s.placement = f.placement("placement")
	f.rest()
	return s
}

// member reads the fields of a step or participant.
func (r *reader) member(path string, v ref.Val) (*fields, bool) {
	name := ""
	if o, ok := v.(*object); ok {
		if s, found := o.get("name"); found {
			text, _ := s.(types.String)
			name = string(text)
		}
	}
	return r.fields(path, name, v)
}

// fields reads the fields of one object.
type fields struct {
	r    *reader
	path string
	step string // the name of the step it belongs to
	o    *object
	seen []string
}

func (r *reader) fields(path, step string, v ref.Val) (*fields, bool) {
	o, ok := v.(*object)
	f := &fields{r: r, path: path, step: step, o: o}
	if !ok {
		f.o = &object{}
		r.faults = append(r.faults, Fault{Step: step, Field: path, Rule: RuleType, Message: "must be an object, not " + jsonType(v)})
	}
	return f, ok
}

func (f *fields) at(key string) string {
	if f.path == "" {
		return key
	}
	return f.path + "." + key
}

func (f *fields) fault(key, rule, message string) {
	f.r.faults = append(f.r.faults, Fault{Step: f.step, Field: f.at(key), Rule: rule, Message: message})
}

func (f *fields) wrong(key, wanted string, v ref.Val) {
	f.fault(key, RuleType, "must be "+wanted+", not "+jsonType(v))
}

func (f *fields) get(key string) (ref.Val, bool) {
	f.seen = append(f.seen, key)
	return f.o.get(key)
}

func (f *fields) has(key string) bool {
	_, ok := f.o.get(key)
	return ok
}

// rest notes the fields that nobody asked for.
func (f *fields) rest() {
	for _, k := range f.o.keys {
		if !slices.Contains(f.seen, k) {
			f.fault(k, RuleUnknownField, "there is no such field")
		}
	}
}

func (f *fields) text(key string) string {
	v, ok := f.get(key)
	if !ok {
		return ""
	}
	s, ok := v.(types.String)
	if !ok {
		f.wrong(key, "a string", v)
	}
	return string(s)
}

func (f *fields) flag(key string) bool {
	v, ok := f.get(key)
	if !ok {
		return false
	}
	b, ok := v.(types.Bool)
	if !ok {
		f.wrong(key, "true or false", v)
	}
	return bool(b)
}

func (f *fields) duration(key string) time.Duration {
	v, ok := f.get(key)
	if !ok {
		return 0
	}
	s, ok := v.(types.String)
	if !ok {
		f.wrong(key, `a duration as a string such as "30s"`, v)
		return 0
	}
	d, err := time.ParseDuration(string(s))
	if err != nil {
		f.fault(key, RuleDuration, strconv.Quote(string(s))+` is not a duration such as "30s" or "1m30s"`)
	}
	return d
}

func (f *fields) number(key string) (float64, bool) {
	v, ok := f.get(key)
	if !ok {
		return 0, false
	}
	switch n := v.(type) {
	case types.Int:
		return float64(n), true
	case types.Double:
		return float64(n), true
	}
	f.wrong(key, "a number", v)
	return 0, false
}

func (f *fields) integer(key string) int {
	v, ok := f.get(key)
	if !ok {
		return 0
	}
	n, ok := v.(types.Int)
	if !ok {
		f.wrong(key, "an integer", v)
		return 0
	}
	return int(n)
}

func (f *fields) placement(key string) Placement {
	v, ok := f.get(key)
	if !ok {
		return Bounded
	}
	s, ok := v.(types.String)
	if !ok {
		f.wrong(key, "a string", v)
		return Bounded
	}
	for p := Bounded; p <= LeastLoaded; p++ {
		if p.String() == string(s) {
			return p
		}
	}
	f.fault(key, RuleValue, strconv.Quote(string(s))+" is not one of ring, bounded and least-loaded")
	return Bounded
}

func (f *fields) texts(key string) (texts []string, given bool) {
	l, path, given := f.list(key)
	for i := range l.size() {
		s, ok := l.at(i).(types.String)
		if !ok {
			f.r.faults = append(f.r.faults, Fault{Step: f.step, Field: path + "[" + strconv.Itoa(i) + "]",
				Rule: RuleType, Message: "must be a string, not " + jsonType(l.at(i))})
			continue
		}
		texts = append(texts, string(s))
	}
	return texts, given
}

func (f *fields) retry(key string) RetryPolicy {
	v, ok := f.get(key)
	if !ok {
		return RetryPolicy{}
	}
	r, ok := f.r.fields(f.at(key), f.step, v)
	if !ok {
		return RetryPolicy{}
	}
	p := RetryPolicy{Initial: r.duration("initial"), Max: r.duration("max")}
	p.Multiplier, _ = r.number("multiplier")
	jitter, given := r.number("jitter")
	switch {
	case given && jitter == 0:
		p.Jitter = NoJitter
	case jitter < 0:
		r.fault("jitter", RuleRetry, "must be between 0 and 1")
	default:
		p.Jitter = jitter
	}
	p.MaxAttempts = r.integer("max_attempts")
	p.MaxElapsed = r.duration("max_elapsed")
	p.NonRetryable, _ = r.texts("non_retryable")
	r.rest()
	return p
}

// values is a list, or none.
type values struct {
	l traits.Lister
}

func (l *values) size() int {
	if l == nil {
		return 0
	}
	n, _ := l.l.Size().(types.Int)
	return int(n)
}

func (l *values) at(i int) ref.Val { return l.l.Get(types.Int(i)) }

func (f *fields) list(key string) (l *values, path string, given bool) {
	path = f.at(key)
	v, ok := f.get(key)
	if !ok {
		return nil, path, false
	}
	lister, ok := v.(traits.Lister)
	if !ok {
		f.wrong(key, "a list", v)
		return nil, path, true
	}
	return &values{lister}, path, true
}

// jsonType names the type of a decoded value for people.
func jsonType(v ref.Val) string {
	switch v.(type) {
	case types.Null:
		return "null"
	case types.Bool:
		return "a bool"
	case types.Int, types.Double:
		return "a number"
	case types.String:
		return "a string"
	case *object:
		return "an object"
	}
	return "a list"
}
