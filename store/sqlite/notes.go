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
	if value == nil {
		value = []byte{}
	}
	err := s.write(func(w *writer) error {
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
