package machine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// DefaultMaxItems is how many items a step may fan out to, unless LimitItems
// says otherwise.
const DefaultMaxItems = 1_000

// MaxItemOutputs bounds the outputs of all items of a step together, in bytes.
const MaxItemOutputs = 8 << 20

// What one Step starts of items: enough to keep workers busy, and little enough
// that neither the record of its events nor the time that it takes grows with
// the number of items. What is left follows with a Tick, for which Wake asks at
// once.
const (
	maxStarts     = 64
	maxStartBytes = 1 << 20
	maxStartCost  = definitions.EvaluationCostLimit
)

// fan is what a step has that fans out, from the event on that says so. Its
// items are steps of the state with indexes of their own.
type fan struct {
	first int      // index of the first item
	n     int      // how many there are
	list  []byte   // a JSON text
	at    []uint32 // where in list the items begin; the end of the last + 1

	// What follows is counted by touch.
	next    int     // the first item that has not been started
	open    []int32 // see State.live; ascending
	working int     // items whose action is under way, or stalled
	done    int     // items that have succeeded or been skipped
	undo    int     // items that are yet to be compensated
	undoing int     // ... of which the compensation has begun
	cursor  int     // no item from here on has a compensation that is yet to begin
	outputs int     // bytes of the items' outputs
}

// class is for what an item counts in its fan.
type class uint8

const (
	isOpen class = 1 << iota
	isWorking
	isDone
	isUndo
	isUndoing
)

// LimitItems sets how many items a step may fan out to; it is the orchestrator's
// limit, beside that of the definition. Without a call it is DefaultMaxItems.
func (s *State) LimitItems(n int) { s.maxItems = n }

// Items tells to which items step i has fanned out: n steps from index first on.
// It is not ok if the step has not fanned out (yet), or is itself an item.
func (s *State) Items(i int) (first, n int, ok bool) {
	if f := s.steps[i].fan; f != nil {
		return f.first, f.n, true
	}
	return 0, 0, false
}

// ItemOf tells of which step i is an item; not ok if it is none.
func (s *State) ItemOf(i int) (step, index int, ok bool) {
	if i < s.wf.Len() {
		return 0, 0, false
	}
	step = int(s.steps[i].of)
	return step, i - s.steps[step].fan.first, true
}

// itemIndex is the index of the item of that name; -1 if there is none.
func (s *State) itemIndex(name string) int {
	step, rest, _ := strings.Cut(name, "[")
	digits, found := strings.CutSuffix(rest, "]")
	of := s.wf.StepIndex(step)
	if !found || of < 0 || s.steps[of].fan == nil {
		return -1
	}
	f := s.steps[of].fan
	k, err := strconv.Atoi(digits)
	if err != nil || k < 0 || k >= f.n || strconv.Itoa(k) != digits {
		return -1
	}
	return f.first + k
}

// item is what expressions about item i see of it.
func (s *State) item(i int) definitions.Item {
	of := int(s.steps[i].of)
	f := s.steps[of].fan
	return definitions.Item{Step: of, Index: i - f.first, Value: f.value(i - f.first)}
}

// value is item k of the list.
func (f *fan) value(k int) []byte {
	from, to := f.at[k], f.at[k+1]-1
	return bytes.TrimSpace(f.list[from:to:to])
}

// join is the list of the items' outputs. The items share its memory from now on.
func (s *State) join(f *fan) []byte {
	b := make([]byte, 0, f.outputs+5*f.n+2)
	b = append(b, '[')
	for k := range f.n {
		if k > 0 {
			b = append(b, ',')
		}
		from := len(b)
		st := &s.steps[f.first+k]
		b = append(b, orNull(st.output)...)
		if len(st.output) > 0 {
			st.output = b[from:len(b):len(b)]
		}
	}
	return append(b, ']')
}

// errNotList: a list that was given is not one.
var errNotList = errors.New("is not a JSON list")

