// Package ledger is a bank: accounts in one database, and the handlers of the
// tasks that move money in it.
package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"strings"

	"github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver of PostgreSQL
	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/worker/inbox"
	"github.com/ringmaster-dev/ringmaster/worker/xa"
)

// A real bank would forbid a negative balance with a CHECK, and a second entry
// for the same transfer with a unique key. There are none here, so that the
// audit sees what the transactions alone achieve.
const (
	accountsTable = `
CREATE TABLE IF NOT EXISTS accounts (
	id        VARCHAR(32) PRIMARY KEY,
	opening   BIGINT NOT NULL,
	balance   BIGINT NOT NULL,
	held      BIGINT NOT NULL DEFAULT 0, -- of the balance, for payments that are not confirmed yet
	announced BIGINT NOT NULL DEFAULT 0, -- to be received once it is confirmed
	closed    BOOLEAN NOT NULL DEFAULT FALSE -- nothing is paid in
)`
	entriesTable = `
CREATE TABLE IF NOT EXISTS entries (
	id       SERIAL PRIMARY KEY,
	transfer VARCHAR(128) NOT NULL, -- the id of the run
	account  VARCHAR(32) NOT NULL,
	amount   BIGINT NOT NULL -- negative for money that left
)`
	entriesIndex = `CREATE INDEX IF NOT EXISTS entries_transfer ON entries (transfer)`
)

// Account is an account with the money it starts with.
type Account struct {
	ID      string `db:"id"`
	Opening int64  `db:"opening"`
	Closed  bool   `db:"closed"`
}

// Ledger is a bank's database.
type Ledger struct {
	db *sqlx.DB
}

// Open opens a database by its address: postgres://user@host/database or
// mysql://user@host:port/database.
func Open(address string) (*Ledger, error) {
	db, err := open(address)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	db.SetMaxIdleConns(maxIdle)
	return New(db), nil
}

func open(address string) (*sqlx.DB, error) {
	if !strings.HasPrefix(address, "mysql://") {
		return sqlx.Open("pgx", address)
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	cfg := mysql.NewConfig()
	cfg.Net, cfg.Addr, cfg.DBName = "tcp", u.Host, strings.TrimPrefix(u.Path, "/")
	cfg.User = u.User.Username()
	cfg.Passwd, _ = u.User.Password()
	cfg.Logger = &mysql.NopLogger{} // it says what the errors say
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	return sqlx.NewDb(sql.OpenDB(connector), "mysql"), nil
}

// New returns the ledger of a database, through the driver pgx or mysql.
func New(db *sqlx.DB) *Ledger { return &Ledger{db: db} }

// maxIdle connections are kept, enough for all the handlers of a worker.
const maxIdle = 32

// DB is the database.
func (l *Ledger) DB() *sqlx.DB { return l.db }

// Close closes the database.
func (l *Ledger) Close() error { return l.db.Close() }

// Create makes the tables where they are absent.
func (l *Ledger) Create(ctx context.Context) error {
	for _, statement := range []string{accountsTable, entriesTable, entriesIndex} {
		if _, err := l.db.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("create the ledger: %w", err)
		}
	}
	return nil
}

// Fund opens accounts.
func (l *Ledger) Fund(ctx context.Context, accounts []Account) error {
	_, err := l.db.NamedExecContext(ctx, `
		INSERT INTO accounts (id, opening, balance, closed) VALUES (:id, :opening, :opening, :closed)`, accounts)
	return err
}

// mysql tells whether the database is MariaDB or MySQL, not PostgreSQL.
func (l *Ledger) mysql() bool { return l.db.DriverName() == "mysql" }

func (l *Ledger) inboxDialect() inbox.Dialect {
	if l.mysql() {
		return inbox.MySQL
	}
	return inbox.Postgres
}

func (l *Ledger) xaDialect() xa.Dialect {
	if l.mysql() {
		return xa.MySQL
	}
	return xa.Postgres
}
