package sqlite_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
)

// No query may grow with the number of runs that have ended: each is answered
// from an index, in the index's order.
func TestQueriesAreAnsweredInTheOrderOfAnIndex(t *testing.T) {
	l := newLoad(t, filepath.Join(t.TempDir(), "store.db"))
	l.commit(t, l.rows(100))
	running := []store.Status{store.StatusRunning}
	for _, tt := range []struct {
		name  string
		f     store.Filter
		index string
		sorts bool
	}{
		{name: "all", index: "COVERING INDEX runs_status"},
		{name: "workflow", f: store.Filter{Workflow: "order"}, index: "COVERING INDEX runs_status"},
		{name: "status", f: store.Filter{Statuses: running}, index: "COVERING INDEX runs_status"},
		{name: "times", f: store.Filter{Since: time.Unix(1, 0), Until: time.Unix(2, 0)}, index: "COVERING INDEX runs_status"},
		{name: "key", f: store.Filter{Key: "k", Workflow: "order", Statuses: running}, index: "runs_key"},
		{name: "failed step", f: store.Filter{FailedStep: "pay", Workflow: "order"}, index: "runs_failed"},
		{name: "parent", f: store.Filter{Parent: "p", Workflow: "order"}, index: "runs_parent"},
		{name: "tag", f: store.Filter{TagName: "t", TagValue: "1"}, index: "PRIMARY KEY"},
		{name: "id prefix of few", f: store.Filter{IDPrefix: "0"}, index: "runs_id", sorts: true},
		{name: "tag of any value", f: store.Filter{TagName: "t"}, index: "PRIMARY KEY", sorts: true},
	} {
		plan, err := l.s.ListPlans(t.Context(), tt.f)
		if err != nil {
			t.Fatal(err)
		}
		checkPlan(t, tt.name, plan, tt.index, tt.sorts)
	}
	for name, tt := range map[string]struct {
		query string
		args  []any
		index string
	}{
		"unfinished": {sqlite.UnfinishedQuery, []any{1, 2, 3, 4}, "COVERING INDEX runs_unfinished"},
		"due":        {sqlite.DueQuery, []any{1, 2, 3}, "COVERING INDEX runs_due"},
		"ended":      {sqlite.EndedQuery, []any{1, 2, 3, 4, 5, 6}, "runs_ended"},
		"expired":    {sqlite.ExpiredQuery, []any{1, 2, 3}, "tombstones_until"},
		"runs":       {sqlite.RunsQuery, []any{1, 2, 3}, "runs_ref"},
	} {
		plan, err := l.s.Explain(t.Context(), tt.query, tt.args...)
		if err != nil {
			t.Fatal(err)
		}
		checkPlan(t, name, plan, tt.index, false)
	}
}

func checkPlan(t *testing.T, name string, plan []string, index string, sorts bool) {
	t.Helper()
	text := strings.Join(plan, "\n")
	if !strings.Contains(text, index) {
		t.Errorf("%s does not use %s:\n%s", name, index, text)
	}
	if strings.Contains(text, "TEMP B-TREE") != sorts {
		t.Errorf("%s: sorting is not %v:\n%s", name, sorts, text)
	}
	for _, step := range plan {
		if strings.HasPrefix(step, "SCAN") && step != "SCAN n" {
			t.Errorf("%s reads a whole table or index:\n%s", name, text)
		}
	}
}

func BenchmarkList(b *testing.B) {
	l := newLoad(b, filepath.Join(b.TempDir(), "store.db"))
	const sagas = 100_000
	for started := 0; started < sagas; started += 333 {
		l.commit(b, l.rows(2000))
	}
	for _, bb := range []struct {
		name string
		f    store.Filter
	}{
		{"all", store.Filter{}},
		{"running", store.Filter{Statuses: []store.Status{store.StatusRunning}}},
		{"stalled", store.Filter{Statuses: []store.Status{store.StatusStalled}}},
		{"key", store.Filter{Key: "none"}},
		{"prefix of all", store.Filter{IDPrefix: "0"}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := l.s.List(b.Context(), bb.f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("counts", func(b *testing.B) {
		for b.Loop() {
			if _, err := l.s.Counts(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("run", func(b *testing.B) {
		page, err := l.s.List(b.Context(), store.Filter{Limit: 1})
		if err != nil || len(page.Runs) != 1 {
			b.Fatal(fmt.Errorf("no run: %w", err))
		}
		for b.Loop() {
			if _, err := l.s.Run(b.Context(), page.Runs[0].ID); err != nil {
				b.Fatal(err)
			}
		}
	})
}
