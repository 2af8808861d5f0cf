package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/store"
)

// Acquire implements [store.Store]. It waits for a commit under the epoch before
// that is under way.
func (s *Store) Acquire(ctx context.Context, shard uint32, owner string) (uint64, int64, error) {
	if shard >= s.shards {
		return 0, 0, fmt.Errorf("postgres: acquiring shard %d: there are %d", shard, s.shards)
	}
	defer s.reading()()
	type acquired struct {
		epoch uint64
		last  int64
	}
	a, err := again(ctx, s, s.patience, func(ctx context.Context) (a acquired, err error) {
		a.epoch, a.last, err = s.acquire(ctx, shard, owner)
		return a, err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("postgres: acquiring shard %d: %w", shard, err)
	}
	return a.epoch, a.last, nil
}

func (s *Store) acquire(ctx context.Context, shard uint32, owner string) (epoch uint64, last int64, err error) {
	conn, err := s.db.Connx(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	free, err := s.freeFrom(ctx, conn)
	if err != nil {
		return 0, 0, err
	}
	// An epoch is at least the time, so that the owner of a copy that was
	// restored, or of a store made anew, supersedes those that workers knew.
	var removed int64
	err = conn.QueryRowxContext(ctx, `INSERT INTO shards AS s (shard, epoch, owner, acquired)
		VALUES ($1, floor(extract(epoch FROM clock_timestamp()))::bigint, $2, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
		ON CONFLICT (shard) DO UPDATE SET epoch = greatest(s.epoch + 1, excluded.epoch), owner = excluded.owner, acquired = excluded.acquired
		RETURNING epoch, removed`, shard, clean(owner)).Scan(&epoch, &removed)
	free()
	if err != nil {
		return 0, 0, err
	}
	// A statement of its own, which sees all commits under the epoch before.
	err = conn.GetContext(ctx, &last, "SELECT greatest($1::bigint, $3, (SELECT max(ref) FROM runs WHERE ref > $1 AND ref < $2))",
		store.RefBase(shard), store.RefBase(shard+1), removed)
	return epoch, last, err
}

// blockedFor is how long an acquisition waits for a commit whose sender is silent.
const blockedFor = 500 * time.Millisecond

// freeFrom ends, until the returned function is called, sessions that the one
// of conn waits for and that themselves wait for their clients: an orchestrator that was
// stopped in the middle of sending a commit would hold its shards for ever.
func (s *Store) freeFrom(ctx context.Context, conn *sqlx.Conn) (done func(), err error) {
	var pid uint32
	err = conn.Raw(func(c any) error {
		pid = c.(*stdlib.Conn).Conn().PgConn().PID()
		return nil
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-time.After(blockedFor):
			case <-ctx.Done():
				return
			}
			var pids []int64
			err := s.db.SelectContext(ctx, &pids, `SELECT a.pid FROM pg_stat_activity a
				WHERE a.pid = ANY(pg_blocking_pids($1)) AND a.wait_event_type = 'Client' AND pg_terminate_backend(a.pid)`, pid)
			switch {
			case ctx.Err() != nil:
			case err != nil:
				s.log.Warn("looking for silent sessions that hold a shard failed", "error", err)
			case len(pids) > 0:
				s.log.Warn("ended sessions that held a shard and were silent", "sessions", pids)
			}
		}
	}()
	return func() { cancel(); <-ended }, nil
}

// Owner implements [store.Store].
func (s *Store) Owner(ctx context.Context, shard uint32) (string, uint64, error) {
	type row struct {
		Owner string
		Epoch uint64
	}
	r, err := read(ctx, s, func(ctx context.Context) (r row, err error) {
		err = s.db.GetContext(ctx, &r, "SELECT owner, epoch FROM shards WHERE shard = $1", shard)
		if errors.Is(err, sql.ErrNoRows) {
			err = nil
		}
		return r, err
	})
	if err != nil {
		return "", 0, fmt.Errorf("postgres: reading the owner of shard %d: %w", shard, err)
	}
	return r.Owner, r.Epoch, nil
}
