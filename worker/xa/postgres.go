package xa

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
)

type postgres struct{}

func (postgres) bound() bool { return false }

func (postgres) check(ctx context.Context, db *sqlx.DB) (database string, err error) {
	var limit int
	if err := db.GetContext(ctx, &limit, `SELECT current_setting('max_prepared_transactions')::int`); err != nil {
		return "", fmt.Errorf("reading max_prepared_transactions: %w", err)
	}
	if limit == 0 {
		return "", errors.New("max_prepared_transactions is 0, so PostgreSQL refuses every PREPARE TRANSACTION: " +
			"set it in postgresql.conf to as many transactions as may be prepared at a time (max_connections is a good choice), and restart the server")
	}
	if err := db.GetContext(ctx, &database, `SELECT current_database()`); err != nil {
		return "", fmt.Errorf("reading the database's name: %w", err)
	}
	return database, nil
}

// durable makes the commit of the statement's own transaction wait for the disk
// where the database does not by default: a vote is a promise.
const durable = `WITH durable AS (SELECT set_config('synchronous_commit',
	CASE WHEN current_setting('synchronous_commit') = 'off' THEN 'local' ELSE current_setting('synchronous_commit') END, true)) `

func (postgres) statements(table string) statements {
	rows, votes := quoted(table, `"`)
	bare := table[strings.LastIndexByte(table, '.')+1:]
	return statements{
		create: []string{
			`CREATE TABLE IF NOT EXISTS ` + rows + ` (
				gid        TEXT PRIMARY KEY,
				run_id     TEXT NOT NULL,
				step       TEXT NOT NULL,
				created_at BIGINT NOT NULL
			)`,
			`CREATE TABLE IF NOT EXISTS ` + votes + ` (
				gid        TEXT PRIMARY KEY,
				run_id     TEXT NOT NULL,
				step       TEXT NOT NULL,
				generation BIGINT NOT NULL,
				token      BIGINT NOT NULL,
				state      TEXT NOT NULL,
				result     BYTEA,
				created_at BIGINT NOT NULL,
				not_after  BIGINT NOT NULL
			)`,
			`CREATE INDEX IF NOT EXISTS "` + bare + `_votes_created" ON ` + votes + ` (created_at, gid)`,
		},
		row:  `SELECT EXISTS (SELECT 1 FROM ` + rows + ` WHERE gid = $1)`,
		vote: `SELECT generation, token, state, result FROM ` + votes + ` WHERE gid = $1`,
		note: durable + `INSERT INTO ` + votes + ` AS v (gid, run_id, step, generation, token, state, result, created_at, not_after)
			SELECT $1::text, $2::text, $3::text, $4::bigint, $5::bigint, $6::text, $7::bytea, $8::bigint, $9::bigint FROM durable
			ON CONFLICT (gid) DO UPDATE SET state = excluded.state, result = excluded.result, token = excluded.token,
				generation = excluded.generation, not_after = greatest(v.not_after, excluded.not_after)`,
		prove: `INSERT INTO ` + rows + ` (gid, run_id, step, created_at) VALUES ($1, $2, $3, $4)`,
		// PREPARE TRANSACTION tells by a warning only of a transaction that had
		// ended before.
		settle: durable + `UPDATE ` + votes + ` SET state = '` + voted + `', result = $1::bytea FROM durable
			WHERE gid = $2::text AND token = $3::bigint AND state = '` + noted + `'
				AND EXISTS (SELECT 1 FROM pg_prepared_xacts x WHERE x.gid = $2::text)`,
		close: `UPDATE ` + votes + ` SET state = '` + committed + `' WHERE gid = $1 AND state IN ('` + voted + `', '` + lost + `')`,
		lose:  `UPDATE ` + votes + ` SET state = '` + lost + `' WHERE gid = $1 AND state = '` + voted + `'`,
		votes: `SELECT gid, run_id, step, state, created_at FROM ` + votes + ` WHERE gid IN (?)`,
		aged: `SELECT gid, run_id, created_at FROM ` + votes + `
			WHERE created_at < $1 AND not_after < $2 AND state <> '` + lost + `' AND (created_at, gid) > ($3, $4)
			ORDER BY created_at, gid LIMIT $5`,
		dropRow:  `DELETE FROM ` + rows + ` WHERE gid = $1`,
		dropVote: `DELETE FROM ` + votes + ` WHERE gid = $1`,
	}
}

