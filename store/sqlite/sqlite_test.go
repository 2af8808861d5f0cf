package sqlite_test

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/jmoiron/sqlx"
	_ "github.com/mattn/go-sqlite3"

	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
	"github.com/ringmaster-dev/ringmaster/store/storetest"
)

// file is a database of the suite.
type file string

func (f file) Open(ctx context.Context, shards uint32) (store.Store, error) {
	s, err := open(ctx, string(f), shards)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func open(ctx context.Context, path string, shards uint32) (*sqlite.Store, error) {
	return sqlite.Open(ctx, sqlite.Config{Path: path, Shards: shards, Logger: quiet})
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func newFile(t testing.TB) storetest.Database {
	return file(filepath.Join(t.TempDir(), "store.db"))
}

func TestStorePassesTheSuite(t *testing.T) {
	storetest.Run(t, storetest.Harness{New: newFile, Exclusive: true, Crash: crash})
}

// tunedFile is a database that makes checkpoints all the time.
type tunedFile struct{ file }

func (f tunedFile) Open(ctx context.Context, shards uint32) (store.Store, error) {
	s, err := tuned(string(f.file))
	if err != nil {
		return nil, err
	}
	return s, nil
}

func TestCrashesAmidCheckpoints(t *testing.T) {
	storetest.Crashes(t, storetest.Harness{
		New: func(t testing.TB) storetest.Database { return tunedFile{newFile(t).(file)} },
		Crash: func(t testing.TB, db storetest.Database, cut int64) storetest.Database {
			return tunedFile{crash(t, db.(tunedFile).file, cut).(file)}
		},
	})
}

// crash copies a database and its log as they are on disk, the log less its
// last cut bytes. The copy is what a power cut may leave: a read that is held
// meanwhile keeps the log from starting again, so that the two belong to each
// other although commits, and checkpoints, go on. What a checkpoint has copied
// is not cut: the log is synced before that.
func crash(t testing.TB, db storetest.Database, cut int64) storetest.Database {
	t.Helper()
	from, to := string(db.(file)), filepath.Join(t.TempDir(), "copy.db")
	reader, err := sqlx.Open("sqlite3", "file:"+from+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	tx, err := reader.Beginx()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	var n int
	if err := tx.Get(&n, "SELECT count(*) FROM meta"); err != nil {
		t.Fatal(err)
	}
	copyFile(t, from, to)
	copyFile(t, from+"-wal", to+"-wal")
	if cut == 0 {
		return file(to)
	}
	log, err := os.Stat(to + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	index, err := os.ReadFile(from + "-shm")
	if err != nil {
		t.Fatal(err)
	}
	// nBackfillAttempted of the log's index: the frames, of a page and 24 bytes
	// each, that checkpoints have begun to copy.
	copied := 32 + int64(binary.NativeEndian.Uint32(index[128:]))*(24+4096)
	if err := os.Truncate(to+"-wal", min(log.Size(), max(0, log.Size()-cut, copied))); err != nil {
		t.Fatal(err)
	}
	return file(to)
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
