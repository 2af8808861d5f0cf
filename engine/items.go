package engine

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

const (
	// maxShownItems is how many items a view of the whole run tells of, per step;
	// the others are counted, and listed page by page.
	maxShownItems = 20
	// DefaultItemPage and MaxItemPage bound a page of items.
	DefaultItemPage = 100
	MaxItemPage     = 1_000
	// maxItemPageBytes bounds the inputs and outputs of a page: it ends early.
	maxItemPageBytes = 4 << 20
)

// ItemFilter selects items of a step that fans out.
type ItemFilter struct {
	State  string // such as "failed"; empty: all
	Limit  int    // of the page; 0 is DefaultItemPage, more than MaxItemPage is that
	Cursor string // Next of the page before
}

// Items returns a page of the items of a step that fans out, in the order of its
// list. Before it has fanned out there are none.
func (e *Engine) Items(ctx context.Context, id, step string, f ItemFilter) (rest.ItemPage, error) {
	from, limit, err := f.bounds()
	if err != nil {
		return rest.ItemPage{}, err
	}
	row, err := e.row(ctx, id)
	if err != nil {
		return rest.ItemPage{}, err
	}
	r, err := e.folded(ctx, row)
	if err != nil {
		return rest.ItemPage{}, err
	}
	of := r.wf.StepIndex(step)
	if of < 0 || !r.wf.Step(of).ForEach {
		return rest.ItemPage{}, &Error{
			Kind: KindNotFound, Code: "unknown_step", Field: "step", Message: fmt.Sprintf("the workflow has no step %q that fans out", step),
		}
	}
	page := rest.ItemPage{Items: []rest.Step{}}
	first, n, _ := r.state.Items(of)
	size := 0
	for i := from; i < n; i++ {
		s := e.stepOf(r, first+i)
		if f.State != "" && s.State != f.State && r.state.StepView(first+i).State != f.State {
			continue
		}
		if len(page.Items) == limit || size > maxItemPageBytes {
			page.Next = strconv.Itoa(i)
			break
		}
		page.Items = append(page.Items, s)
		size += len(s.Input) + len(s.Output)
	}
	return page, nil
}

// bounds reads the cursor and the limit.
func (f ItemFilter) bounds() (from, limit int, err error) {
	limit = DefaultItemPage
	if f.Limit > 0 {
		limit = min(f.Limit, MaxItemPage)
	}
	if f.Cursor != "" {
		if from, err = strconv.Atoi(f.Cursor); err != nil || from < 0 {
			return 0, 0, &Error{Kind: KindInvalid, Code: "bad_cursor", Field: "cursor", Message: "not a cursor that a list gave out"}
		}
	}
	return from, limit, nil
}

// itemsOf counts the items of step i, and shows some of them; nil if the step has
// not fanned out.
func (e *Engine) itemsOf(r *run, i int) *rest.Items {
	first, n, ok := r.state.Items(i)
	if !ok {
		return nil
	}
	items := &rest.Items{Total: n, States: map[string]int{}}
	var shown [4][]int
	for k := first; k < first+n; k++ {
		v := r.state.StepView(k)
		items.States[v.State]++
		if u := urgency(&v); u < len(shown) {
			shown[u] = append(shown[u], k)
		}
	}
	for _, k := range slices.Concat(shown[:]...) {
		if len(items.Shown) == maxShownItems {
			items.More++
			continue
		}
		s := e.stepOf(r, k)
		if !r.row.Status.Final() {
			s.Waiting = e.waitsFor(r, k, &s)
		}
		items.Shown = append(items.Shown, s)
	}
	return items
}

// urgency sorts items by what people look for first.
func urgency(v *machine.StepView) int {
	switch {
	case v.State == "stalled":
		return 0
	case v.State == "failed", v.State == "unknown":
		return 1
	case !v.NextAttempt.IsZero():
		return 2
	case v.Outstanding:
		return 3
	}
	return 4
}

// itemsWait says in words what the shown items of a step wait for.
func itemsWait(s *rest.Step) (words []string) {
	for i := range s.Items.Shown {
		if w := s.Items.Shown[i].Waiting; w != "" {
			words = append(words, w)
		}
	}
	if s.Items.More > 0 && len(words) > 0 {
		words = append(words, fmt.Sprintf("%d more items of step %s are under way, or have failed", s.Items.More, s.Name))
	}
	return words
}

// failedStep is the name of the step of the workflow that a run's row names:
// also where it was one of its items, so that lists can be searched by it.
func (r *run) failedStep() string {
	i := r.state.FailedStep()
	if i < 0 {
		return ""
	}
	if of, _, ok := r.state.ItemOf(i); ok {
		i = of
	}
	return r.state.Def(i).Name
}

// failedItem is the name of the item that FailedStep speaks of; empty if it is
// none.
func (r *run) failedItem() string {
	if i := r.state.FailedStep(); i >= 0 {
		if of, index, ok := r.state.ItemOf(i); ok {
			return definitions.ItemName(r.state.Def(of).Name, index)
		}
	}
	return ""
}