// key is the number under which the session's lock of a branch is held.
func (postgres) key(gid string) int64 {
	sum := sha256.Sum256([]byte(gid))
	return int64(binary.BigEndian.Uint64(sum[:]))
}

func (d postgres) lock(ctx context.Context, conn *sqlx.Conn, gid string, wait time.Duration) (int64, error) {
	_, err := conn.ExecContext(ctx, `SELECT set_config('lock_timeout', $1, true), pg_advisory_lock($2)`, millis(wait), d.key(gid))
	if d.timedOut(err) {
		err = fmt.Errorf("%w: %w", errBusy, err)
	}
	return 0, err
}

func (d postgres) unlock(ctx context.Context, conn *sqlx.Conn, gid string) error {
	var held bool
	if err := conn.GetContext(ctx, &held, `SELECT pg_advisory_unlock($1)`, d.key(gid)); err != nil || held {
		return err
	}
	return errors.New("the lock was not held")
}

func (postgres) begin(ctx context.Context, conn *sqlx.Conn, gid string, t terms) (int64, error) {
	begin := `BEGIN`
	if t.isolation != sql.LevelDefault {
		begin += ` ISOLATION LEVEL ` + strings.ToUpper(t.isolation.String())
	}
	if _, err := conn.ExecContext(ctx, begin); err != nil {
		return 0, err
	}
	_, err := conn.ExecContext(ctx, `SELECT set_config('lock_timeout', $1, true),
		set_config('idle_in_transaction_session_timeout', $2, true), set_config('synchronous_commit',
		CASE WHEN current_setting('synchronous_commit') = 'off' THEN 'local' ELSE current_setting('synchronous_commit') END, true),
		set_config('ringmaster.branch', $3, true)`, millis(t.lockTimeout), millis(t.idle), gid)
	return 0, err
}

// written finds out a handler that has ended the transaction by the
// transaction's settings, which have gone with it.
func (postgres) written(ctx context.Context, conn *sqlx.Conn, gid string, _ int64) (bool, error) {
	var now struct{ Same, Written bool }
	err := conn.GetContext(ctx, &now, `SELECT COALESCE(current_setting('ringmaster.branch', true), '') = $1 AS same,
		txid_current_if_assigned() IS NOT NULL AS written`, gid)
	if err == nil && !now.Same {
		err = errLost
	}
	return now.Written, err
}

func (postgres) prepare(ctx context.Context, conn *sqlx.Conn, gid string) error {
	_, err := conn.ExecContext(ctx, `PREPARE TRANSACTION '`+gid+`'`)
	return err
}

func (postgres) commit(ctx context.Context, conn *sqlx.Conn, _ string) error {
	_, err := conn.ExecContext(ctx, `COMMIT`)
	return err
}

func (postgres) rollback(ctx context.Context, conn *sqlx.Conn, _ string) error {
	_, err := conn.ExecContext(ctx, `ROLLBACK`)
	return err
}

func (postgres) prepared(ctx context.Context, q sqlx.QueryerContext, gid string) (is bool, err error) {
	err = sqlx.GetContext(ctx, q, &is,
		`SELECT EXISTS (SELECT 1 FROM pg_prepared_xacts WHERE gid = $1 AND database = current_database())`, gid)
	return is, err
}

func (postgres) list(ctx context.Context, q sqlx.QueryerContext, prefix string) (all []listed, err error) {
	err = sqlx.SelectContext(ctx, q, &all, `SELECT gid, prepared FROM pg_prepared_xacts
		WHERE database = current_database() AND left(gid, length($1)) = $1 ORDER BY prepared, gid`, prefix)
	return all, err
}

func (postgres) finish(ctx context.Context, e executor, gid string, commit bool, _ int64, _ time.Duration) error {
	command := `ROLLBACK PREPARED`
	if commit {
		command = `COMMIT PREPARED`
	}
	_, err := e.ExecContext(ctx, command+` '`+gid+`'`)
	switch sqlState(err) {
	case "42704": // no prepared transaction of that name
		return errGone
	case "55000": // it is being ended by another session
		return fmt.Errorf("%w: %w", errBusy, err)
	}
	return err
}

func (postgres) refused(err error) bool  { return sqlState(err) != "" }
func (postgres) timedOut(err error) bool { return sqlState(err) == "55P03" }

func (postgres) raced(err error) bool {
	switch sqlState(err) {
	case "23505", "42P07", "42710":
		return true
	}
	return false
}

// sqlState is the database's code of an error, or empty if it is not one of the
// database's.
func sqlState(err error) string {
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		return state.SQLState()
	}
	return ""
}
