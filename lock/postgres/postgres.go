package postgres

import (
	"context"
	"crypto/rand"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"

	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/lock/internal/session"
)

// DefaultSchema is where leases are kept if no schema is named.
const DefaultSchema = "ringmaster_locks"

//go:embed schema.sql
var schemaSQL string

// Config says where leases are kept.
type Config struct {
	// DB is a pool of the driver "pgx" (pgx's stdlib package), which stays the
	// caller's to close. Each session takes a connection for the moment of a
	// request; waiting takes none.
	DB *sql.DB
	// URL is opened if DB is nil. One of the two is required.
	URL string
	// Schema holds the tables, and is created if there is none; DefaultSchema if
	// empty. Providers that share a schema share their leases. Its tables and
	// functions all have names that begin with "lease", so it may hold others.
	Schema string
	// Logger gets what an operator should know; nil discards.
	Logger *slog.Logger
}

// Provider implements lock.Provider. It is safe for concurrent use.
type Provider struct {
	db     *sql.DB
	own    bool // db was opened here
	schema string
	log    *slog.Logger
	ears   *listener

	mu       sync.Mutex
	sessions map[string]*backend
}

// New connects, and creates the schema if it does not exist yet; that may
// happen in any number of processes at the same time.
func New(ctx context.Context, c Config) (*Provider, error) {
	p := &Provider{db: c.DB, schema: c.Schema, log: c.Logger, sessions: map[string]*backend{}}
	if p.schema == "" {
		p.schema = DefaultSchema
	}
	if len(p.schema) > 56 || strings.ContainsAny(p.schema, "\x00'\"\\${}") {
		return nil, fmt.Errorf("%w: schema %q has more than 56 bytes, or one of ' \" \\ $ { }", lock.ErrInvalid, p.schema)
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if p.db == nil {
		if c.URL == "" {
			return nil, fmt.Errorf("%w: neither a DB nor a URL is given", lock.ErrInvalid)
		}
		db, err := sql.Open("pgx", c.URL)
		if err != nil {
			return nil, fmt.Errorf("opening the database of leases: %w", err)
		}
		// Renewals need a connection soon, and between requests hardly any.
		db.SetMaxOpenConns(8)
		db.SetConnMaxIdleTime(time.Minute)
		p.db, p.own = db, true
	}
	if err := p.create(ctx); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	p.ears = listen(p)
	return p, nil
}

// channel is the name of the channel of notes, and what keeps the advisory locks
// of one schema apart from those of another.
func (p *Provider) channel() string { return p.schema + "_leases" }

// sql fills in the schema: quoted {s}, inside a literal {q}, the channel {c}.
func (p *Provider) sql(text string) string {
	quoted := pgx.Identifier{p.schema}.Sanitize()
	return strings.NewReplacer("{s}", quoted, "{q}", quoted, "{c}", p.channel()).Replace(text)
}

// create makes the schema once, whoever comes first.
func (p *Provider) create(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("creating the schema %s of leases: %w", p.schema, err)
		}
	}()
	if there, err := p.there(ctx, p.db); err != nil || there {
		return err
	}
	tx, err := p.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, p.channel()); err != nil {
		return err
	}
	if there, err := p.there(ctx, tx); err != nil || there {
		return err
	}
	// One that may not create schemas may have been given this one.
	var given bool
	if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)`, p.schema).Scan(&given); err != nil {
		return err
	}
	text := schemaSQL
	if !given {
		text = "CREATE SCHEMA IF NOT EXISTS {s};\n" + text
	}
	if _, err := tx.ExecContext(ctx, p.sql(text)); err != nil {
		return err
	}
	return tx.Commit()
}

// version is that of the schema.
const version = 1

// there reports whether the schema is there, in a version that is known.
func (p *Provider) there(ctx context.Context, db interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}) (bool, error) {
	var there bool
	// Not to_regclass, which may answer from a cache.
	if err := db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND c.relname = 'lease_version')`, p.schema).Scan(&there); err != nil || !there {
		return false, err
	}
	var have int
	if err := db.QueryRowContext(ctx, p.sql(`SELECT version FROM {s}.lease_version`)).Scan(&have); err != nil {
		return false, err
	}
	if have != version {
		return false, fmt.Errorf("it has version %d, and this program knows %d", have, version)
	}
	return true, nil
}

// Open implements lock.Provider.
func (p *Provider) Open(ctx context.Context, c lock.SessionConfig) (lock.Session, error) {
	c, err := c.WithDefaults()
	if err != nil {
		return nil, err
	}
	b := &backend{p: p, id: rand.Text(), woken: map[string]chan struct{}{}}
	sent := c.Now()
	if _, err := p.db.ExecContext(ctx, p.sql(`SELECT {s}.lease_open($1, $2, $3 * interval '1 microsecond')`), b.id, c.Owner, c.TTL.Microseconds()); err != nil {
		return nil, fmt.Errorf("opening a lock session: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	b.session = session.Start(c, sent, b)
	p.sessions[b.id] = b
	return b.session, nil
}

// Close implements lock.Provider.
func (p *Provider) Close() error {
	if p.ears != nil {
		p.ears.close()
	}
	if p.own {
		return p.db.Close()
	}
	return nil
}

// find returns a session of this provider.
func (p *Provider) find(id string) *backend {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sessions[id]
}

func (p *Provider) remove(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sessions, id)
}

// wakeAll has everybody ask again: notes may have been missed.
func (p *Provider) wakeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.sessions {
		b.wakeAll()
	}
}
