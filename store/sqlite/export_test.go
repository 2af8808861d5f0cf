package sqlite

import "context"

// OpenTuned opens a store that begins a checkpoint whenever the log is past
// that many pages, and whose writing connection has more pragmas.
func OpenTuned(ctx context.Context, cfg Config, checkpointPages int64, pragmas ...string) (*Store, error) {
	return openWith(ctx, cfg, tuning{checkpointPages: checkpointPages, lookEvery: 20, pragmas: pragmas})
}

// Plans returns what SQLite says of how it runs each query that f makes.
func (s *Store) Explain(ctx context.Context, query string, args ...any) (plan []string, err error) {
	rows, err := s.read.QueryContext(ctx, "EXPLAIN QUERY PLAN "+query, args...)
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
