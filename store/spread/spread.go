package spread

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringmaster-dev/ringmaster/store"
)

// ErrMoving: the shard is being moved from one store to another.
var ErrMoving = errors.New("shard is being moved")

// Config says what to make one store of.
type Config struct {
	// Stores are opened stores with the same number of shards. The first is the
	// home. They are known by their position, from 1: more can be added at the end, and
	// nothing else. At least one. Close closes them.
	Stores []store.Store
	// Logger gets what an operator should know. Nil discards it.
	Logger *slog.Logger
}

func (c Config) validate() error {
	if len(c.Stores) == 0 {
		return errors.New("spread: no stores")
	}
	for i, st := range c.Stores {
		if a, b := c.Stores[0].Shards(), st.Shards(); a != b {
			return fmt.Errorf("spread: %w: database 1 has %d and database %d has %d", store.ErrShardCount, a, i+1, b)
		}
	}
	return nil
}

// Store is a [store.Store] made of several. It is safe for concurrent use.
type Store struct {
	stores []store.Store
	home   store.Store
	shards uint32
	log    *slog.Logger
	places *places
	// strays tells whether ids have been committed that do not belong to their
	// shards, so that they have to be looked for everywhere.
	strays atomic.Bool
	hook   func(string) error // of tests, at each point at which a move may end
	grace  time.Duration      // for which a move waits for readers

	mu       sync.Mutex
	acquired map[uint32]int // where shards were acquired through this store
}

var _ store.Store = (*Store)(nil)

// New makes one store of several. ctx bounds that only.
func New(ctx context.Context, cfg Config) (*Store, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Store{stores: cfg.Stores, home: cfg.Stores[0], shards: cfg.Stores[0].Shards(), log: cfg.Logger,
		acquired: map[uint32]int{}, grace: 2 * placesAge, hook: func(string) error { return nil }}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.places = &places{s: s}
	if err := s.number(ctx); err != nil {
		return nil, err
	}
	if _, err := s.places.load(ctx); err != nil {
		return nil, err
	}
	strays, err := s.home.Note(ctx, strayNote)
	if err != nil {
		return nil, fmt.Errorf("spread: %w", err)
	}
	s.strays.Store(strays != nil)
	return s, s.shareWorkflows(ctx)
}

// number has every store know its position, so that they cannot be mixed up.
func (s *Store) number(ctx context.Context) error {
	return s.each(func(i int, st store.Store) error {
		want := strconv.Itoa(i + 1)
		have, err := st.Note(ctx, numberNote)
		if err == nil && have == nil {
			err = st.SetNote(ctx, numberNote, []byte(want))
		} else if err == nil && string(have) != want {
			err = fmt.Errorf("it was database %s before: databases keep their order, and new ones are added at the end", have)
		}
		return err
	})
}

// shareWorkflows gives stores that have joined what is registered.
func (s *Store) shareWorkflows(ctx context.Context) error {
	infos, err := s.home.Workflows(ctx)
	if err != nil {
		return fmt.Errorf("spread: %w", err)
	}
	for _, to := range s.stores[1:] {
		have, err := to.Workflows(ctx)
		if err != nil {
			return fmt.Errorf("spread: %w", err)
		}
		known := map[[2]string]bool{}
		for _, w := range have {
			known[[2]string{w.Name, w.Version}] = true
		}
		for _, w := range infos {
			if known[[2]string{w.Name, w.Version}] {
				continue
			}
			info, definition, err := s.home.Workflow(ctx, w.Name, w.Version)
			if err == nil {
				_, _, err = to.PutWorkflow(ctx, info, definition)
			}
			if err != nil {
				return fmt.Errorf("spread: %w", err)
			}
		}
	}
	return nil
}

// Shards implements [store.Store].
func (s *Store) Shards() uint32 { return s.shards }

// Acquire implements [store.Store]. While the shard is being moved it fails with
// [ErrMoving].
func (s *Store) Acquire(ctx context.Context, shard uint32, owner string) (uint64, int64, error) {
	if shard >= s.shards {
		return 0, 0, fmt.Errorf("spread: acquiring shard %d: there are %d", shard, s.shards)
	}
	before, err := s.places.settle(ctx, shard)
	if err != nil {
		return 0, 0, fmt.Errorf("spread: acquiring shard %d: %w", shard, err)
	}
	if before.To != 0 {
		return 0, 0, fmt.Errorf("spread: acquiring shard %d: %w to database %d", shard, ErrMoving, before.To)
	}
	at, err := s.index(before.At)
	if err != nil {
		return 0, 0, err
	}
	epoch, last, err := s.stores[at].Acquire(ctx, shard, owner)
	if err != nil {
		return 0, 0, err
	}
	after, err := s.places.read(ctx, shard)
	if err != nil {
		return 0, 0, fmt.Errorf("spread: acquiring shard %d: %w", shard, err)
	}
	if after.At != before.At || after.To != 0 {
		return 0, 0, fmt.Errorf("spread: acquiring shard %d: %w", shard, ErrMoving)
	}
	s.places.forget() // what was read before may be older
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acquired[shard] = at
	return epoch, last, nil
}

// Owner implements [store.Store].
func (s *Store) Owner(ctx context.Context, shard uint32) (string, uint64, error) {
	st, err := s.of(ctx, shard)
	if err != nil {
		return "", 0, err
	}
	return st.Owner(ctx, shard)
}

// index is the index of the store with a number.
func (s *Store) index(number int) (int, error) {
	if number < 1 || number > len(s.stores) {
		return 0, fmt.Errorf("spread: shards lie in database %d, and %d are given", number, len(s.stores))
	}
	return number - 1, nil
}

// of is the store of a shard.
func (s *Store) of(ctx context.Context, shard uint32) (store.Store, error) {
	p, err := s.places.at(ctx)
	if err != nil {
		return nil, err
	}
	return s.stores[p[shard]], nil
}

// Check implements [store.Store].
func (s *Store) Check(ctx context.Context) error {
	return s.each(func(_ int, st store.Store) error { return st.Check(ctx) })
}

// Close implements [store.Store].
func (s *Store) Close() error { return s.each(func(_ int, st store.Store) error { return st.Close() }) }

// each does something with all stores side by side.
func (s *Store) each(f func(int, store.Store) error) error {
	errs := make([]error, len(s.stores))
	var all sync.WaitGroup
	for i, st := range s.stores {
		all.Go(func() {
			if err := f(i, st); err != nil {
				errs[i] = fmt.Errorf("database %d: %w", i+1, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// placesAge is how old the known places of shards may be for reading. A move waits longer
// than that before it removes anything.
const placesAge = time.Second
