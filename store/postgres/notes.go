package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/ringmaster-dev/ringmaster/store"
)

// SetNote implements [store.Store].
func (s *Store) SetNote(ctx context.Context, name string, value []byte) error {
	_, err := write(ctx, s, func(ctx context.Context) (sql.Result, error) {
		if value == nil {
			return s.db.ExecContext(ctx, "DELETE FROM notes WHERE name = $1", clean(name))
		}
		return s.db.ExecContext(ctx, "INSERT INTO notes (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
			clean(name), value)
	})
	if err != nil {
		return fmt.Errorf("postgres: keeping note %s: %w", name, err)
	}
	return nil
}

// Note implements [store.Store].
func (s *Store) Note(ctx context.Context, name string) ([]byte, error) {
	value, err := read(ctx, s, func(ctx context.Context) (value []byte, err error) {
		err = s.db.QueryRowContext(ctx, "SELECT value FROM notes WHERE name = $1", clean(name)).Scan(&value)
		if errors.Is(err, sql.ErrNoRows) {
			return nil, nil
		}
		return value, err
	})
	if err != nil {
		return nil, fmt.Errorf("postgres: reading note %s: %w", name, err)
	}
	return value, nil
}

// Notes implements [store.Store].
func (s *Store) Notes(ctx context.Context, prefix string) (map[string][]byte, error) {
	out, err := read(ctx, s, func(ctx context.Context) (map[string][]byte, error) {
		var rows []struct {
			Name  string
			Value []byte
		}
		if err := s.db.SelectContext(ctx, &rows, "SELECT name, value FROM notes WHERE starts_with(name, $1)", clean(prefix)); err != nil {
			return nil, err
		}
		out := make(map[string][]byte, len(rows))
		for _, r := range rows {
			out[r.Name] = r.Value
		}
		return out, nil
	})
	if err != nil {
		return nil, fmt.Errorf("postgres: reading notes %s*: %w", prefix, err)
	}
	return out, nil
}

// Locks implements [store.Store].
func (s *Store) Locks(ctx context.Context, shard uint32, after string, limit int) ([]store.Lock, error) {
	out, err := read(ctx, s, func(ctx context.Context) (out []store.Lock, err error) {
		rows, err := s.db.QueryContext(ctx, "SELECT name, data FROM locks WHERE shard = $1 AND name > $2 ORDER BY name LIMIT $3",
			shard, []byte(after), max(limit, 0))
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		for rows.Next() {
			var name, data []byte
			if err := rows.Scan(&name, &data); err != nil {
				return nil, err
			}
			out = append(out, store.Lock{Name: string(name), Data: data})
		}
		return out, rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("postgres: reading locks: %w", err)
	}
	return out, nil
}

// Lock implements [store.Store].
func (s *Store) Lock(ctx context.Context, shard uint32, name string) (store.Lock, error) {
	l, err := read(ctx, s, func(ctx context.Context) (store.Lock, error) {
		l := store.Lock{Name: name}
		err := s.db.QueryRowContext(ctx, "SELECT data FROM locks WHERE shard = $1 AND name = $2", shard, []byte(name)).Scan(&l.Data)
		if errors.Is(err, sql.ErrNoRows) {
			err = store.ErrNotFound
		}
		return l, err
	})
	if err != nil {
		return store.Lock{}, fmt.Errorf("postgres: reading lock %q: %w", name, err)
	}
	return l, nil
}
