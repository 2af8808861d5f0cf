package postgres

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/store"
)

const (
	// attemptTimeout is how long the answer to a commit is waited for before the
	// connection is given up; each further attempt has twice as long.
	attemptTimeout = 10 * time.Second
	// buckets is the number of buckets of counts.
	buckets = 64
)

// writer makes the commits of a store, one after the other, through one
// connection at a time.
type writer struct {
	to      *target
	db      *sqlx.DB // of that connection
	names   *names
	log     *slog.Logger
	metrics *metrics

	conn       *sqlx.Conn // nil: none
	native     *pgx.Conn  // of conn
	id         int64      // in the table of writers; zero: not yet there
	bucket     int32
	generation int64
	number     int64 // of the commit in progress, or the last
	batch      *batch
	errs       []error // what the commit in progress leaves out
}

func newWriter(to *target, n *names, log *slog.Logger, m *metrics) *writer {
	return &writer{to: to, db: to.open(committing, 1), names: n, log: log, metrics: m, batch: newBatch()}
}

// Commit implements [store.Store]. While the server is away, or its disk is
// full, it tries again for Config.Patience; after that it fails, and what is in
// the database is unknown.
func (s *Store) Commit(parts []store.Part) ([]error, error) {
	if len(parts) == 0 {
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writable(); err != nil {
		return nil, fmt.Errorf("postgres: committing: %w", err)
	}
	start := time.Now()
	errs, err := s.persist(parts)
	if err != nil {
		s.failed = err
		s.metrics.failures.Inc()
		s.log.Error("commit failed; the store takes no more", "error", err)
		return nil, fmt.Errorf("postgres: committing: %w", err)
	}
	s.metrics.commit(time.Since(start), parts, errs)
	return errs, nil
}

// persist writes parts, by as many attempts as it takes.
func (s *Store) persist(parts []store.Part) ([]error, error) {
	w := s.w
	w.number++
	w.errs = nil
	end := time.Now().Add(s.patience)
	pause := newBackOff()
	for timeout := w.to.tune.attempt; ; timeout *= 2 {
		ctx, cancel := context.WithTimeout(s.ctx, timeout)
		errs, err := w.attempt(ctx, parts)
		cancel()
		if err == nil {
			return errs, nil
		}
		w.drop()
		wait := pause.NextBackOff()
		switch {
		case s.ctx.Err() != nil:
			return nil, errors.Join(errClosed, err)
		case permanent(err):
			return nil, err
		case time.Now().Add(wait).After(end):
			return nil, fmt.Errorf("given up after %v: %w", s.patience, err)
		}
		s.metrics.retries.Inc()
		s.log.Warn("a commit is tried again", "error", err, "again_in", wait)
		select {
		case <-time.After(wait):
		case <-s.ctx.Done():
		}
	}
}

// attempt makes one attempt at the commit in progress. After an error the
// connection must be dropped.
func (w *writer) attempt(ctx context.Context, parts []store.Part) ([]error, error) {
	if w.conn == nil {
		last, err := w.connect(ctx)
		if err != nil {
			return nil, err
		}
		if last == w.number {
			w.metrics.found.Inc()
			w.log.Info("the commit in doubt had been written")
			return w.errs, nil
		}
	}
	known, err := w.names.known(ctx, parts)
	if err != nil {
		return nil, err
	}
	if known && !crossed(parts) {
		err := w.quickly(ctx, parts)
		if err == nil || !doubtful(err) {
			return nil, err
		}
	}
	return w.carefully(ctx, parts)
}

// connect makes a connection, after which no other can commit for this writer,
// and returns the number of the last commit that was written.
func (w *writer) connect(ctx context.Context) (last int64, err error) {
	if w.conn, err = w.db.Connx(ctx); err != nil {
		return 0, fmt.Errorf("connecting: %w", err)
	}
	err = w.conn.Raw(func(c any) error {
		w.native = c.(*stdlib.Conn).Conn()
		return nil
	})
	if err == nil {
		err = assertDurable(ctx, w.native)
	}
	if err == nil {
		last, err = w.succeed(ctx)
	}
	if err == nil {
		err = prepare(ctx, w.native)
	}
	if err != nil {
		w.drop()
		return 0, fmt.Errorf("preparing a connection: %w", err)
	}
	return last, nil
}

// prepare prepares the statements of commits on a new connection.
func prepare(ctx context.Context, c *pgx.Conn) error {
	p := c.PgConn().StartPipeline(ctx)
	for _, s := range statements {
		p.SendPrepare(s.name, s.sql, nil)
	}
	if err := p.Sync(); err != nil {
		return errors.Join(err, p.Close())
	}
	for _, s := range statements {
		if _, err := p.GetResults(); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", s.name, err), p.Close())
		}
	}
	return p.Close()
}

