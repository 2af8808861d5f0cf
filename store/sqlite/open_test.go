package sqlite_test

import (
	"bytes"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
)

// raw opens a database file as SQLite has it.
func raw(t testing.TB, path string) *sqlx.DB {
	t.Helper()
	u := url.URL{Path: path}
	db, err := sqlx.Open("sqlite3", "file:"+u.EscapedPath())
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// edit runs statements on a database file that is not open.
func edit(t testing.TB, path string, statements ...string) {
	t.Helper()
	db := raw(t, path)
	defer db.Close()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// made makes a store at a path and closes it.
func made(t testing.TB, path string) {
	t.Helper()
	s, err := open(t.Context(), path, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// beforeRetention takes a store back to the version before runs were removed.
var beforeRetention = []string{
	"DROP INDEX runs_ended", "DROP INDEX tombstones_until", "ALTER TABLE shards DROP COLUMN removed",
	"ALTER TABLE tombstones DROP COLUMN until", "ALTER TABLE tombstones DROP COLUMN workflow", "ALTER TABLE tombstones DROP COLUMN input_hash",
	"ALTER TABLE tombstones DROP COLUMN waived", "ALTER TABLE tombstones DROP COLUMN created", "ALTER TABLE tombstones DROP COLUMN ended",
	"DELETE FROM schema_versions WHERE version_id = 5",
}

// beforeParents takes a store back from there to the version before runs had
// parents.
var beforeParents = []string{
	"DROP INDEX runs_parent", "ALTER TABLE runs DROP COLUMN parent", "ALTER TABLE runs DROP COLUMN parent_step",
	"DELETE FROM schema_versions WHERE version_id = 4",
}

func TestOpenMakesOrMigratesTheSchema(t *testing.T) {
	schema := func(path string) string {
		db := raw(t, path)
		defer db.Close()
		var sql []string
		if err := db.Select(&sql, "SELECT coalesce(sql, name) FROM sqlite_schema ORDER BY name"); err != nil {
			t.Fatal(err)
		}
		return strings.Join(sql, "\n")
	}
	fresh := filepath.Join(t.TempDir(), "fresh.db")
	made(t, fresh)
	for name, prepare := range map[string]func(path string) error{
		"an empty file":            func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"a start that ended early": func(path string) error { edit(t, path, "PRAGMA application_id = 0x524d5354"); return nil },
		"the version before parents": func(path string) error {
			made(t, path)
			edit(t, path, slices.Concat(beforeRetention, beforeParents)...)
			return nil
		},
		"the version before retention": func(path string) error {
			made(t, path)
			edit(t, path, beforeRetention...)
			return nil
		},
		"the first version": func(path string) error {
			made(t, path)
			edit(t, path, slices.Concat(beforeRetention, beforeParents, []string{"DROP TABLE tombstones", "DROP TABLE locks",
				"DELETE FROM schema_versions WHERE version_id > 1"})...)
			return nil
		},
		"a name that has to be read": func(string) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a? b%20#c&mode=ro.db")
			if err := prepare(path); err != nil {
				t.Fatal(err)
			}
			made(t, path)
			if got, want := schema(path), schema(fresh); got != want {
				t.Errorf("schema is\n%s\nwant\n%s", got, want)
			}
			made(t, path) // and again
		})
	}
}

// A newer program has added to the schema, and says that this one can use it.
func TestOpenUsesANewerSchemaThatAllowsIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	made(t, path)
	edit(t, path, "INSERT INTO schema_versions (version_id, is_applied) VALUES (4711, 1)", "CREATE TABLE later (n INTEGER)",
		"ALTER TABLE runs ADD COLUMN later TEXT")
	made(t, path)
	db := raw(t, path)
	defer db.Close()
	var version int64
	if err := db.Get(&version, "SELECT max(version_id) FROM schema_versions"); err != nil || version != 4711 {
		t.Errorf("the schema has version %d, %v", version, err)
	}
}

func TestOpenRefusesAndLeavesAlone(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare func(path string) error
		want    error  // or
		says    string // in the error
	}{
		{"a newer schema", func(path string) error {
			made(t, path)
			edit(t, path, "INSERT INTO schema_versions (version_id, is_applied) VALUES (4711, 1)", "UPDATE meta SET value = 4000 WHERE name = 'schema_floor'")
			return nil
		}, store.ErrNewerSchema, "version 4711, for programs that know version 4000"},
		{"a newer schema that does not say who can use it", func(path string) error {
			made(t, path)
			edit(t, path, "INSERT INTO schema_versions (version_id, is_applied) VALUES (4711, 1)", "DELETE FROM meta WHERE name = 'schema_floor'")
			return nil
		}, store.ErrNewerSchema, "4711"},
		{"another program's database", func(path string) error {
			edit(t, path, "CREATE TABLE accounts (n INTEGER)")
			return nil
		}, nil, "another program"},
		{"another program's mark", func(path string) error {
			edit(t, path, "PRAGMA application_id = 4711")
			return nil
		}, nil, "another program"},
		{"a text file", func(path string) error {
			return os.WriteFile(path, []byte(strings.Repeat("not a database\n", 100)), 0o600)
		}, nil, "not a SQLite database"},
		{"a number of shards that is damaged", func(path string) error {
			made(t, path)
			edit(t, path, "UPDATE meta SET value = 'many' WHERE name = 'shards'")
			return nil
		}, nil, "damaged"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			if err := tt.prepare(path); err != nil {
				t.Fatal(err)
			}
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			_, err = open(t.Context(), path, 0)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error is %v; want %v and %q", err, tt.want, tt.says)
			}
			after, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(before, after) {
				t.Error("the file was changed")
			}
			// A refusal does not leave the lock behind.
			if _, err := open(t.Context(), path, 0); errors.Is(err, store.ErrLocked) {
				t.Error("the file is locked after it was refused")
			}
		})
	}
}

