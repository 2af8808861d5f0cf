package postgres_test

import (
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/store/postgres"
)

// No query may grow with the number of runs that have ended: each is answered
// from an index, in the index's order.
func TestQueriesAreAnsweredInTheOrderOfAnIndex(t *testing.T) {
	d := newSchema(t, testenv.Postgres(t))
	s, epoch := opened(t, d, postgres.Tuning{})
	for n := range int64(10) {
		if errs, err := s.Commit([]store.Part{creates(epoch, n+1)}); errs != nil || err != nil {
			t.Fatal(errs, err)
		}
	}
	running := []store.Status{store.StatusRunning}
	check := func(name string, plan []string, index string) {
		t.Helper()
		text := strings.Join(plan, "\n")
		if !strings.Contains(text, index) {
			t.Errorf("%s does not use %s:\n%s", name, index, text)
		}
		for _, table := range []string{"runs", "tags", "history", "tombstones"} {
			if strings.Contains(text, "Seq Scan on "+table) {
				t.Errorf("%s reads all of %s:\n%s", name, table, text)
			}
		}
	}
	// Both as tables are new and as they are analysed.
	for _, when := range []string{"new", "analysed"} {
		if when == "analysed" {
			d.exec(t, "ANALYZE")
		}
		for _, tt := range []struct {
			name  string
			f     store.Filter
			index string
		}{
			{"all", store.Filter{}, "Index Only Scan Backward using runs_status"},
			{"workflow", store.Filter{Workflow: "order"}, "Index Only Scan Backward using runs_status"},
			{"status", store.Filter{Statuses: running}, "Index Only Scan Backward using runs_status"},
			{"times", store.Filter{Since: time.Unix(1, 0), Until: time.Unix(2, 0)}, "Index Only Scan Backward using runs_status"},
			{"key", store.Filter{Key: "k", Workflow: "order", Statuses: running}, "Index Scan Backward using runs_key"},
			{"failed step", store.Filter{FailedStep: "pay", Workflow: "order"}, "Index Scan Backward using runs_failed"},
			{"parent", store.Filter{Parent: "p", Workflow: "order"}, "Index Scan Backward using runs_parent"},
			{"tag", store.Filter{TagName: "t", TagValue: "1"}, "Index Only Scan Backward using tags_pkey"},
			{"id prefix of few", store.Filter{IDPrefix: "0"}, "using runs_id"},
			{"tag of any value", store.Filter{TagName: "t"}, "using tags_pkey"},
		} {
			plan, err := s.ListPlan(t.Context(), tt.f)
			if err != nil {
				t.Fatal(err)
			}
			check(tt.name+", "+when, plan, tt.index)
		}
		for _, tt := range []struct {
			name, query string
			args        []any
			index       string
		}{
			{"unfinished", postgres.UnfinishedQuery, []any{1, 2, 3, 4}, "using runs_unfinished"},
			{"due", postgres.DueQuery, []any{1, 2, 3}, "using runs_due"},
			{"ended", postgres.EndedQuery, []any{1, 2, 3, 4, 5}, "using runs_ended"},
			{"expired", postgres.ExpiredQuery, []any{1, 2, 3}, "using tombstones_until"},
			{"runs", postgres.RunsQuery, []any{1, 2, 3}, "using runs_pkey"},
		} {
			plan, err := s.Explain(t.Context(), tt.query, tt.args...)
			if err != nil {
				t.Fatal(err)
			}
			check(tt.name+", "+when, plan, tt.index)
			if strings.Contains(strings.Join(plan, "\n"), "Sort") {
				t.Errorf("%s, %s, sorts:\n%s", tt.name, when, strings.Join(plan, "\n"))
			}
		}
	}
}