// cutList tells where the elements of a JSON list begin; the last number is that
// of the list's end. At most most elements are taken.
func cutList(list []byte, most int) ([]uint32, error) {
	if !json.Valid(list) || len(list) > 1<<31 || list[0] != '[' {
		return nil, errNotList
	}
	at := make([]uint32, 0, 1+bytes.Count(list, []byte{','}))
	at = append(at, 1)
	depth, quoted := 0, false
	for i, c := range list {
		switch {
		case quoted:
			quoted = c != '"' || escaped(list, i)
		case c == '"':
			quoted = true
		case c == '[' || c == '{':
			depth++
		case c == '}', c == ']':
			depth--
		case c == ',' && depth == 1:
			at = append(at, uint32(i+1))
		}
		if len(at) > most {
			return nil, fmt.Errorf("has more than %d elements", most)
		}
	}
	if len(bytes.TrimSpace(list[1:len(list)-1])) == 0 {
		at = at[:0]
	}
	return append(at, uint32(len(list))), nil
}

// escaped tells whether the quote at i stands after an odd number of
// backslashes.
func escaped(text []byte, i int) bool {
	n := 0
	for i--; text[i] == '\\'; i-- {
		n++
	}
	return n%2 == 1
}

// checkItems is the part of check that concerns steps that fan out: they have no
// attempts of their own.
func (s *State) checkItems(e *Event) error {
	if e.Kind == StepExpanded {
		return s.checkExpanded(e)
	}
	if e.Step < 0 || e.Step >= s.wf.Len() || !s.wf.Step(e.Step).ForEach || s.participants {
		return nil
	}
	expanded := s.steps[e.Step].fan != nil
	if e.Kind.ofAttempt() || e.Phase == Compensate || expanded && e.Kind != TurnedBack {
		return fmt.Errorf("%w: event %d (%v): step %d fans out and has no attempts of its own", ErrCorrupt, e.Seq, e.Kind, e.Step)
	}
	return nil
}

// checkExpanded tells whether a step can fan out to the list of e.
func (s *State) checkExpanded(e *Event) error {
	fits := !s.participants && !s.turned && e.Step < s.wf.Len() && s.wf.Step(e.Step).ForEach &&
		s.steps[e.Step].fan == nil && s.steps[e.Step].state <= stepActive
	if !fits {
		return fmt.Errorf("%w: event %d (%v): step %d cannot fan out", ErrCorrupt, e.Seq, e.Kind, e.Step)
	}
	if _, err := cutList(e.Payload, definitions.MaxItemsLimit); err != nil {
		return fmt.Errorf("%w: event %d (%v): the list %w", ErrCorrupt, e.Seq, e.Kind, err)
	}
	return nil
}

func (s *State) foldExpanded(e *Event) {
	s.begin(e.Step, Action)
	s.steps[e.Step].action.waiting = false
	f := s.spread(e.Step, e.Payload)
	if f.n == 0 {
		s.applied(e.Step, s.join(f))
	}
}

// spread gives a step its items.
func (s *State) spread(i int, list []byte) *fan {
	// What is no list has been refused before.
	at, _ := cutList(list, definitions.MaxItemsLimit)
	f := &fan{first: len(s.steps), n: len(at) - 1, list: list, at: at}
	s.steps[i].fan = f
	s.fans = append(s.fans, i)
	s.steps = slices.Grow(s.steps, f.n)[:f.first+f.n]
	for k := f.first; k < len(s.steps); k++ {
		s.steps[k] = step{of: int32(i)}
	}
	return f
}

