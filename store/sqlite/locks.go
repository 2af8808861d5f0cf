package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/ringmaster-dev/ringmaster/store"
)

// locks writes the rows of a part's locks.
func (w *writer) locks(p *store.Part) error {
	for i := range p.Locks {
		l := &p.Locks[i]
		w.args = w.args[:0]
		w.args.add(int64(p.Shard), l.Name)
		s := w.dropLock
		if len(l.Data) > 0 {
			w.args.add(l.Data)
			s = w.putLock
		}
		if err := s.exec(w.args); err != nil {
			return fmt.Errorf("writing a lock: %w", err)
		}
	}
	return nil
}

// Locks implements [store.Store].
func (s *Store) Locks(ctx context.Context, shard uint32, after string, limit int) ([]store.Lock, error) {
	defer s.reading()()
	rows, err := s.read.QueryContext(ctx, "SELECT name, data FROM locks WHERE shard = ? AND name > ? ORDER BY name LIMIT ?",
		shard, after, max(limit, 0))
	if err != nil {
		return nil, fmt.Errorf("sqlite: reading locks: %w", err)
	}
	defer rows.Close()
	var out []store.Lock
	for rows.Next() {
		var l store.Lock
		if err := rows.Scan(&l.Name, &l.Data); err != nil {
			return nil, fmt.Errorf("sqlite: reading locks: %w", err)
		}
		out = append(out, l)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("sqlite: reading locks: %w", err)
	}
	return out, nil
}

// Lock implements [store.Store].
func (s *Store) Lock(ctx context.Context, shard uint32, name string) (store.Lock, error) {
	defer s.reading()()
	l := store.Lock{Name: name}
	err := s.read.QueryRowContext(ctx, "SELECT data FROM locks WHERE shard = ? AND name = ?", shard, name).Scan(&l.Data)
	if errors.Is(err, sql.ErrNoRows) {
		err = store.ErrNotFound
	}
	if err != nil {
		return store.Lock{}, fmt.Errorf("sqlite: reading lock %q: %w", name, err)
	}
	return l, nil
}
