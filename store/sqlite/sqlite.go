package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringmaster-dev/ringmaster/store"
)

const (
	defaultShards    = 16
	maxShards        = 1 << 16
	defaultReadConns = 4
	// busyTimeout bounds, in ms, the wait for another process (such as an
	// operator's shell) that holds SQLite's write lock.
	busyTimeout = "30000"
)

// Config says what to open and how.
type Config struct {
	// Path of the database file. Required. It is made if it does not exist;
	// its folder must. Two more files live next to it while it is open (-wal
	// and -shm) and the lock file (.lock) stays.
	Path string
	// Shards is the number of shards, 1 to 65,536. It is stored when the
	// database is made and cannot change. Zero: the stored number, and 16 for
	// a new database.
	Shards uint32
	// ReadConns is the number of connections for reading. Zero: 4.
	ReadConns int
	// Logger gets what an operator should know. Nil discards it.
	Logger *slog.Logger
	// Registerer gets the store's metrics. Nil: none are registered.
	Registerer prometheus.Registerer
}

func (c Config) withDefaults() Config {
	if c.ReadConns == 0 {
		c.ReadConns = defaultReadConns
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.Path == "":
		return errors.New("sqlite: Path is required")
	case c.Shards > maxShards:
		return fmt.Errorf("sqlite: Shards is %d: at most %d", c.Shards, maxShards)
	case c.ReadConns < 0:
		return fmt.Errorf("sqlite: ReadConns is %d: must not be negative", c.ReadConns)
	}
	return nil
}

// Store is a [store.Store] in a SQLite file. It is safe for concurrent use.
type Store struct {
	path    string
	file    os.FileInfo // of the database when it was opened
	log     *slog.Logger
	metrics *metrics
	lock    *fileLock
	shards  uint32
	names   *names
	read    *sqlx.DB
	ckpt    *checkpointer

	reads sync.RWMutex // held shared by each read, and by Close

	mu     sync.Mutex // guards the rest, and with it all writing
	w      *writer
	failed error // why nothing is written any more
	closed bool
}

var _ store.Store = (*Store)(nil)

// Open opens the database file, making or migrating it as needed, and holds it
// until Close. ctx bounds the opening only. It fails with [store.ErrLocked]
// while another process has the file open, [store.ErrNewerSchema] when a newer
// version wrote it, and [store.ErrShardCount] when it was made with another
// number of shards.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	return openWith(ctx, cfg, defaultTuning)
}

// tuning is what tests set otherwise.
type tuning struct {
	checkpointPages int64    // length of the log past which a checkpoint begins
	lookEvery       int      // rows between two looks at the log's length
	pragmas         []string // more of them for the writing connection
}

// The log is looked at every few thousand pages' worth of rows and copied from
// 16 MB on: seldom enough that a page which changes in many commits is copied
// once for all of them, and short enough that starting after a crash, which
// reads the log, takes no time.
var defaultTuning = tuning{checkpointPages: 4096, lookEvery: 1000}

func openWith(ctx context.Context, cfg Config, tune tuning) (*Store, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	path, err := realPath(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	s := &Store{path: path, log: cfg.Logger.With("store", path), metrics: newMetrics(cfg.Registerer)}
	if err := s.open(ctx, cfg, tune); err != nil {
		return nil, errors.Join(fmt.Errorf("sqlite: opening %s: %w", cfg.Path, err), s.release())
	}
	return s, nil
}

// realPath resolves links, so that one file is locked under one name.
func realPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real, nil
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", fmt.Errorf("the folder of the database: %w", err)
	}
	return filepath.Join(dir, filepath.Base(path)), nil
}

