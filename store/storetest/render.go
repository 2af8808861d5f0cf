package storetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ringmaster-dev/ringmaster/store"
)

// render prints a value of the port, one fact per line, in a form that is the
// same for equal values.
func render(v any) string {
	switch v := v.(type) {
	case store.Run:
		return renderRun(v)
	case []store.Run:
		return lines(v, renderRun)
	case store.Record:
		return renderRecord(v)
	case []store.Record:
		return lines(v, renderRecord)
	case store.Lock:
		return renderLock(v)
	case []store.Lock:
		return lines(v, renderLock)
	case []store.Unfinished:
		return lines(v, func(u store.Unfinished) string {
			return renderRun(u.Run) + "\n" + lines(u.History, renderRecord)
		})
	case store.WorkflowInfo:
		return renderWorkflow(v)
	case []store.WorkflowInfo:
		return lines(v, renderWorkflow)
	case []store.Tombstone:
		v = slices.SortedFunc(slices.Values(v), func(a, b store.Tombstone) int { return strings.Compare(a.ID, b.ID) })
		return lines(v, func(t store.Tombstone) string {
			return fmt.Sprintf("tombstone %q shard=%d status=%d buried=%s until=%s of %s@%s hash=%x waived=%v created=%s ended=%s",
				t.ID, t.Shard, t.Status, stamp(t.Buried), stamp(t.Until), t.Workflow, t.Version, t.InputHash, t.Waived,
				stamp(t.Created), stamp(t.Ended))
		})
	case store.Counts:
		return renderCounts(v)
	case time.Time:
		return stamp(v)
	default:
		return fmt.Sprintf("%v", v)
	}
}

func lines[T any](list []T, f func(T) string) string {
	var b strings.Builder
	for _, v := range list {
		b.WriteString(f(v))
		b.WriteByte('\n')
	}
	return b.String()
}

func renderRun(r store.Run) string {
	var tags strings.Builder
	if r.Tags != nil {
		for _, name := range slices.Sorted(maps.Keys(r.Tags)) {
			fmt.Fprintf(&tags, "%s:%s,", name, r.Tags[name])
		}
	} else {
		tags.WriteString("nil")
	}
	return fmt.Sprintf("run %d/%d id=%q flow=%s@%s status=%d waived=%v key=%q hash=%x tags=%s retryof=%q parent=%q/%q created=%s updated=%s ended=%s wake=%s failed=%q error=%q",
		r.Shard, r.Ref-store.RefBase(r.Shard), r.ID, r.Workflow, r.Version, r.Status, r.Waived, r.Key, r.InputHash,
		tags.String(), r.RetryOf, r.Parent, r.ParentStep, stamp(r.Created), stamp(r.Updated), stamp(r.Ended), stamp(r.Wake), r.FailedStep, r.Error)
}

func renderRecord(r store.Record) string {
	return fmt.Sprintf("record %d/%d seq=%d %q", r.Ref>>40, r.Ref&(1<<40-1), r.Seq, r.Data)
}

func renderLock(l store.Lock) string { return fmt.Sprintf("lock %q %x", l.Name, l.Data) }

func renderWorkflow(w store.WorkflowInfo) string {
	return fmt.Sprintf("workflow %s@%s kind=%s registered=%s active=%v", w.Name, w.Version, w.Kind, stamp(w.Registered), w.Active)
}

// renderCounts leaves zeros out: a store may keep them or not.
func renderCounts(c store.Counts) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(c)) {
		for _, st := range slices.Sorted(maps.Keys(c[name])) {
			if n := c[name][st]; n != 0 {
				fmt.Fprintf(&b, "count %s status=%d %d\n", name, st, n)
			}
		}
	}
	return b.String()
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format("15:04:05.000")
}

// difference tells where two texts differ, or nothing.
func difference(got, want string) string {
	if got == want {
		return ""
	}
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		a, b := "(nothing)", "(nothing)"
		if i < len(g) {
			a = g[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if a != b {
			return fmt.Sprintf("line %d of %d (want %d) differs\n got %s\nwant %s", i+1, len(g), len(w), a, b)
		}
	}
	return ""
}

// dump renders everything that a store answers.
func dump(ctx context.Context, s store.Store) (string, error) {
	var b strings.Builder
	var errs []error
	add := func(v any, err error) {
		b.WriteString(render(v))
		b.WriteByte('\n')
		if err != nil {
			errs = append(errs, err)
		}
	}
	var runs []store.Run
	for f := (store.Filter{Limit: 1000}); ; {
		page, err := s.List(ctx, f)
		if err != nil {
			return "", err
		}
		runs = append(runs, page.Runs...)
		if f.Cursor = page.Next; f.Cursor == "" {
			break
		}
	}
	add(runs, nil)
	refs := make([]int64, len(runs))
	for i, r := range runs {
		refs[i] = r.Ref
	}
	add(s.Load(ctx, refs))
	add(s.Counts(ctx))
	add(s.Tombstones(ctx, generatedTombstones))
	add(s.Buried(ctx, "", 1<<20))
	add(s.Workflows(ctx))
	for shard := range s.Shards() {
		add(s.Due(ctx, shard, at(1<<30), 1<<20))
		add(s.Unfinished(ctx, shard, 0, at(1<<30), 1<<20))
		add(s.Locks(ctx, shard, "", 1<<20))
		add(s.Runs(ctx, shard, 0, 1<<20))
		add(s.Ended(ctx, shard, at(1<<30), store.EndedPlace{}, 1<<20))
		add(s.Expired(ctx, shard, at(1<<30), 1<<20))
		add(s.Unended(ctx, shard))
	}
	if len(errs) > 0 {
		return "", errs[0]
	}
	return b.String(), nil
}
