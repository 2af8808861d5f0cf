package xa

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
)

// Dialect names the kind of database. The zero value is none. No driver is
// imported here.
type Dialect int

// The dialects.
const (
	// Postgres is PostgreSQL 10 or later, through any driver whose errors have a
	// method SQLState, as those of pgx and of lib/pq do.
	Postgres Dialect = iota + 1
	// MySQL is MariaDB 10.5 or later with tables of InnoDB, through a driver
	// whose errors begin with "Error" and the server's number, as those of
	// github.com/go-sql-driver/mysql do. MySQL 8.0 speaks the same language; the
	// tests of this package run on MariaDB.
	MySQL
)

func (d Dialect) String() string {
	switch d {
	case Postgres:
		return "PostgreSQL"
	case MySQL:
		return "MySQL"
	}
	return fmt.Sprintf("dialect(%d)", int(d))
}

// What a database answers beside errors of its own.
var (
	errGone = errors.New("no branch of that name is prepared")
	errBusy = errors.New("another session is at the branch")
	errLost = errors.New("the handler has ended the transaction itself")
)

// terms are those of a branch's transaction.
type terms struct {
	isolation   sql.IsolationLevel
	lockTimeout time.Duration
	idle        time.Duration // after which a silent session is ended; 0 never
}

// listed is a branch that the database holds prepared.
type listed struct {
	GID      string
	Prepared time.Time // zero where the database does not know
}

// executor is a connection, or all of them.
type executor interface {
	sqlx.ExecerContext
	sqlx.QueryerContext
}

// server is what differs from one kind of database to another. Every conn is a
// session that holds the branch's lock.
type server interface {
	// check refuses a server that cannot prepare, and names its database.
	check(ctx context.Context, db *sqlx.DB) (database string, err error)
	statements(table string) statements
	// bound: from the beginning of a branch its connection serves nothing else,
	// and others can end the branch only when the connection is closed.
	bound() bool

	// lock waits for the branch's lock of the session; errBusy if for too long.
	// It returns the session's number, where bound.
	lock(ctx context.Context, conn *sqlx.Conn, gid string, wait time.Duration) (session int64, err error)
	unlock(ctx context.Context, conn *sqlx.Conn, gid string) error

	// begin begins the branch; written takes the mark that it returns, and tells
	// whether anything was written since, or errLost.
	begin(ctx context.Context, conn *sqlx.Conn, gid string, t terms) (mark int64, err error)
	written(ctx context.Context, conn *sqlx.Conn, gid string, mark int64) (bool, error)
	prepare(ctx context.Context, conn *sqlx.Conn, gid string) error
	commit(ctx context.Context, conn *sqlx.Conn, gid string) error // in one phase
	rollback(ctx context.Context, conn *sqlx.Conn, gid string) error

	// prepared tells whether the branch is prepared. Of one that is being
	// committed it denies that only once the row is there; where branches are
	// bound, it does so only to the holder of the lock.
	prepared(ctx context.Context, q sqlx.QueryerContext, gid string) (bool, error)
	// list lists the prepared branches whose names have the prefix.
	list(ctx context.Context, q sqlx.QueryerContext, prefix string) ([]listed, error)
	// finish ends a prepared branch; errGone if there is none, errBusy if
	// another session is at it, for wait at least where that is known to end. The
	// session of that number has prepared it.
	finish(ctx context.Context, e executor, gid string, commit bool, session int64, wait time.Duration) error

	// refused tells of the error of a statement whether the server has said no;
	// then a prepare or a commit has had no effect.
	refused(err error) bool
	timedOut(err error) bool // a wait for a lock
	raced(err error) bool    // another has made the table in the meantime
}

func (d Dialect) server() server {
	switch d {
	case Postgres:
		return postgres{}
	case MySQL:
		return mysql{}
	}
	return nil
}

// statements are the SQL of one pair of tables.
type statements struct {
	create                  []string
	row, vote, note, prove  string
	settle, close, lose     string
	votes                   string
	aged, dropRow, dropVote string
}

// createTables makes the tables; other workers may be at it too.
func (p *Participant) createTables(ctx context.Context) error {
	for _, stmt := range p.sql.create {
		for try := 0; ; try++ {
			_, err := p.db.ExecContext(ctx, stmt)
			if err == nil {
				break
			}
			if !p.server.raced(err) || try == 20 || ctx.Err() != nil {
				return err
			}
			time.Sleep(time.Millisecond << min(try, 5))
		}
	}
	return nil
}

// quoted are the names of the two tables between quotes.
func quoted(table, mark string) (rows, votes string) {
	quote := func(name string) string { return mark + strings.ReplaceAll(name, ".", mark+"."+mark) + mark }
	return quote(table), quote(table + "_votes")
}

// millis is a duration in the unit of PostgreSQL's settings, at least 1 unless
// it is 0, which is no bound.
func millis(d time.Duration) string {
	if d > 0 {
		d = max(d, time.Millisecond)
	}
	return fmt.Sprint(d.Milliseconds())
}