// makePrivate makes the file if there is none, for its owner alone: it will hold
// what runs are given and answer. SQLite gives its log the same rights.
func makePrivate(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

func (s *Store) open(ctx context.Context, cfg Config, tune tuning) (err error) {
	if s.lock, err = lockFile(s.path + ".lock"); err != nil {
		return err
	}
	if err := makePrivate(s.path); err != nil {
		return err
	}
	if err := migrate(ctx, s.path, s.log); err != nil {
		return err
	}
	if s.w, err = newWriter(s.path, tune.pragmas); err != nil {
		return err
	}
	if s.shards, err = fixShards(s.w.conn, cfg.Shards); err != nil {
		return err
	}
	if s.names, err = loadNames(s.w.conn); err != nil {
		return fmt.Errorf("loading workflows: %w", err)
	}
	s.w.names = s.names
	if s.file, err = os.Stat(s.path); err != nil {
		return err
	}
	if s.read, err = openReaders(ctx, s.path, cfg.ReadConns); err != nil {
		return err
	}
	s.ckpt, err = startCheckpointer(s, tune)
	return err
}

// fixShards stores the number of shards in a new database and compares it in
// an old one.
func fixShards(c *conn, want uint32) (uint32, error) {
	row, err := c.row("SELECT value FROM meta WHERE name = 'shards'")
	if err != nil {
		return 0, fmt.Errorf("reading the number of shards: %w", err)
	}
	if row == nil {
		if want == 0 {
			want = defaultShards
		}
		_, err := c.raw.Exec("INSERT INTO meta (name, value) VALUES ('shards', ?)", []driver.Value{int64(want)})
		if err != nil {
			return 0, fmt.Errorf("storing the number of shards: %w", err)
		}
		return want, nil
	}
	have, ok := row[0].(int64)
	if !ok || have < 1 || have > maxShards {
		return 0, fmt.Errorf("the stored number of shards is %v: the database is damaged", row[0])
	}
	if want != 0 && int64(want) != have {
		return 0, fmt.Errorf("%w: it was made with %d, and %d are configured; the number is fixed when a store is made",
			store.ErrShardCount, have, want)
	}
	return uint32(have), nil
}

// Shards implements [store.Store].
func (s *Store) Shards() uint32 { return s.shards }

// Acquire implements [store.Store].
func (s *Store) Acquire(ctx context.Context, shard uint32, owner string) (uint64, int64, error) {
	if shard >= s.shards {
		return 0, 0, fmt.Errorf("sqlite: acquiring shard %d: there are %d", shard, s.shards)
	}
	if err := ctx.Err(); err != nil {
		return 0, 0, err
	}
	var epoch, last int64
	err := s.write(func(w *writer) (err error) {
		// An epoch is at least the time, so that the owner of a copy that was
		// restored, or of a store made anew, supersedes those that workers knew.
		now := time.Now()
		epoch, err = value[int64](w.conn, `INSERT INTO shards (shard, epoch, owner, acquired) VALUES (?, ?, ?, ?)
			ON CONFLICT (shard) DO UPDATE SET epoch = max(epoch + 1, excluded.epoch), owner = excluded.owner, acquired = excluded.acquired
			RETURNING epoch`, int64(shard), now.Unix(), owner, now.UnixMilli())
		if err != nil {
			return err
		}
		last, err = value[int64](w.conn, `SELECT max((SELECT coalesce(max(ref), ?1) FROM runs WHERE ref > ?1 AND ref < ?2),
			(SELECT removed FROM shards WHERE shard = ?3))`, store.RefBase(shard), store.RefBase(shard+1), int64(shard))
		return err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("sqlite: acquiring shard %d: %w", shard, err)
	}
	return uint64(epoch), last, nil
}

// Owner implements [store.Store].
func (s *Store) Owner(ctx context.Context, shard uint32) (string, uint64, error) {
	defer s.reading()()
	var row struct {
		Owner string
		Epoch uint64
	}
	err := s.read.GetContext(ctx, &row, "SELECT owner, epoch FROM shards WHERE shard = ?", int64(shard))
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", 0, fmt.Errorf("sqlite: reading the owner of shard %d: %w", shard, err)
	}
	return row.Owner, row.Epoch, nil
}

// write runs fn in a transaction of its own. An error of fn leaves nothing
// behind; an error of the commit ends all writing.
func (s *Store) write(fn func(*writer) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writable(); err != nil {
		return err
	}
	if err := s.w.begin.exec(nil); err != nil {
		return fmt.Errorf("beginning a transaction: %w", err)
	}
	if err := fn(s.w); err != nil {
		return errors.Join(err, s.w.abandon())
	}
	if err := s.w.end.exec(nil); err != nil {
		return s.poison(err)
	}
	return nil
}

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

// poison ends all writing: after a failed commit it is unknown what is on
// disk, and only a new start from the file can tell.
func (s *Store) poison(err error) error {
	err = errors.Join(err, s.w.abandon())
	s.failed = err
	s.metrics.failures.Inc()
	s.log.Error("commit failed; the store takes no more", "error", err)
	return err
}

// Check implements [store.Store]. It fails after a failed commit, and when the
// file at the store's path is no longer the one that was opened.
func (s *Store) Check(ctx context.Context) error {
	s.mu.Lock()
	err := s.writable()
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("sqlite: %w", err)
	}
	file, err := os.Stat(s.path)
	if err != nil {
		return fmt.Errorf("sqlite: the database file is gone: %w", err)
	}
	if !os.SameFile(file, s.file) {
		return fmt.Errorf("sqlite: %s was replaced while it was open; what is written now is lost: restart", s.path)
	}
	defer s.reading()()
	var shards uint32
	if err := s.read.GetContext(ctx, &shards, "SELECT value FROM meta WHERE name = 'shards'"); err != nil {
		return fmt.Errorf("sqlite: reading: %w", err)
	}
	if shards != s.shards {
		return fmt.Errorf("sqlite: the stored number of shards is %d and was %d at start", shards, s.shards)
	}
	return nil
}

// reading marks a read in progress, which Close waits for, until the function
// that it returns is called.
func (s *Store) reading() (done func()) {
	s.reads.RLock()
	return s.reads.RUnlock
}

// Close implements [store.Store]. It may be called again, to no effect.
func (s *Store) Close() error {
	s.mu.Lock()
	done := s.closed
	s.closed = true
	s.mu.Unlock()
	if done {
		return nil
	}
	if err := s.release(); err != nil {
		return fmt.Errorf("sqlite: closing: %w", err)
	}
	return nil
}

// release gives up whatever has been opened, the lock last.
func (s *Store) release() error {
	var errs []error
	if s.ckpt != nil {
		errs = append(errs, s.ckpt.stop())
	}
	if s.read != nil {
		s.reads.Lock()
		errs = append(errs, s.read.Close())
		s.reads.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w != nil {
		errs = append(errs, s.w.conn.close())
	}
	s.metrics.unregister()
	if s.lock != nil {
		errs = append(errs, s.lock.unlock())
	}
	return errors.Join(errs...)
}
