package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/ringmaster-dev/ringmaster/store"
)

// names holds the numbers that workflow versions have in the rows of runs. It
// is filled from the database at start and follows what is registered.
type names struct {
	mu       sync.RWMutex
	numbers  map[version]int64
	versions map[int64]version
}

type version struct{ name, version string }

func loadNames(c *conn) (*names, error) {
	n := &names{numbers: map[version]int64{}, versions: map[int64]version{}}
	rows, err := c.raw.Query("SELECT workflow, name, version FROM workflows", nil)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var row [3]driver.Value
	for {
		switch err := rows.Next(row[:]); {
		case errors.Is(err, io.EOF):
			return n, nil
		case err != nil:
			return nil, err
		}
		n.put(row[0].(int64), version{row[1].(string), row[2].(string)})
	}
}

func (n *names) put(number int64, v version) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.numbers[v], n.versions[number] = number, v
}

func (n *names) number(name, ver string) (int64, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	number, ok := n.numbers[version{name, ver}]
	return number, ok
}

func (n *names) version(number int64) version {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.versions[number]
}

// PutWorkflow implements [store.Store].
func (s *Store) PutWorkflow(ctx context.Context, info store.WorkflowInfo, definition []byte) (store.WorkflowInfo, bool, error) {
	if err := ctx.Err(); err != nil {
		return store.WorkflowInfo{}, false, err
	}
	created := false
	if _, ok := s.names.number(info.Name, info.Version); !ok {
		var number int64
		err := s.write(func(w *writer) error {
			have, err := w.conn.row("SELECT workflow FROM workflows WHERE name = ? AND version = ?", info.Name, info.Version)
			if err != nil {
				return err
			}
			if have != nil {
				number = have[0].(int64)
				return nil
			}
			created = true
			number, err = w.register(info, definition)
			return err
		})
		if err != nil {
			return store.WorkflowInfo{}, false, fmt.Errorf("sqlite: registering workflow %s: %w", info.Name, err)
		}
		s.names.put(number, version{info.Name, info.Version})
	}
	info, _, err := s.Workflow(ctx, info.Name, info.Version)
	return info, created, err
}

// register inserts a new version and makes it the active one.
func (w *writer) register(info store.WorkflowInfo, definition []byte) (int64, error) {
	_, err := w.conn.raw.Exec("UPDATE workflows SET active = 0 WHERE name = ? AND active", []driver.Value{info.Name})
	if err != nil {
		return 0, err
	}
	if definition == nil {
		definition = []byte{}
	}
	return value[int64](w.conn, `INSERT INTO workflows (name, version, kind, registered, active, definition)
		VALUES (?, ?, ?, ?, 1, ?) RETURNING workflow`,
		info.Name, info.Version, info.Kind, info.Registered.UnixMilli(), definition)
}

// ActivateWorkflow implements [store.Store].
func (s *Store) ActivateWorkflow(ctx context.Context, name, ver string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := s.write(func(w *writer) error {
		row, err := w.conn.row("SELECT 1 FROM workflows WHERE name = ? AND version = ?", name, ver)
		if err == nil && row == nil {
			err = store.ErrNotFound
		}
		if err != nil {
			return err
		}
		_, err = w.conn.raw.Exec("UPDATE workflows SET active = (version = ?) WHERE name = ?", []driver.Value{ver, name})
		return err
	})
	if err != nil {
		return fmt.Errorf("sqlite: activating workflow %s version %s: %w", name, ver, err)
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
	defer s.reading()()
	const query = "SELECT " + workflowColumns + ", definition FROM workflows WHERE name = ? AND "
	var row *sql.Row
	if ver == "" {
		row = s.read.QueryRowContext(ctx, query+"active", name)
	} else {
		row = s.read.QueryRowContext(ctx, query+"version = ?", name, ver)
	}
	var definition []byte
	info, err := scanWorkflow(row.Scan, &definition)
	if errors.Is(err, sql.ErrNoRows) {
		err = store.ErrNotFound
	}
	if err != nil {
		return store.WorkflowInfo{}, nil, fmt.Errorf("sqlite: reading workflow %s version %q: %w", name, ver, err)
	}
	return info, definition, nil
}

// Workflows implements [store.Store].
func (s *Store) Workflows(ctx context.Context) ([]store.WorkflowInfo, error) {
	defer s.reading()()
	rows, err := s.read.QueryContext(ctx, "SELECT "+workflowColumns+" FROM workflows ORDER BY workflow DESC")
	if err != nil {
		return nil, fmt.Errorf("sqlite: listing workflows: %w", err)
	}
	defer rows.Close()
	var out []store.WorkflowInfo
	for rows.Next() {
		info, err := scanWorkflow(rows.Scan)
		if err != nil {
			return nil, fmt.Errorf("sqlite: listing workflows: %w", err)
		}
		out = append(out, info)
	}
	// Stable, so that versions stay in the order in which they came.
	slices.SortStableFunc(out, func(a, b store.WorkflowInfo) int { return cmp.Compare(a.Name, b.Name) })
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("sqlite: listing workflows: %w", err)
	}
	return out, nil
}

// fromMilli is the time of a column that is never NULL.
func fromMilli(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
