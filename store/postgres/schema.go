package postgres

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/jmoiron/sqlx"
	"github.com/pressly/goose/v3"

	"github.com/ringmaster-dev/ringmaster/store"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// prepareSchema makes the schema or brings it up to date, and returns the number of
// shards.
func prepareSchema(ctx context.Context, db *sqlx.DB, cfg Config, log *slog.Logger) (shards uint32, err error) {
	conn, err := db.Connx(ctx)
	if err != nil {
		return 0, fmt.Errorf("connecting: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := conn.Raw(func(c any) error { return assertDurable(ctx, c.(*stdlib.Conn).Conn()) }); err != nil {
		return 0, err
	}
	p, err := newProvider(db.DB, log)
	if err != nil {
		return 0, err
	}
	if !upToDate(ctx, conn, p) {
		if err := makeSchema(ctx, conn, p, cfg, log); err != nil {
			return 0, err
		}
	}
	return fixShards(ctx, conn, cfg.Shards)
}

// Exists tells whether the schema has been made. It changes nothing.
func Exists(ctx context.Context, cfg Config) (bool, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return false, err
	}
	to, err := newTarget(cfg, tuning{})
	if err != nil {
		return false, fmt.Errorf("postgres: %w", err)
	}
	db := to.open("", 1)
	defer db.Close()
	var there bool
	err = db.GetContext(ctx, &there, "SELECT EXISTS (SELECT 1 FROM pg_tables WHERE schemaname = $1 AND tablename = $2)", cfg.Schema, versionTable)
	if err != nil {
		return false, fmt.Errorf("postgres: looking at %s: %w", to.name, err)
	}
	return there, nil
}

// upToDate tells whether there is nothing to do, as at most starts, which then
// need neither locks nor rights.
func upToDate(ctx context.Context, conn *sqlx.Conn, p *goose.Provider) bool {
	sources := p.ListSources()
	var have int64
	err := conn.GetContext(ctx, &have, "SELECT max(version_id) FROM "+versionTable)
	return err == nil && have == sources[len(sources)-1].Version
}

// makeSchema makes the schema or brings it up to date. However many do so at once,
// one works and the others wait for it.
func makeSchema(ctx context.Context, conn *sqlx.Conn, p *goose.Provider, cfg Config, log *slog.Logger) (err error) {
	key := lockKeyOf(cfg.Schema)
	if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", key); err != nil {
		return fmt.Errorf("waiting for others that start: %w", err)
	}
	defer func() {
		_, unlockErr := conn.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", key)
		err = errors.Join(err, unlockErr)
	}()
	var there bool
	if err := conn.GetContext(ctx, &there, "SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)", cfg.Schema); err != nil {
		return fmt.Errorf("looking for the schema: %w", err)
	}
	if !there {
		// Only then, since IF NOT EXISTS needs the right to make one even so.
		if _, err := conn.ExecContext(ctx, "CREATE SCHEMA "+quoted(cfg.Schema)); err != nil {
			return fmt.Errorf("making the schema: %w", err)
		}
	}
	return migrate(ctx, conn, p, log)
}

// lockKeyOf is the advisory lock of those who prepare a schema.
func lockKeyOf(schema string) int64 {
	h := fnv.New64a()
	h.Write([]byte("ringmaster schema " + schema))
	return int64(h.Sum64())
}

// schemaFloor is the oldest version of the schema whose programs can use it as this
// program makes it: orchestrators of both run side by side while they are upgraded. A
// migration that only adds (tables, indexes, columns that may be left out) leaves
// it as it is; one that changes what older programs read or write raises it to
// its own number, and then all orchestrators must be stopped for the upgrade. The
// schema keeps it, so that an older program knows whether it can work with a newer
// one.
const schemaFloor = 1

// migrate brings the tables up to date. A schema of a newer version is left as
// it was, and used if it allows that.
func migrate(ctx context.Context, conn *sqlx.Conn, p *goose.Provider, log *slog.Logger) error {
	have, known, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("reading the schema's version: %w", err)
	}
	if have > known {
		return checkNewer(ctx, conn, have, known, log)
	}
	applied, err := p.Up(ctx)
	if err != nil {
		return fmt.Errorf("migrating from version %d to %d: %w", have, known, err)
	}
	if len(applied) == 0 {
		return nil
	}
	if _, err := conn.ExecContext(ctx, `INSERT INTO meta (name, value) VALUES ('schema_floor', $1)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`, schemaFloor); err != nil {
		return fmt.Errorf("noting which programs can use the schema: %w", err)
	}
	log.Info("store migrated", "from", have, "to", known)
	return nil
}

// checkNewer tells whether a schema that is newer than this program is one that it
// can work with. Where nothing is said about that, it is not.
func checkNewer(ctx context.Context, conn *sqlx.Conn, have, known int64, log *slog.Logger) error {
	floor := have
	err := conn.GetContext(ctx, &floor, "SELECT value FROM meta WHERE name = 'schema_floor'")
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("reading which programs can use the schema: %w", err)
	}
	if known < floor {
		return fmt.Errorf("%w: the schema has version %d, for programs that know version %d, and this one knows %d; run the newer Ringmaster that last opened it, or restore a backup made before",
			store.ErrNewerSchema, have, floor, known)
	}
	log.Info("the store has a newer schema that this program can use", "schema", have, "floor", floor, "known", known)
	return nil
}

const versionTable = "schema_versions"

func newProvider(db *sql.DB, log *slog.Logger) (*goose.Provider, error) {
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return nil, err
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithDisableGlobalRegistry(true), goose.WithTableName(versionTable), goose.WithSlog(log))
	if err != nil {
		return nil, fmt.Errorf("preparing migrations: %w", err)
	}
	return p, nil
}

// fixShards stores the number of shards in a new schema and compares it in an
// old one.
func fixShards(ctx context.Context, conn *sqlx.Conn, want uint32) (uint32, error) {
	var have int64
	err := conn.GetContext(ctx, &have, "SELECT value FROM meta WHERE name = 'shards'")
	if errors.Is(err, sql.ErrNoRows) {
		if have = int64(want); have == 0 {
			have = defaultShards
		}
		// Of several that start together, the first says how many.
		_, err = conn.ExecContext(ctx, "INSERT INTO meta (name, value) VALUES ('shards', $1) ON CONFLICT (name) DO NOTHING", have)
		if err == nil {
			err = conn.GetContext(ctx, &have, "SELECT value FROM meta WHERE name = 'shards'")
		}
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("the number of shards: %w", err)
	case have < 1 || have > maxShards:
		return 0, fmt.Errorf("the stored number of shards is %d: the database is damaged", have)
	case want != 0 && int64(want) != have:
		return 0, fmt.Errorf("%w: it was made with %d, and %d are configured; the number is fixed when a store is made",
			store.ErrShardCount, have, want)
	}
	return uint32(have), nil
}

// quoted is a name as SQL has it.
func quoted(name string) string { return pgx.Identifier{name}.Sanitize() }
