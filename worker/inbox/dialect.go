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
	// MySQL is MariaDB 10.3 or MySQL 8.0, or later; tables are InnoDB's.
	MySQL
)

func (d Dialect) String() string {
	switch d {
	case SQLite:
		return "SQLite"
	case Postgres:
		return "PostgreSQL"
	case MySQL:
		return "MySQL"
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
	if d == MySQL {
		// Deadlock, lock wait timeout, record changed since it was read.
		return strings.Contains(text, "Error 1213") || strings.Contains(text, "Error 1205") || strings.Contains(text, "Error 1020")
	}
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

	token, tokenShared, raiseToken string
	oldTokens, removeTokens        string
}

// quote makes a name of letters, digits and underscores, with a schema or
// without, one that cannot be taken for a word of the language.
func (d Dialect) quote(name string) string {
	mark := `"`
	if d == MySQL {
		mark = "`"
	}
	return mark + strings.ReplaceAll(name, ".", mark+"."+mark) + mark
}

func (d Dialect) statements(table string) statements {
	t, key := d.quote(table), d.quote("key")
	insert, ignore := `INSERT INTO `, ` ON CONFLICT (key) DO NOTHING`
	if d == MySQL {
		// What else IGNORE would pass over cannot happen: the columns are wide
		// enough, and it does not hide deadlocks.
		insert, ignore = `INSERT IGNORE INTO `, ``
	}
	s := statements{
		create: d.create(table),
		claim: d.rebind(insert + t + ` (` + key + `, run_id, step, phase, generation, state, created_at, not_after)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?)` + ignore),
		read:     d.rebind(`SELECT generation, state, result FROM ` + t + ` WHERE ` + key + ` = ?`),
		complete: d.rebind(`UPDATE ` + t + ` SET state = ?, result = ? WHERE ` + key + ` = ?`),
		aged: d.rebind(`SELECT ` + key + `, run_id, created_at FROM ` + t + `
			WHERE created_at < ? AND not_after < ? AND (created_at, ` + key + `) > (?, ?)
			ORDER BY created_at, ` + key + ` LIMIT ?`),
		remove: `DELETE FROM ` + t + ` WHERE ` + key + ` IN (?)`,
	}
	d.tokenStatements(&s, table)
	return s
}

// create are the statements that make the table.
func (d Dialect) create(table string) []string {
	quoted := d.quote(table)
	if d == MySQL {
		// Keys are compared byte by byte, whatever the database's collation.
		return []string{`CREATE TABLE IF NOT EXISTS ` + quoted + " (\n\t\t\t\t`key`" + `      VARBINARY(512) PRIMARY KEY,
				run_id     VARBINARY(255) NOT NULL,
				step       VARBINARY(255) NOT NULL,
				phase      VARBINARY(32) NOT NULL,
				generation BIGINT NOT NULL,
				state      VARBINARY(16) NOT NULL,
				result     LONGBLOB,
				created_at BIGINT NOT NULL,
				not_after  BIGINT NOT NULL,
				INDEX (created_at)
			) ENGINE=InnoDB`}
	}
	blob, integer := "BLOB", "INTEGER"
	if d == Postgres {
		blob, integer = "BYTEA", "BIGINT"
	}
	schema, bare, found := strings.Cut(table, ".")
	if !found {
		schema, bare = "", table
	}
	// An index lives in its table's schema; SQLite wants that said of the
	// index, PostgreSQL of the table.
	index, on := d.quote(bare+"_created"), quoted
	if d == SQLite && schema != "" {
		index, on = d.quote(schema)+`.`+index, d.quote(bare)
	}
	return []string{
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
	}
}
