package spread_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/store/spread"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
)

// Shards are dealt out over two databases, and one is moved.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "spread-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	var stores []store.Store
	for _, name := range []string{"one.db", "two.db"} {
		s, err := sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(dir, name), Shards: 4})
		if err != nil {
			panic(err)
		}
		stores = append(stores, s)
	}
	s, err := spread.New(ctx, spread.Config{Stores: stores})
	if err != nil {
		panic(err)
	}
	defer s.Close()
	for shard := range s.Shards() {
		if _, _, err := s.Acquire(ctx, shard, "me"); err != nil {
			panic(err)
		}
	}
	if err := s.Move(ctx, 2, 2); err != nil {
		panic(err)
	}
	places, err := s.Places(ctx)
	if err != nil {
		panic(err)
	}
	for _, p := range places {
		fmt.Println("shard", p.Shard, "is in database", p.Database)
	}
	// Output:
	// shard 0 is in database 1
	// shard 1 is in database 2
	// shard 2 is in database 2
	// shard 3 is in database 2
}
