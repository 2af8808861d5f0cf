package inbox

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/jmoiron/sqlx"
)

// Dialect is the SQL that a database speaks. The zero value is not one.
type Dialect int

// The dialects. No driver is imported here; any driver of the database works.
const (
	// SQLite needs a busy timeout (go-sqlite3 has one of 5 s by default), or
	// concurrent handlers spend their time on retries.
	SQLite Dialect = iota + 1
	// Postgres is PostgreSQL 10 or later.
	Postgres
)

func (d Dialect) String() string {
	switch d {
	case SQLite:
		return "SQLite"
	case Postgres:
		return "PostgreSQL"
	}
	return fmt.Sprintf("dialect(%d)", int(d))
}

// rebind turns question marks into the dialect's placeholders.
func (d Dialect) rebind(query string) string {
	if d == Postgres {
		return sqlx.Rebind(sqlx.DOLLAR, query)
	}
	return query
}

// transient tells whether the database refused only because of what others do
// at the same time; then the same transaction, from its start, may pass.
func (d Dialect) transient(err error) bool {
	if err == nil {
		return false
	}
	if d == Postgres {
		var state interface{ SQLState() string }
		if !errors.As(err, &state) {
			return false
		}
		switch state.SQLState() {
		case "40001", "40P01", "55P03": // serialization failure, deadlock, lock not available
			return true
		}
		return false
	}
	text := err.Error()
	return strings.Contains(text, "database is locked") || strings.Contains(text, "database table is locked") ||
		strings.Contains(text, "database schema is locked")
}

// raced tells whether creating a table failed because another did it meanwhile.
func (d Dialect) raced(err error) bool {
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		switch state.SQLState() {
		case "23505", "42P07", "42710":
			return true
		}
	}
	return d.transient(err)
}

var tableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,47}(\.[A-Za-z_][A-Za-z0-9_]{0,47})?$`)

// statements are the inbox's SQL for one table.
type statements struct {
	create                []string
	claim, read, complete string
	aged, remove          string
}

func (d Dialect) statements(table string) statements {
	blob, integer := "BLOB", "INTEGER"
	if d == Postgres {
		blob, integer = "BYTEA", "BIGINT"
	}
	quoted := `"` + strings.ReplaceAll(table, ".", `"."`) + `"`
	schema, bare, found := strings.Cut(table, ".")
	if !found {
		schema, bare = "", table
	}
	// An index lives in its table's schema; SQLite wants that said of the
	// index, PostgreSQL of the table.
	index, on := `"`+bare+`_created"`, quoted
	if d == SQLite && schema != "" {
		index, on = `"`+schema+`".`+index, `"`+bare+`"`
	}
	return statements{
		create: []string{
			`CREATE TABLE IF NOT EXISTS ` + quoted + ` (
				key        TEXT PRIMARY KEY,
				run_id     TEXT NOT NULL,
				step       TEXT NOT NULL,
				phase      TEXT NOT NULL,
				generation ` + integer + ` NOT NULL,
				state      TEXT NOT NULL,
				result     ` + blob + `,
				created_at ` + integer + ` NOT NULL,
				not_after  ` + integer + ` NOT NULL
			)`,
			`CREATE INDEX IF NOT EXISTS ` + index + ` ON ` + on + ` (created_at, key)`,
		},
		claim: d.rebind(`INSERT INTO ` + quoted + ` (key, run_id, step, phase, generation, state, created_at, not_after)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING`),
		read:     d.rebind(`SELECT generation, state, result FROM ` + quoted + ` WHERE key = ?`),
		complete: d.rebind(`UPDATE ` + quoted + ` SET state = ?, result = ? WHERE key = ?`),
		aged: d.rebind(`SELECT key, run_id, created_at FROM ` + quoted + `
			WHERE created_at < ? AND not_after < ? AND (created_at, key) > (?, ?)
			ORDER BY created_at, key LIMIT ?`),
		remove: `DELETE FROM ` + quoted + ` WHERE key IN (?)`,
	}
}
