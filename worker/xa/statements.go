package xa

import (
	"context"
	"errors"
	"strings"
	"time"
)

// statements are the SQL of one pair of tables.
type statements struct {
	create                  []string
	row, vote, note, prove  string
	settle, close, inDoubt  string
	aged, dropRow, dropVote string
}

// durable makes the commit of the statement's own transaction wait for the disk
// where the database does not by default: a vote is a promise.
const durable = `WITH durable AS (SELECT set_config('synchronous_commit',
	CASE WHEN current_setting('synchronous_commit') = 'off' THEN 'local' ELSE current_setting('synchronous_commit') END, true)) `

func statementsOf(table string) statements {
	quote := func(name string) string { return `"` + strings.ReplaceAll(name, ".", `"."`) + `"` }
	rows, votes := quote(table), quote(table+"_votes")
	_, bare, found := strings.Cut(table, ".")
	if !found {
		bare = table
	}
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
				state      TEXT NOT NULL,
				result     BYTEA,
				created_at BIGINT NOT NULL,
				not_after  BIGINT NOT NULL
			)`,
			`CREATE INDEX IF NOT EXISTS ` + quote(bare+"_votes_created") + ` ON ` + votes + ` (created_at, gid)`,
		},
		row:  `SELECT EXISTS (SELECT 1 FROM ` + rows + ` WHERE gid = $1)`,
		vote: `SELECT generation, state, result FROM ` + votes + ` WHERE gid = $1`,
		note: durable + `INSERT INTO ` + votes + ` AS v (gid, run_id, step, generation, state, result, created_at, not_after)
			SELECT $1::text, $2::text, $3::text, $4::bigint, $5::text, $6::bytea, $7::bigint, $8::bigint FROM durable
			ON CONFLICT (gid) DO UPDATE SET state = excluded.state, result = excluded.result,
				generation = excluded.generation, not_after = greatest(v.not_after, excluded.not_after)`,
		prove: `INSERT INTO ` + rows + ` (gid, run_id, step, created_at) VALUES ($1, $2, $3, $4)`,
		// PREPARE TRANSACTION tells by a warning only of a transaction that had
		// ended before.
		settle: durable + `UPDATE ` + votes + ` SET state = $2::text, result = $3::bytea FROM durable
			WHERE gid = $1::text AND EXISTS (SELECT 1 FROM pg_prepared_xacts x WHERE x.gid = $1::text)`,
		close: `UPDATE ` + votes + ` SET state = '` + committed + `' WHERE gid = $1 AND state = '` + voted + `'`,
		inDoubt: `SELECT x.gid, x.prepared, COALESCE(v.run_id, '') AS run, COALESCE(v.step, '') AS step,
				COALESCE(v.state, '') = '` + voted + `' AS voted
			FROM pg_prepared_xacts x LEFT JOIN ` + votes + ` v ON v.gid = x.gid
			WHERE x.database = current_database() AND left(x.gid, length($1)) = $1 ORDER BY x.prepared, x.gid`,
		aged: `SELECT gid, run_id, created_at FROM ` + votes + `
			WHERE created_at < $1 AND not_after < $2 AND (created_at, gid) > ($3, $4)
				AND gid NOT IN (SELECT gid FROM pg_prepared_xacts)
			ORDER BY created_at, gid LIMIT $5`,
		dropRow:  `DELETE FROM ` + rows + ` WHERE gid = $1`,
		dropVote: `DELETE FROM ` + votes + ` WHERE gid = $1`,
	}
}

// createTables makes the tables; other workers may be at it too.
func (p *Participant) createTables(ctx context.Context) error {
	for _, stmt := range p.sql.create {
		for try := 0; ; try++ {
			_, err := p.db.ExecContext(ctx, stmt)
			if err == nil {
				break
			}
			switch sqlState(err) {
			case "23505", "42P07", "42710": // another made it in the meantime
			default:
				return err
			}
			if try == 20 || ctx.Err() != nil {
				return err
			}
			time.Sleep(time.Millisecond << min(try, 5))
		}
	}
	return nil
}

// The SQL states that mean something here.
const (
	stateNoSuchObject = "42704" // no prepared transaction of that name
	stateBusy         = "55000" // it is being ended by another session
	stateLockTimeout  = "55P03"
)

// sqlState is the database's code of an error, or empty if it is not one of the
// database's.
func sqlState(err error) string {
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		return state.SQLState()
	}
	return ""
}
