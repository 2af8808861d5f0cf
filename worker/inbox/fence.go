package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// CodeStaleToken is the code of a task that bears a lower fencing token than the
// highest that was seen of its name: its worker was thought to be gone, and
// whoever has the lock now has been here.
const CodeStaleToken = "stale_token"

// inOrder are a task's tokens in the order of their names, in which all tasks
// take them.
func inOrder(tokens []protocol.Token) []protocol.Token {
	return slices.SortedFunc(slices.Values(tokens), func(a, b protocol.Token) int { return strings.Compare(a.Name, b.Name) })
}

// fence refuses a task with a token that is too low, and keeps those that are
// not. Until the transaction ends, no task with a higher one gets past it: so a
// worker that stands still in the middle has its effect before that one, or not
// at all.
func (a *attempt) fence(ctx context.Context) error {
	for _, t := range inOrder(a.info.Tokens) {
		highest, err := a.raise(ctx, t)
		if err != nil {
			return failure("comparing token "+t.Name, err)
		}
		if highest > t.Token {
			return staleToken(t, highest)
		}
	}
	return nil
}

// staleToken refuses a task. A run has the tokens of its named locks for good, so
// that it is no use to try again; the turn at a serial key is a task's own, and
// its next attempt waits for another.
func staleToken(t protocol.Token, highest uint64) error {
	err := fmt.Errorf("token %d of %s is below %d, which has been here: another has taken its place", t.Token, t.Name, highest)
	if strings.HasPrefix(t.Name, definitions.SerialPrefix) {
		return worker.NoEffect(worker.Retryable(CodeStaleToken, err))
	}
	return worker.NoEffect(worker.Final(CodeStaleToken, err))
}

// raise has the row of a token hold at least this one, and returns what it
// holds. Tasks with the same token do not wait for one another, as far as the
// database lets rows be shared.
func (a *attempt) raise(ctx context.Context, t protocol.Token) (highest uint64, err error) {
	switch a.dialect { // on SQLite the transaction is alone anyway
	case Postgres:
		// Two tasks that had a share of the row would not both get all of it.
		if highest, err = a.highest(ctx, a.sql.token, t.Name); err == nil && highest >= t.Token {
			return a.highest(ctx, a.sql.tokenShared, t.Name)
		}
	case MySQL:
		if highest, err = a.highest(ctx, a.sql.tokenShared, t.Name); err == nil && highest >= t.Token {
			return highest, nil
		}
	}
	if err != nil {
		return 0, err
	}
	if _, err := a.tx.ExecContext(ctx, a.sql.raiseToken, t.Name, int64(t.Token), time.Now().UnixMilli()); err != nil {
		return 0, err
	}
	return a.highest(ctx, a.sql.token, t.Name)
}

func (a *attempt) highest(ctx context.Context, query, name string) (uint64, error) {
	var n int64
	err := a.tx.GetContext(ctx, &n, query, name)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return uint64(n), err
}

// tokenStatements are the SQL of fencing, for a table beside the inbox's.
func (d Dialect) tokenStatements(s *statements, inbox string) {
	table := inbox + "_tokens"
	t := d.quote(table)
	integer, name := "BIGINT", "TEXT"
	if d == MySQL {
		name = "VARBINARY(512)"
	}
	create := `CREATE TABLE IF NOT EXISTS ` + t + ` (
			name    ` + name + ` PRIMARY KEY,
			token   ` + integer + ` NOT NULL,
			seen_at ` + integer + ` NOT NULL
		)`
	s.token = d.rebind(`SELECT token FROM ` + t + ` WHERE name = ?`)
	s.raiseToken = d.rebind(`INSERT INTO ` + t + ` (name, token, seen_at) VALUES (?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET token = excluded.token, seen_at = excluded.seen_at
		WHERE ` + d.quote(bare(table)) + `.token < excluded.token`)
	s.tokenShared = s.token
	switch d {
	case Postgres:
		s.tokenShared += ` FOR SHARE`
	case MySQL:
		create += ` ENGINE=InnoDB`
		s.tokenShared += ` LOCK IN SHARE MODE`
		s.token = s.tokenShared // a plain read would see what was there when the transaction began
		s.raiseToken = `INSERT INTO ` + t + ` (name, token, seen_at) VALUES (?, ?, ?)
			ON DUPLICATE KEY UPDATE seen_at = IF(token < VALUES(token), VALUES(seen_at), seen_at), token = GREATEST(token, VALUES(token))`
	}
	s.create = append(s.create, create)
	s.oldTokens = d.rebind(`SELECT name FROM ` + t + ` WHERE seen_at < ? ORDER BY name LIMIT ?`)
	s.removeTokens = `DELETE FROM ` + t + ` WHERE seen_at < ? AND name IN (?)`
}

// bare is a table's name without its schema.
func bare(table string) string {
	if _, name, found := strings.Cut(table, "."); found {
		return name
	}
	return table
}
