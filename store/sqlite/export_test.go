package sqlite

import (
	"context"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/store"
)

// OpenTuned opens a store that begins a checkpoint whenever the log is past
// that many pages, and whose writing connection has more pragmas.
func OpenTuned(ctx context.Context, cfg Config, checkpointPages int64, pragmas ...string) (*Store, error) {
	return openWith(ctx, cfg, tuning{checkpointPages: checkpointPages, lookEvery: 20, pragmas: pragmas})
}

// ListPlans returns how SQLite finds the runs of a list, a line for each step.
func (s *Store) ListPlans(ctx context.Context, f store.Filter) ([]string, error) {
	tx, err := s.read.BeginTxx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	streams, err := s.streams(ctx, tx, f)
	if err != nil {
		return nil, err
	}
	var plan []string
	for _, t := range streams {
		query, args := t.query(position{1, 1}, 0, 10)
		more, err := explain(ctx, tx, query, args...)
		if err != nil {
			return nil, err
		}
		plan = append(plan, more...)
	}
	return plan, nil
}

// Explain returns how SQLite runs a query.
func (s *Store) Explain(ctx context.Context, query string, args ...any) ([]string, error) {
	return explain(ctx, s.read, query, args...)
}

func explain(ctx context.Context, q sqlx.QueryerContext, query string, args ...any) (plan []string, err error) {
	rows, err := q.QueryxContext(ctx, "EXPLAIN QUERY PLAN "+query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			return nil, err
		}
		plan = append(plan, detail)
	}
	return plan, rows.Err()
}

// The queries of recovery and of removal.
const (
	UnfinishedQuery = "SELECT n.ref, h.seq, h.data FROM (" + unfinishedQuery + ") n CROSS JOIN history h ON h.run = n.run ORDER BY n.ref"
	DueQuery        = dueQuery
	EndedQuery      = endedQuery
	ExpiredQuery    = expiredQuery
	RunsQuery       = runsQuery
)