// forgetWriters is after how many ms without a commit a writer's row is removed.
const forgetWriters = 30 * 24 * 3600 * 1000

// succeed takes over from the connection before, if there was one.
func (w *writer) succeed(ctx context.Context) (last int64, err error) {
	now := time.Now().UnixMilli()
	if w.id == 0 {
		if _, err := w.native.Exec(ctx, "DELETE FROM writers WHERE used < $1", now-forgetWriters); err != nil {
			return 0, fmt.Errorf("forgetting former writers: %w", err)
		}
		err := w.native.QueryRow(ctx, "INSERT INTO writers (generation, batch, used) VALUES (1, 0, $1) RETURNING writer", now).Scan(&w.id)
		if err != nil {
			return 0, fmt.Errorf("registering: %w", err)
		}
		w.generation, w.bucket = 1, int32(w.id%buckets)
		return 0, nil
	}
	// A session that waits for the rest of a commit would hold rows until the
	// server gives the connection up. Where it cannot be ended, they are waited for.
	_, err = w.native.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE application_name = $1 AND usename = current_user AND pid <> pg_backend_pid()`, w.to.appName(committing))
	if err != nil {
		w.log.Warn("ending the sessions of former connections failed", "error", err)
	}
	err = w.native.QueryRow(ctx, `INSERT INTO writers (writer, generation, batch, used) OVERRIDING SYSTEM VALUE VALUES ($1, $2, 0, $3)
		ON CONFLICT (writer) DO UPDATE SET generation = writers.generation + 1 RETURNING generation, batch`,
		w.id, w.generation+1, now).Scan(&w.generation, &last)
	if err != nil {
		return 0, fmt.Errorf("looking for the commit in doubt: %w", err)
	}
	return last, nil
}

// drop gives the connection up.
func (w *writer) drop() {
	if w.conn == nil {
		return
	}
	_ = w.conn.Raw(func(any) error { return driver.ErrBadConn }) // takes it out of the pool
	_ = w.conn.Close()                                           // it is no more
	w.conn, w.native = nil, nil
}

// close forgets the writer.
func (w *writer) close() error {
	if w.conn != nil && w.id != 0 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		// It can stay: others remove it.
		_, _ = w.native.Exec(ctx, "DELETE FROM writers WHERE writer = $1", w.id)
	}
	w.drop()
	return w.db.Close()
}

// quickly writes all parts in one round trip, or none.
func (w *writer) quickly(ctx context.Context, parts []store.Part) error {
	if err := w.batch.fill(parts, w.names.must); err != nil {
		return err
	}
	p := w.native.PgConn().StartPipeline(ctx)
	p.SendQueryPrepared(guard.name, append(w.identity(), w.batch.owned[0].param(), w.batch.owned[1].param()), binaryFormat, nil)
	n := 1 + w.batch.send(p, w.bucket)
	if err := p.Sync(); err != nil {
		return errors.Join(fmt.Errorf("sending: %w", err), p.Close())
	}
	return finish(p, n)
}

// identity is the start of the parameters of guard: who commits what.
func (w *writer) identity() [][]byte {
	return [][]byte{param64(w.id), param64(w.generation), param64(w.number), param64(time.Now().UnixMilli())}
}

// finish reads the results of n statements. Without an error they are committed.
func finish(p *pgconn.Pipeline, n int) error {
	for range n {
		r, err := p.GetResults()
		if err == nil {
			if rr, ok := r.(*pgconn.ResultReader); ok {
				_, err = rr.Close()
			}
		}
		if err != nil {
			if closeErr := p.Close(); closeErr != nil && code(closeErr) == "" {
				// The connection went with it.
				return errors.Join(err, closeErr)
			}
			return err
		}
	}
	return p.Close()
}