// touch counts item i anew after something has happened to it, and ends its
// step when it was the last to succeed.
func (s *State) touch(i int) {
	st := &s.steps[i]
	of := int(st.of)
	f := s.steps[of].fan
	c := s.classify(i)
	f.count(c, 1)
	f.count(st.class, -1)
	if (c^st.class)&isOpen != 0 {
		at, found := slices.BinarySearch(f.open, int32(i))
		if found {
			f.open = slices.Delete(f.open, at, at+1)
		} else {
			f.open = slices.Insert(f.open, at, int32(i))
		}
	}
	st.class = c
	for f.next < f.n && s.steps[f.first+f.next].state != stepPending {
		f.next++
	}
	if c&(isUndo|isUndoing) == isUndo {
		f.cursor = max(f.cursor, i-f.first+1)
	}
	if f.done == f.n && !s.turned && s.steps[of].state == stepActive {
		s.applied(of, s.join(f))
	}
}

func (s *State) classify(i int) (c class) {
	st := &s.steps[i]
	if st.action.outstanding || st.action.waiting || st.stalled != 0 ||
		st.comp != nil && (st.comp.outstanding || st.comp.waiting) {
		c |= isOpen
	}
	if st.state == stepActive || st.stalled == Action {
		c |= isWorking
	}
	if st.state == stepSucceeded || st.state == stepSkipped {
		c |= isDone
	}
	if s.toUndo(i) {
		if c |= isUndo; st.undo == undoActive {
			c |= isUndoing
		}
	}
	return c
}

func (f *fan) count(c class, by int) {
	if c&isWorking != 0 {
		f.working += by
	}
	if c&isDone != 0 {
		f.done += by
	}
	if c&isUndo != 0 {
		f.undo += by
	}
	if c&isUndoing != 0 {
		f.undoing += by
	}
}

// expand has a step fan out, if its condition holds. A list that an operator
// gave takes the place of its expression.
func (d *decision) expand(i int) {
	def, t := d.def(i), &d.steps[i].action
	generation := max(t.generation, 1)
	if !t.ordered && !d.wanted(i, generation) {
		return
	}
	var err error
	list := t.input
	if t.ordered {
		var at []uint32
		if at, err = cutList(list, definitions.MaxItemsLimit); err == nil {
			err = def.CheckItems(len(at)-1, d.maxItems)
		}
		if err != nil {
			err = fmt.Errorf("the list that was given instead of for_each: %w", err)
		}
	} else {
		list, _, err = d.getScope().Items(i, d.maxItems)
	}
	if err != nil {
		d.refuse(i, Action, generation, err)
		return
	}
	d.emit(Event{Kind: StepExpanded, Step: i, Phase: Action, Payload: list})
}

// budget bounds what one Step starts of items.
type budget struct {
	starts, bytes int
	cost          uint64 // of the scope, when the first was started
}

// mayStart tells whether this Step may start one more item.
func (d *decision) mayStart() bool {
	b := &d.budget
	if b.starts == 0 {
		b.cost = d.getScope().Cost()
	}
	return b.starts < maxStarts && b.bytes < maxStartBytes && d.getScope().Cost()-b.cost < maxStartCost
}

// startItem schedules the next attempt of an item, and counts it.
func (d *decision) startItem(i int, p Phase) {
	before := len(d.events)
	d.launch(i, p)
	d.budget.starts++
	for k := before; k < len(d.events); k++ {
		d.budget.bytes += len(d.events[k].Payload)
	}
}

// startItems starts the attempts of items that are due, and further items as far
// as the window goes. An item that has stalled keeps its place in the window.
func (d *decision) startItems(of int) {
	f := d.steps[of].fan
	for k := 0; k < len(f.open) && !d.turned && d.mayStart(); k++ {
		i := int(f.open[k])
		if t := &d.steps[i].action; t.waiting && t.retryAt <= d.now {
			d.startItem(i, Action)
		}
	}
	for d.startable(of) && d.mayStart() {
		d.startItem(f.first+f.next, Action)
	}
}

// startable tells whether step i has an item that can be started now.
func (s *State) startable(of int) bool {
	f := s.steps[of].fan
	return !s.turned && s.steps[of].state == stepActive && f.next < f.n && f.working < s.wf.Step(of).Parallel
}

