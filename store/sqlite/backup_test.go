package sqlite_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
)

// While commits go on, a copy has all that was durable before it was begun, and
// of what came later each commit wholly or not at all.
func TestBackupIsOneMomentOfAStoreInUse(t *testing.T) {
	dir := t.TempDir()
	path, copied := filepath.Join(dir, "store.db"), filepath.Join(dir, "copy.db")
	l := newLoad(t, path)
	l.limit = 100
	for range 20 {
		l.commit(t, l.rows(200))
	}
	before, err := l.s.List(t.Context(), store.Filter{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			l.commit(t, l.rows(200))
		}
	}()
	c, err := sqlite.Backup(t.Context(), path, copied)
	stop()
	<-done
	if err != nil {
		t.Fatal(err)
	}
	if c.Runs < int64(len(before.Runs)) || c.Unfinished != 100 || c.Shards != loadShards || c.Schema == 0 || c.Bytes == 0 {
		t.Errorf("the copy is %+v; before it there were %d runs", c, len(before.Runs))
	}
	for _, suffix := range []string{"-wal", "-journal", "-shm"} {
		if _, err := os.Stat(copied + suffix); err == nil {
			t.Errorf("the copy has a file %s", suffix)
		}
	}
	if info, err := os.Stat(copied); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v; want a file for its owner alone", info.Mode(), err)
	}
	s, err := open(t.Context(), copied, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, r := range before.Runs {
		if _, err := s.Run(t.Context(), r.ID); err != nil {
			t.Errorf("run %s is not in the copy: %v", r.ID, err)
		}
	}
	runs := 0
	for shard := range uint32(loadShards) {
		page, err := s.Unfinished(t.Context(), shard, 0, l.clock, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range page {
			runs++
			if len(u.History) < 1 || len(u.History) > 3 {
				t.Errorf("run %d has %d records and has not ended", u.Run.Ref, len(u.History))
			}
		}
	}
	if runs != 100 {
		t.Errorf("%d unfinished runs in the copy; there are always 100", runs)
	}
}

func TestRestoredStoreSupersedesTheOneThatWasLost(t *testing.T) {
	dir := t.TempDir()
	path, copied := filepath.Join(dir, "store.db"), filepath.Join(dir, "copy.db")
	l := newLoad(t, path)
	l.commit(t, l.rows(50))
	if _, err := sqlite.Backup(t.Context(), path, copied); err != nil {
		t.Fatal(err)
	}
	later := l.rows(500)
	l.commit(t, later)
	epochs := make([]uint64, loadShards)
	for shard := range uint32(loadShards) { // others have owned the shards since
		epoch, _, err := l.s.Acquire(t.Context(), shard, "later")
		if err != nil {
			t.Fatal(err)
		}
		epochs[shard] = epoch
	}
	if _, err := sqlite.Restore(t.Context(), copied, path, true); !errors.Is(err, store.ErrLocked) {
		t.Errorf("restoring what is open: %v", err)
	}
	if err := l.s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Restore(t.Context(), copied, path, false); !errors.Is(err, os.ErrExist) {
		t.Errorf("restoring over a store: %v", err)
	}
	c, err := sqlite.Restore(t.Context(), copied, path, true)
	if err != nil {
		t.Fatal(err)
	}
	if kept, err := open(t.Context(), c.Replaced, 0); err != nil {
		t.Errorf("what was replaced: %v", err)
	} else if err := kept.Close(); err != nil {
		t.Error(err)
	}
	s, err := open(t.Context(), path, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, p := range later {
		for _, r := range p.Create {
			if _, err := s.Run(t.Context(), r.ID); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("run %s is younger than the copy: %v", r.ID, err)
			}
		}
	}
	for shard := range uint32(loadShards) {
		// Epochs follow the clock, in seconds: those of a shard that changed hands
		// more often than that since the copy are not passed.
		if epoch, _, err := s.Acquire(t.Context(), shard, "restored"); err != nil || epoch+1 < epochs[shard] {
			t.Errorf("shard %d is acquired under %d, %v; it was under %d", shard, epoch, err, epochs[shard])
		}
	}
}

func TestBackupAndRestoreRefuseAndLeaveNothingBehind(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(ctx context.Context, dir string) error
		want error
		says string
	}{
		{"no database", func(ctx context.Context, dir string) error {
			_, err := sqlite.Backup(ctx, filepath.Join(dir, "none.db"), filepath.Join(dir, "copy.db"))
			return err
		}, os.ErrNotExist, "none.db"},
		{"a copy that exists", func(ctx context.Context, dir string) error {
			_, err := sqlite.Backup(ctx, filepath.Join(dir, "store.db"), filepath.Join(dir, "damaged.db"))
			return err
		}, os.ErrExist, "damaged.db"},
		{"no store", func(ctx context.Context, dir string) error {
			_, err := sqlite.Backup(ctx, filepath.Join(dir, "other.db"), filepath.Join(dir, "copy.db"))
			return err
		}, nil, "not a store of Ringmaster"},
		{"a context that has ended", func(ctx context.Context, dir string) error {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			_, err := sqlite.Backup(ctx, filepath.Join(dir, "store.db"), filepath.Join(dir, "copy.db"))
			return err
		}, context.Canceled, ""},
		{"a damaged copy", func(ctx context.Context, dir string) error {
			_, err := sqlite.Restore(ctx, filepath.Join(dir, "damaged.db"), filepath.Join(dir, "store.db"), true)
			return err
		}, nil, "damaged"},
		{"a copy that is cut off", func(ctx context.Context, dir string) error {
			_, err := sqlite.Restore(ctx, filepath.Join(dir, "short.db"), filepath.Join(dir, "store.db"), true)
			return err
		}, nil, "damaged"},
		{"a copy that is a text", func(ctx context.Context, dir string) error {
			_, err := sqlite.Restore(ctx, filepath.Join(dir, "text.db"), filepath.Join(dir, "store.db"), true)
			return err
		}, nil, "no SQLite database"},
		{"another program's database", func(ctx context.Context, dir string) error {
			_, err := sqlite.Restore(ctx, filepath.Join(dir, "other.db"), filepath.Join(dir, "store.db"), true)
			return err
		}, nil, "not a store of Ringmaster"},
		{"a copy of a newer version", func(ctx context.Context, dir string) error {
			_, err := sqlite.Restore(ctx, filepath.Join(dir, "newer.db"), filepath.Join(dir, "store.db"), true)
			return err
		}, store.ErrNewerSchema, "4711"},
		{"a database with its log", func(ctx context.Context, dir string) error {
			_, err := sqlite.Restore(ctx, filepath.Join(dir, "logged.db"), filepath.Join(dir, "store.db"), true)
			return err
		}, nil, "logged.db-wal lies beside it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			prepareCopies(t, dir)
			names := list(t, dir)
			err := tt.do(t.Context(), dir)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error is %v; want %v and %q", err, tt.want, tt.says)
			}
			if after := list(t, dir); after != names {
				t.Errorf("there are the files %s; before there were %s", after, names)
			}
			made(t, filepath.Join(dir, "store.db")) // it is as good as before
		})
	}
}

// prepareCopies puts a store and files that are no good copies into a folder.
func prepareCopies(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, "store.db")
	made(t, path)
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"damaged.db", "short.db", "newer.db", "logged.db"} {
		if _, err := sqlite.Backup(t.Context(), path, in(name)); err != nil {
			t.Fatal(err)
		}
	}
	edit(t, in("newer.db"), "INSERT INTO schema_versions (version_id, is_applied) VALUES (4711, 1)")
	edit(t, in("other.db"), "CREATE TABLE accounts (n INTEGER)")
	damaged, err := os.ReadFile(in("damaged.db"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * 4096 {
		damaged[4096+i] ^= 0xff
	}
	for name, content := range map[string][]byte{
		"damaged.db": damaged, "short.db": damaged[:4096], "logged.db-wal": []byte("frames"), "text.db": []byte(strings.Repeat("no database\n", 500)),
	} {
		if err := os.WriteFile(in(name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func list(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}
