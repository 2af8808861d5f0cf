package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/ringmaster-dev/ringmaster/store"
)

// Copy describes a copy of a store.
type Copy struct {
	Bytes      int64
	Schema     int64 // version of its schema
	Shards     uint32
	Runs       int64
	Unfinished int64 // of them, those that have not ended
	// Replaced is the name under which Restore kept what it replaced, with
	// -wal and -shm where there were such files; empty if there was nothing.
	Replaced string
}

// copyPages is how many pages are copied between two looks at the context.
const copyPages = 4096

// Backup writes the store at path, as it is at one moment, into the new file
// target, and makes that durable. Another process may have the store open and
// go on committing: the copy is made in one read transaction, which holds
// nobody up, but during which the write-ahead log is not emptied and grows.
// The copy is one file, private to its owner, and has been checked to be sound.
// A target that exists is refused with [os.ErrExist].
func Backup(ctx context.Context, path, target string) (Copy, error) {
	path, err := realPath(path)
	if err != nil {
		return Copy{}, fmt.Errorf("sqlite: %w", err)
	}
	if _, err := os.Stat(path); err != nil {
		return Copy{}, fmt.Errorf("sqlite: the database: %w", err)
	}
	c, err := placed(target, func(temp string) (Copy, error) {
		if err := copyStore(ctx, path, temp); err != nil {
			return Copy{}, err
		}
		return Inspect(ctx, temp)
	})
	if err != nil {
		return Copy{}, fmt.Errorf("sqlite: backing up %s: %w", path, err)
	}
	return c, nil
}

// Restore puts a copy that [Backup] has made in the place of the store at path.
// The copy is checked first and stays. A store that is there already is
// refused with [os.ErrExist] unless replace is set, and then kept under another
// name ([Copy.Replaced]); one that a process has open is refused with
// [store.ErrLocked] in any case.
func Restore(ctx context.Context, from, path string, replace bool) (Copy, error) {
	path, err := realPath(path)
	if err != nil {
		return Copy{}, fmt.Errorf("sqlite: %w", err)
	}
	c, err := restore(ctx, from, path, replace)
	if err != nil {
		return Copy{}, fmt.Errorf("sqlite: restoring %s from %s: %w", path, from, err)
	}
	return c, nil
}

func restore(ctx context.Context, from, path string, replace bool) (c Copy, err error) {
	if log, err := os.Stat(from + "-wal"); err == nil && log.Size() > 0 {
		return Copy{}, fmt.Errorf("%s-wal lies beside it, so it is no copy but a database with its log; make a copy of it with Backup", filepath.Base(from))
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return Copy{}, err
	}
	defer func() { err = errors.Join(err, lock.unlock()) }()
	_, there := os.Stat(path)
	if there == nil && !replace {
		return Copy{}, fmt.Errorf("%s: %w", path, os.ErrExist)
	}
	replaced := path + ".replaced-" + time.Now().UTC().Format("20060102T150405.000Z")
	c, err = placed(replaced+".new", func(temp string) (Copy, error) {
		if err := copyFile(temp, from); err != nil {
			return Copy{}, err
		}
		c, err := Inspect(ctx, temp)
		if known := latestSchema(); err == nil && c.Schema > known {
			err = fmt.Errorf("%w: the copy has version %d and this program knows %d", store.ErrNewerSchema, c.Schema, known)
		}
		return c, err
	})
	if err != nil {
		return Copy{}, err
	}
	// The database goes first: without one, SQLite removes a log that is left.
	for _, suffix := range []string{"", "-wal", "-shm"} {
		switch err := os.Rename(path+suffix, replaced+suffix); {
		case err == nil && suffix == "":
			c.Replaced = replaced
		case err != nil && !errors.Is(err, os.ErrNotExist):
			return Copy{}, err
		}
	}
	if err := os.Rename(replaced+".new", path); err != nil {
		return Copy{}, err
	}
	return c, syncFile(filepath.Dir(path))
}