func TestOpenRefusesConfigs(t *testing.T) {
	dir := t.TempDir()
	for name, cfg := range map[string]sqlite.Config{
		"Path is required":               {},
		"Shards is 65537: at most 65536": {Path: filepath.Join(dir, "a.db"), Shards: 1<<16 + 1},
		"ReadConns is -1":                {Path: filepath.Join(dir, "a.db"), ReadConns: -1},
		"the folder of the database":     {Path: filepath.Join(dir, "none", "a.db")},
		"unable to open":                 {Path: dir},
	} {
		if _, err := sqlite.Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error is %v; want %q", err, name)
		}
	}
}

func TestOpenRefusesCommitsThatAPowerCutWouldLose(t *testing.T) {
	for pragma, says := range map[string]string{"synchronous = NORMAL": "synchronous is 1", "synchronous = OFF": "synchronous is 0"} {
		_, err := tuned(filepath.Join(t.TempDir(), "store.db"), pragma)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error is %v; want %q", pragma, err, says)
		}
	}
}

func TestOneFileIsLockedUnderAllItsNames(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "store.db"), filepath.Join(dir, "link.db")
	s, err := open(t.Context(), path, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t.Context(), link, 0); !errors.Is(err, store.ErrLocked) {
		t.Errorf("error is %v; want ErrLocked", err)
	}
}

func TestCheckNoticesAFileThatWasReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, err := open(t.Context(), path, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context()); err == nil {
		t.Error("the store is sound although its file is gone")
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context()); err == nil {
		t.Error("the store is sound although its file was replaced")
	}
}

func TestMetricsAreRegisteredWhileTheStoreIsOpen(t *testing.T) {
	path, reg := filepath.Join(t.TempDir(), "store.db"), prometheus.NewRegistry()
	for range 2 { // the second would panic if the first were left
		s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path, Logger: quiet, Registerer: reg})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := reg.Gather(); err != nil || len(got) == 0 {
			t.Errorf("gathered %d metrics, %v", len(got), err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
