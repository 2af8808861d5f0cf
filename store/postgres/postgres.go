package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringmaster-dev/ringmaster/store"
)

const (
	defaultSchema   = "ringmaster"
	defaultShards   = 16
	maxShards       = 1 << 16
	defaultConns    = 8
	defaultPatience = time.Minute
	// maxIdentifier is the length in bytes to which PostgreSQL cuts names.
	maxIdentifier = 63
	// readPatience bounds how long a read is tried again while the server is
	// away: long enough for it to start anew, short enough for who waits.
	readPatience = 5 * time.Second
)

// Config says what to open and how.
type Config struct {
	// URL of the database, as postgres://user:password@host:port/database, with
	// the parameters of libpq (sslmode, sslrootcert, target_session_attrs, and
	// so on; several hosts with commas between). Required.
	URL string
	// Schema holds all tables, at most 63 bytes. It is made if it does not
	// exist. Empty: "ringmaster".
	Schema string
	// Shards is the number of shards, 1 to 65,536. It is stored when the schema
	// is made and cannot change. Zero: the stored number, and 16 for a new one.
	Shards uint32
	// Conns is the greatest number of connections besides the one that commits.
	// Zero: 8.
	Conns int
	// Patience is how long a commit is tried again while the server is away, or
	// has no room on its disk, before it fails and the store with it. Zero: one
	// minute.
	Patience time.Duration
	// Logger gets what an operator should know. Nil discards it.
	Logger *slog.Logger
	// Registerer gets the store's metrics. Nil: none are registered.
	Registerer prometheus.Registerer
}

func (c Config) withDefaults() Config {
	if c.Schema == "" {
		c.Schema = defaultSchema
	}
	if c.Conns == 0 {
		c.Conns = defaultConns
	}
	if c.Patience == 0 {
		c.Patience = defaultPatience
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.URL == "":
		return errors.New("postgres: URL is required")
	case len(c.Schema) > maxIdentifier || c.Schema != clean(c.Schema):
		return fmt.Errorf("postgres: Schema %q: at most %d bytes of UTF-8", c.Schema, maxIdentifier)
	case c.Shards > maxShards:
		return fmt.Errorf("postgres: Shards is %d: at most %d", c.Shards, maxShards)
	case c.Conns < 0:
		return fmt.Errorf("postgres: Conns is %d: must not be negative", c.Conns)
	case c.Patience < 0:
		return fmt.Errorf("postgres: Patience is %v: must not be negative", c.Patience)
	}
	return nil
}

// Store is a [store.Store] in a PostgreSQL schema. It is safe for concurrent
// use, and so are several of them, of any number of processes, on one schema.
type Store struct {
	log      *slog.Logger
	metrics  *metrics
	patience time.Duration
	shards   uint32
	names    *names
	db       *sqlx.DB // for everything but commits

	ctx  context.Context // ends with Close
	stop context.CancelFunc

	reads sync.RWMutex // held shared by each call, and by Close

	mu     sync.Mutex // guards the rest, and with it all commits
	w      *writer
	failed error // why nothing is written any more
	closed bool
}

var _ store.Store = (*Store)(nil)

// Open opens the database, making or migrating the schema as needed. ctx bounds
// the opening only. It fails with [store.ErrNewerSchema] when a newer version
// wrote the schema, and [store.ErrShardCount] when it was made with another number of
// shards.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	return openWith(ctx, cfg, tuning{})
}

func openWith(ctx context.Context, cfg Config, tune tuning) (*Store, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	to, err := newTarget(cfg, tune)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	s := &Store{log: cfg.Logger.With("store", to.name), metrics: newMetrics(cfg.Registerer), patience: cfg.Patience}
	s.ctx, s.stop = context.WithCancel(context.Background())
	if err := s.open(ctx, cfg, to); err != nil {
		return nil, errors.Join(fmt.Errorf("postgres: opening %s: %w", to.name, err), s.release())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, cfg Config, to *target) (err error) {
	s.db = to.open("", cfg.Conns)
	s.names = newNames(s.db)
	if s.shards, err = prepareSchema(ctx, s.db, cfg, s.log); err != nil {
		return err
	}
	if err := s.names.refresh(ctx); err != nil {
		return fmt.Errorf("loading workflows: %w", err)
	}
	s.w = newWriter(to, s.names, s.log, s.metrics)
	_, err = s.w.connect(ctx)
	return err
}

// Shards implements [store.Store].
func (s *Store) Shards() uint32 { return s.shards }

func (s *Store) writable() error {
	if s.closed {
		return errClosed
	}
	if s.failed != nil {
		return fmt.Errorf("nothing is written since a commit failed: %w", s.failed)
	}
	return nil
}

var errClosed = errors.New("the store is closed")

// Check implements [store.Store]. It fails after a failed commit.
func (s *Store) Check(ctx context.Context) error {
	s.mu.Lock()
	err := s.writable()
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	defer s.reading()()
	var shards uint32
	if err := s.db.GetContext(ctx, &shards, "SELECT value FROM meta WHERE name = 'shards'"); err != nil {
		return fmt.Errorf("postgres: reading: %w", err)
	}
	if shards != s.shards {
		return fmt.Errorf("postgres: the stored number of shards is %d and was %d at start", shards, s.shards)
	}
	return nil
}

// reading marks a call in progress, which Close waits for, until the function
// that it returns is called.
func (s *Store) reading() (done func()) {
	s.reads.RLock()
	return s.reads.RUnlock
}

// Close implements [store.Store]. It ends a commit that is being tried again,
// and may be called again, to no effect.
func (s *Store) Close() error {
	s.stop()
	s.mu.Lock()
	done := s.closed
	s.closed = true
	s.mu.Unlock()
	if done {
		return nil
	}
	if err := s.release(); err != nil {
		return fmt.Errorf("postgres: closing: %w", err)
	}
	return nil
}

// release gives up whatever has been opened.
func (s *Store) release() error {
	var errs []error
	s.stop()
	s.mu.Lock()
	if s.w != nil {
		errs = append(errs, s.w.close())
	}
	s.mu.Unlock()
	if s.db != nil {
		s.reads.Lock()
		errs = append(errs, s.db.Close())
		s.reads.Unlock()
	}
	s.metrics.unregister()
	return errors.Join(errs...)
}
