package postgres

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/store"
)

// names holds the numbers that workflow versions have in the rows of runs. It
// is filled from the database, again whenever a name or number comes that it
// does not know: another orchestrator may have registered it.
type names struct {
	db       *sqlx.DB
	mu       sync.RWMutex
	numbers  map[version]int32
	versions map[int32]version
}

type version struct{ name, version string }

func newNames(db *sqlx.DB) *names {
	return &names{db: db, numbers: map[version]int32{}, versions: map[int32]version{}}
}

func (n *names) refresh(ctx context.Context) error {
	var rows []struct {
		Workflow      int32
		Name, Version string
	}
	if err := n.db.SelectContext(ctx, &rows, "SELECT workflow, name, version FROM workflows"); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range rows {
		v := version{r.Name, r.Version}
		n.numbers[v], n.versions[r.Workflow] = r.Workflow, v
	}
	return nil
}

func (n *names) number(name, ver string) (int32, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	number, ok := n.numbers[version{name, ver}]
	return number, ok
}

// must is the number of a version that is known.
func (n *names) must(name, ver string) int32 {
	number, _ := n.number(name, ver)
	return number
}

// known tells whether all versions that parts speak of are registered.
func (n *names) known(ctx context.Context, parts []store.Part) (bool, error) {
	if n.all(parts) {
		return true, nil
	}
	if err := n.refresh(ctx); err != nil {
		return false, fmt.Errorf("loading workflows: %w", err)
	}
	return n.all(parts), nil
}

func (n *names) all(parts []store.Part) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	for i := range parts {
		for j := range parts[i].Create {
			r := &parts[i].Create[j]
			if _, ok := n.numbers[version{r.Workflow, r.Version}]; !ok {
				return false
			}
		}
		for j := range parts[i].Bury {
			t := &parts[i].Bury[j]
			if _, ok := n.numbers[version{t.Workflow, t.Version}]; !ok && t.Workflow != "" {
				return false
			}
		}
	}
	return true
}

// version is what a number stands for.
func (n *names) version(ctx context.Context, number int32) (version, error) {
	for range 2 {
		n.mu.RLock()
		v, ok := n.versions[number]
		n.mu.RUnlock()
		if ok {
			return v, nil
		}
		if err := n.refresh(ctx); err != nil {
			return version{}, fmt.Errorf("loading workflows: %w", err)
		}
	}
	return version{}, fmt.Errorf("workflow number %d is not there: the database is damaged", number)
}

// PutWorkflow implements [store.Store].
func (s *Store) PutWorkflow(ctx context.Context, info store.WorkflowInfo, definition []byte) (store.WorkflowInfo, bool, error) {
	if err := ctx.Err(); err != nil {
		return store.WorkflowInfo{}, false, err
	}
	created := false
	if _, ok := s.names.number(info.Name, info.Version); !ok {
		var err error
		created, err = write(ctx, s, func(ctx context.Context) (bool, error) { return s.register(ctx, info, definition) })
		if err == nil {
			err = s.names.refresh(ctx)
		}
		if err != nil {
			return store.WorkflowInfo{}, false, fmt.Errorf("postgres: registering workflow %s: %w", info.Name, err)
		}
	}
	info, _, err := s.Workflow(ctx, info.Name, info.Version)
	return info, created, err
}

// register inserts a version, if it is new, and makes it the active one.
func (s *Store) register(ctx context.Context, info store.WorkflowInfo, definition []byte) (created bool, err error) {
	err = s.transact(ctx, func(tx *sqlx.Tx) error {
		// One version of a name at a time, so that one is active.
		if _, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock(hashtext($1))", "ringmaster workflow "+info.Name); err != nil {
			return err
		}
		if definition == nil {
			definition = []byte{}
		}
		r, err := tx.ExecContext(ctx, `INSERT INTO workflows (name, version, kind, registered, active, definition)
			VALUES ($1, $2, $3, $4, false, $5) ON CONFLICT (name, version) DO NOTHING`,
			info.Name, info.Version, info.Kind, info.Registered.UnixMilli(), definition)
		if err != nil {
			return err
		}
		n, err := r.RowsAffected()
		if created = n > 0; err != nil || !created {
			return err
		}
		_, err = tx.ExecContext(ctx, "UPDATE workflows SET active = (version = $2) WHERE name = $1 AND active <> (version = $2)", info.Name, info.Version)
		return err
	})
	return created, err
}

// ActivateWorkflow implements [store.Store].
func (s *Store) ActivateWorkflow(ctx context.Context, name, ver string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := write(ctx, s, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.transact(ctx, func(tx *sqlx.Tx) error {
			if _, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock(hashtext($1))", "ringmaster workflow "+name); err != nil {
				return err
			}
			var there bool
			err := tx.GetContext(ctx, &there, "SELECT EXISTS (SELECT 1 FROM workflows WHERE name = $1 AND version = $2)", name, ver)
			if err == nil && !there {
				err = store.ErrNotFound
			}
			if err != nil {
				return err
			}
			_, err = tx.ExecContext(ctx, "UPDATE workflows SET active = (version = $2) WHERE name = $1 AND active <> (version = $2)", name, ver)
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("postgres: activating workflow %s version %s: %w", name, ver, err)
	}
	return nil
}

const workflowColumns = "name, version, kind, registered, active"

func scanWorkflow(scan func(...any) error, more ...any) (store.WorkflowInfo, error) {
	var (
		w          store.WorkflowInfo
		registered int64
	)
	err := scan(append([]any{&w.Name, &w.Version, &w.Kind, &registered, &w.Active}, more...)...)
	w.Registered = fromMilli(registered)
	return w, err
}

// Workflow implements [store.Store].
func (s *Store) Workflow(ctx context.Context, name, ver string) (store.WorkflowInfo, []byte, error) {
	type found struct {
		info       store.WorkflowInfo
		definition []byte
	}
	f, err := read(ctx, s, func(ctx context.Context) (f found, err error) {
		f.info, err = scanWorkflow(s.db.QueryRowContext(ctx, "SELECT "+workflowColumns+`, definition FROM workflows
			WHERE name = $1 AND CASE WHEN $2 = '' THEN active ELSE version = $2 END`, clean(name), clean(ver)).Scan, &f.definition)
		if errors.Is(err, sql.ErrNoRows) {
			err = store.ErrNotFound
		}
		return f, err
	})
	if err != nil {
		return store.WorkflowInfo{}, nil, fmt.Errorf("postgres: reading workflow %s version %q: %w", name, ver, err)
	}
	return f.info, f.definition, nil
}

// Workflows implements [store.Store].
func (s *Store) Workflows(ctx context.Context) ([]store.WorkflowInfo, error) {
	out, err := read(ctx, s, func(ctx context.Context) (out []store.WorkflowInfo, err error) {
		rows, err := s.db.QueryContext(ctx, "SELECT "+workflowColumns+" FROM workflows ORDER BY workflow DESC")
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		for rows.Next() {
			info, err := scanWorkflow(rows.Scan)
			if err != nil {
				return nil, err
			}
			out = append(out, info)
		}
		return out, rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("postgres: listing workflows: %w", err)
	}
	// Stable, so that versions stay in the order in which they came.
	slices.SortStableFunc(out, func(a, b store.WorkflowInfo) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// transact runs f in a transaction.
func (s *Store) transact(ctx context.Context, f func(*sqlx.Tx) error) error {
	tx, err := s.db.BeginTxx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		_ = tx.Rollback() // the connection may be gone; the transaction is as well
		return err
	}
	return tx.Commit()
}

// fromMilli is the time of a column that is never NULL.
func fromMilli(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
