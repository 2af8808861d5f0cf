package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/mattn/go-sqlite3"
	"github.com/pressly/goose/v3"

	"github.com/ringmaster-dev/ringmaster/store"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// applicationID marks a SQLite file as a Ringmaster store: "RMST".
const applicationID = 0x524d5354

// schemaFloor is the oldest version of the schema whose programs can use the file
// as this program makes it. A migration that only adds (tables, indexes, columns that may be
// left out) leaves it as it is; one that changes what older programs read or
// write raises it to its own number. The file keeps it, so that an older program
// knows whether a newer schema is one that it can work with.
const schemaFloor = 5

// migrate makes the schema of a new file and brings an old one up to date. A
// file that is not ours, or of a newer version, is left as it was.
func migrate(ctx context.Context, path string, log *slog.Logger) error {
	// The page size is that of file systems; it takes effect in a new file only.
	hook := pragmaHook([]string{"page_size = 4096", "busy_timeout = " + busyTimeout, "synchronous = FULL"})
	db := sql.OpenDB(connector{dsn(path, "rwc"), &sqlite3.SQLiteDriver{ConnectHook: hook}})
	defer db.Close()
	db.SetMaxOpenConns(1)

	if err := checkOurs(ctx, db); err != nil {
		return err
	}
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files,
		goose.WithDisableGlobalRegistry(true), goose.WithTableName("schema_versions"), goose.WithSlog(log))
	if err != nil {
		return fmt.Errorf("preparing migrations: %w", err)
	}
	have, known, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("reading the schema's version: %w", err)
	}
	if have > known {
		return checkNewer(ctx, db, have, known, log)
	}
	applied, err := p.Up(ctx)
	if err != nil {
		return fmt.Errorf("migrating from version %d to %d: %w", have, known, err)
	}
	if _, err := db.ExecContext(ctx, `INSERT INTO meta (name, value) VALUES ('schema_floor', $1)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE value IS NOT excluded.value`, schemaFloor); err != nil {
		return fmt.Errorf("noting which programs can use the schema: %w", err)
	}
	if len(applied) > 0 {
		log.Info("store migrated", "from", have, "to", known)
	}
	return nil
}

// checkNewer tells whether a schema that is newer than this program is one that it
// can work with. Where nothing is said about that, it is not.
func checkNewer(ctx context.Context, db *sql.DB, have, known int64, log *slog.Logger) error {
	floor := have
	err := db.QueryRowContext(ctx, "SELECT value FROM meta WHERE name = 'schema_floor'").Scan(&floor)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("reading which programs can use the schema: %w", err)
	}
	if known < floor {
		return fmt.Errorf("%w: the file has version %d, for programs that know version %d, and this one knows %d; run the newer Ringmaster that last opened it, or restore a backup made before",
			store.ErrNewerSchema, have, floor, known)
	}
	log.Info("the store has a newer schema that this program can use", "schema", have, "floor", floor, "known", known)
	return nil
}

// checkOurs tells a store of ours by its application id, and marks an empty
// file as one.
func checkOurs(ctx context.Context, db *sql.DB) error {
	var id, tables int64
	err := db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id)
	if err == nil {
		err = db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables)
	}
	var e sqlite3.Error
	switch {
	case errors.As(err, &e) && e.Code == sqlite3.ErrNotADB:
		return errors.New("the file exists and is not a SQLite database; name another path")
	case err != nil:
		return fmt.Errorf("looking at the file: %w", err)
	case id == applicationID:
		return nil
	case tables > 0 || id != 0:
		return errors.New("the file is a SQLite database of another program; name another path")
	}
	_, err = db.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", applicationID))
	if err != nil {
		return fmt.Errorf("marking the file: %w", err)
	}
	return nil
}

// connector lets database/sql open connections with a driver of our own, so
// that nothing is registered under a global name.
type connector struct {
	name   string
	driver *sqlite3.SQLiteDriver
}

func (c connector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.name) }
func (c connector) Driver() driver.Driver                        { return c.driver }