// undoItems starts the compensations of items that are due and, unless the step
// is held, further ones, from the last item to the first, as far as the window
// goes.
func (d *decision) undoItems(of int, held bool) {
	f := d.steps[of].fan
	for k := 0; k < len(f.open) && d.mayStart(); k++ {
		i := int(f.open[k])
		if st := &d.steps[i]; st.undo == undoActive && st.comp.waiting && st.comp.retryAt <= d.now {
			d.startItem(i, Compensate)
		}
	}
	for !held && d.undoable(of) && d.mayStart() {
		d.startItem(f.first+f.cursor-1, Compensate)
	}
}

// undoable tells whether step i, if nothing holds it, has an item whose
// compensation can begin now. The cursor then is one past it.
func (s *State) undoable(of int) bool {
	f := s.steps[of].fan
	for f.cursor > 0 && s.steps[f.first+f.cursor-1].class&(isUndo|isUndoing) != isUndo {
		f.cursor--
	}
	return f.cursor > 0 && f.undoing < s.wf.Step(of).Parallel
}

// more tells whether the last Step has left items that can be started now.
func (s *State) more() bool {
	if len(s.fans) == 0 {
		return false
	}
	if !s.turned {
		return slices.ContainsFunc(s.fans, s.startable)
	}
	if s.acting() {
		return false
	}
	for i, held := range s.undoing() {
		if !held && s.steps[i].fan != nil && s.undoable(i) {
			return true
		}
	}
	return false
}

// fits tells whether the outputs of an item's step can hold one more.
func (s *State) fits(i int, output []byte) bool {
	of, _, ok := s.ItemOf(i)
	return !ok || s.steps[of].fan.outputs+len(output) <= MaxItemOutputs
}

// word is the state of a step that has fanned out, in the words of the API.
func (s *State) fanWord(i int) string {
	st := &s.steps[i]
	f := st.fan
	has := map[string]bool{}
	for k := f.first; k < f.first+f.n; k++ {
		has[s.word(k)] = true
	}
	words := []string{"stalled", "compensating"}
	switch {
	case !s.turned && st.state == stepActive:
		words = append(words, "running", "retrying")
	case !s.turned:
	case f.undo > 0:
		words = append(words, "running", "retrying")
	default:
		words = append(words, "waived", "resolved", "compensated")
	}
	for _, word := range words {
		if has[word] {
			return word
		}
	}
	switch {
	case st.state != stepActive:
		return st.word()
	case !s.turned:
		return "running"
	case has["unknown"]:
		return "unknown"
	}
	return "failed"
}

// joined tells whether the output of a step is made of its items'.
func (st *step) joined() bool { return st.fan != nil && st.state == stepSucceeded }

// fans reads the lists of the steps that have fanned out.
func (r *reader) fans(s *State) {
	for n := r.upTo(uint64(s.wf.Len()), "number of steps that fan out"); n > 0 && r.err == nil; n-- {
		i, list := int(r.uvarint()), r.bytes()
		if r.err != nil {
			return
		}
		if i >= s.wf.Len() || s.participants || !s.wf.Step(i).ForEach || s.steps[i].fan != nil {
			r.fail("items of a step that does not fan out")
			return
		}
		if _, err := cutList(list, definitions.MaxItemsLimit); err != nil {
			r.fail("items that are no list")
			return
		}
		s.spread(i, list)
	}
}

// recount makes what fans count from what has been read of their items.
func (s *State) recount() {
	for _, of := range s.fans {
		f := s.steps[of].fan
		for i := f.first; i < f.first+f.n; i++ {
			f.outputs += len(s.steps[i].output)
		}
		if s.steps[of].joined() {
			s.steps[of].output = s.join(f)
		}
		for i := f.first; i < f.first+f.n; i++ {
			s.touch(i)
		}
	}
}
