package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ringmaster-dev/ringmaster/store"
)

// Tuning is what tests set otherwise.
type Tuning struct {
	Dial    pgconn.DialFunc   // of connections that commit
	Params  map[string]string // of all sessions
	Attempt time.Duration     // for the first attempt at a commit
}

// OpenTuned opens a store that is tuned.
func OpenTuned(ctx context.Context, cfg Config, t Tuning) (*Store, error) {
	return openWith(ctx, cfg, tuning{dial: t.Dial, params: t.Params, attempt: t.Attempt})
}

// ListPlan returns how PostgreSQL finds the runs of a list.
func (s *Store) ListPlan(ctx context.Context, f store.Filter) ([]string, error) {
	q, err := s.listQuery(ctx, f, 11)
	if err != nil {
		return nil, err
	}
	return s.Explain(ctx, q.sql(), q.args...)
}

// Explain returns how PostgreSQL runs a query.
func (s *Store) Explain(ctx context.Context, query string, args ...any) (plan []string, err error) {
	err = s.db.SelectContext(ctx, &plan, "EXPLAIN (COSTS OFF) "+query, args...)
	return plan, err
}

// The queries of recovery and retention.
const (
	UnfinishedQuery = unfinishedQuery
	DueQuery        = dueQuery
	EndedQuery      = endedQuery
	ExpiredQuery    = expiredQuery
	RunsQuery       = runsQuery
)
