package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
)

// SetNote implements [store.Store].
func (s *Store) SetNote(ctx context.Context, name string, value []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := s.write(func(w *writer) error {
		if value == nil {
			_, err := w.conn.raw.Exec("DELETE FROM notes WHERE name = ?", []driver.Value{name})
			return err
		}
		_, err := w.conn.raw.Exec("INSERT INTO notes (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
			[]driver.Value{name, value})
		return err
	})
	if err != nil {
		return fmt.Errorf("sqlite: keeping note %s: %w", name, err)
	}
	return nil
}

// Note implements [store.Store].
func (s *Store) Note(ctx context.Context, name string) ([]byte, error) {
	defer s.reading()()
	var value []byte
	err := s.read.QueryRowContext(ctx, "SELECT value FROM notes WHERE name = ?", name).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("sqlite: reading note %s: %w", name, err)
	}
	if value == nil {
		value = []byte{}
	}
	return value, nil
}

// Notes implements [store.Store].
func (s *Store) Notes(ctx context.Context, prefix string) (map[string][]byte, error) {
	defer s.reading()()
	var rows []struct {
		Name  string
		Value []byte
	}
	if err := s.read.SelectContext(ctx, &rows, "SELECT name, value FROM notes WHERE substr(name, 1, length(?1)) = ?1", prefix); err != nil {
		return nil, fmt.Errorf("sqlite: reading notes %s*: %w", prefix, err)
	}
	out := make(map[string][]byte, len(rows))
	for _, r := range rows {
		out[r.Name] = r.Value
	}
	return out, nil
}