// Inspect checks that the file at path is a sound copy of a store, and says
// what it holds. It writes nothing, so that the file may be on a medium that
// cannot be written; nobody may be writing it meanwhile.
func Inspect(ctx context.Context, path string) (Copy, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Copy{}, err
	}
	db := sql.OpenDB(connector{dsn(path, "ro", "&immutable=1"), &sqlite3.SQLiteDriver{}})
	defer db.Close()
	db.SetMaxOpenConns(1)
	c := Copy{Bytes: info.Size()}
	var id int64
	var verdict string
	for _, q := range []struct {
		sql  string
		into any
	}{
		{"PRAGMA application_id", &id},
		{"PRAGMA integrity_check(1)", &verdict},
	} {
		var damaged sqlite3.Error
		err := db.QueryRowContext(ctx, q.sql).Scan(q.into)
		if errors.As(err, &damaged) && (damaged.Code == sqlite3.ErrNotADB || damaged.Code == sqlite3.ErrCorrupt) {
			return Copy{}, fmt.Errorf("%s is damaged, or no SQLite database: %w", path, err)
		}
		if err != nil {
			return Copy{}, fmt.Errorf("checking %s: %w", path, err)
		}
		if id != applicationID {
			return Copy{}, fmt.Errorf("%s is not a store of Ringmaster", path)
		}
	}
	if verdict != "ok" {
		return Copy{}, fmt.Errorf("%s is damaged: %s", path, verdict)
	}
	err = errors.Join(
		db.QueryRowContext(ctx, "SELECT max(version_id) FROM schema_versions").Scan(&c.Schema),
		db.QueryRowContext(ctx, "SELECT value FROM meta WHERE name = 'shards'").Scan(&c.Shards),
		db.QueryRowContext(ctx, "SELECT count(*), count(*) FILTER (WHERE ended IS NULL) FROM runs").Scan(&c.Runs, &c.Unfinished),
	)
	if err != nil {
		return Copy{}, fmt.Errorf("reading %s: %w", path, err)
	}
	return c, nil
}

// placed has a file filled under a temporary name, makes it durable and then
// gives it its name.
func placed(target string, fill func(temp string) (Copy, error)) (c Copy, err error) {
	if _, err := os.Lstat(target); err == nil {
		return Copy{}, fmt.Errorf("%s: %w", target, os.ErrExist)
	}
	dir := filepath.Dir(target)
	f, err := os.CreateTemp(dir, ".ringmaster-copy-") // private to its owner
	if err != nil {
		return Copy{}, err
	}
	temp := f.Name()
	defer func() {
		if err != nil {
			_ = os.Remove(temp + "-journal") // SQLite's, if any
			err = errors.Join(err, os.Remove(temp))
		}
	}()
	if err := f.Close(); err != nil {
		return Copy{}, err
	}
	if c, err = fill(temp); err != nil {
		return Copy{}, err
	}
	if err := syncFile(temp); err != nil {
		return Copy{}, err
	}
	if err := os.Rename(temp, target); err != nil {
		return Copy{}, err
	}
	return c, syncFile(dir)
}

// copyStore copies a database page by page, within one read transaction:
// without that, SQLite would begin anew whenever somebody else has written.
func copyStore(ctx context.Context, path, target string) (err error) {
	src, err := openConn(dsn(path, "ro"), "query_only = ON", "busy_timeout = "+busyTimeout)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	id, err := value[int64](src, "PRAGMA application_id")
	if err != nil {
		return err
	}
	if id != applicationID {
		return errors.New("it is not a store of Ringmaster")
	}
	dst, err := openConn(dsn(target, "rw"), "synchronous = OFF") // made durable at the end
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.close()) }()
	if err := src.exec("BEGIN"); err != nil {
		return err
	}
	if _, err := src.row("SELECT count(*) FROM sqlite_schema"); err != nil { // from here on nothing changes
		return err
	}
	b, err := dst.raw.Backup("main", src.raw, "main")
	if err != nil {
		return err
	}
	for done := false; !done && err == nil; {
		if err = ctx.Err(); err == nil {
			done, err = b.Step(copyPages)
		}
	}
	if err = errors.Join(err, b.Finish()); err != nil {
		return err
	}
	// The copy is one file: opening it makes no log beside it.
	_, err = value[string](dst, "PRAGMA journal_mode = DELETE")
	return err
}

func copyFile(target, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(target, os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

// syncFile makes a file, or the names in a folder, durable.
func syncFile(path string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// latestSchema is the version of the schema that this program makes.
func latestSchema() int64 {
	files, _ := fs.Glob(migrationFiles, "migrations/*.sql") // the pattern is well formed
	var latest int64
	for _, name := range files {
		number, _, _ := strings.Cut(filepath.Base(name), "_")
		n, _ := strconv.ParseInt(number, 10, 64) // goose refuses other names
		latest = max(latest, n)
	}
	return latest
}
