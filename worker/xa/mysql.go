package xa

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
)

// mysql is MariaDB, and MySQL. A branch is its session's own until the session
// ends; that of a crashed server is nobody's.
type mysql struct{}

func (mysql) bound() bool { return true }

// The numbers of the errors that mean something here.
const (
	myLockTimeout  = 1205
	myDeadlock     = 1213
	myShutdown     = 1053
	myInterrupted  = 1317
	myKilled       = 1927
	myUnknownXID   = 1397 // XAER_NOTA: also of a branch that belongs to another session
	myWrongState   = 1399 // XAER_RMFAIL
	myDuplicateXID = 1440 // XAER_DUPID
)

var versionRule = regexp.MustCompile(`^(\d+)\.(\d+)`)

func (d mysql) check(ctx context.Context, db *sqlx.DB) (string, error) {
	var s struct {
		Version    string
		Database   sql.NullString `db:"db"`
		Autocommit bool
		Flush      int
	}
	if err := db.GetContext(ctx, &s, "SELECT VERSION() AS version, DATABASE() AS db, @@autocommit AS autocommit, @@GLOBAL.innodb_flush_log_at_trx_commit AS flush"); err != nil {
		return "", fmt.Errorf("reading the server's settings: %w", err)
	}
	major, minor := 0, 0
	if m := versionRule.FindStringSubmatch(s.Version); m != nil {
		major, _ = strconv.Atoi(m[1])
		minor, _ = strconv.Atoi(m[2])
	}
	maria := strings.Contains(s.Version, "MariaDB")
	switch {
	case maria && (major < 10 || major == 10 && minor < 5):
		return "", fmt.Errorf("the server is %s; before 10.5 MariaDB rolls a prepared branch back when its connection ends: use 10.5 or later", s.Version)
	case !maria && major < 8:
		return "", fmt.Errorf("the server is %s: use MySQL 8.0 or later, or MariaDB 10.5 or later", s.Version)
	case s.Database.String == "":
		return "", errors.New("the connection has no database: name one in its address")
	case !s.Autocommit:
		return "", errors.New("autocommit is 0, so that what is noted of a branch would not be committed: take autocommit=0 out of the connection's address or the server's settings")
	case s.Flush != 1:
		return "", fmt.Errorf("innodb_flush_log_at_trx_commit is %d, so that a prepared branch may be gone after a crash, though its vote was given: "+
			"set it to 1 (SET GLOBAL innodb_flush_log_at_trx_commit = 1, and in the server's settings)", s.Flush)
	case db.Stats().MaxOpenConnections == 1:
		return "", errors.New("at most one connection may be open, and the vote is written by another than the branch's: set SetMaxOpenConns to at least 2")
	}
	var wsrep []struct {
		Name  string `db:"Variable_name"`
		Value string `db:"Value"`
	}
	if err := db.SelectContext(ctx, &wsrep, `SHOW VARIABLES LIKE 'wsrep_on'`); err != nil {
		return "", fmt.Errorf("reading wsrep_on: %w", err)
	}
	if len(wsrep) == 1 && wsrep[0].Value == "ON" {
		return "", errors.New("wsrep_on is ON, and a Galera cluster does not prepare branches: use a server that is not in a cluster, or a TCC")
	}
	if _, err := d.recover(ctx, db); err != nil {
		return "", fmt.Errorf("XA RECOVER, by which branches in doubt are found: on MySQL it needs GRANT XA_RECOVER_ADMIN ON *.* to the user: %w", err)
	}
	return s.Database.String, nil
}

func (mysql) statements(table string) statements {
	rows, votes := quoted(table, "`")
	return statements{
		// Keys are compared byte by byte, whatever the database's collation.
		create: []string{
			`CREATE TABLE IF NOT EXISTS ` + rows + ` (
				gid        VARBINARY(64) PRIMARY KEY,
				run_id     VARBINARY(255) NOT NULL,
				step       VARBINARY(255) NOT NULL,
				created_at BIGINT NOT NULL
			) ENGINE=InnoDB`,
			`CREATE TABLE IF NOT EXISTS ` + votes + ` (
				gid        VARBINARY(64) PRIMARY KEY,
				run_id     VARBINARY(255) NOT NULL,
				step       VARBINARY(255) NOT NULL,
				generation BIGINT NOT NULL,
				token      BIGINT NOT NULL,
				state      VARBINARY(16) NOT NULL,
				result     LONGBLOB,
				created_at BIGINT NOT NULL,
				not_after  BIGINT NOT NULL,
				INDEX (created_at)
			) ENGINE=InnoDB`,
		},
		row:  `SELECT EXISTS (SELECT 1 FROM ` + rows + ` WHERE gid = ?)`,
		vote: `SELECT generation, token, state, result FROM ` + votes + ` WHERE gid = ?`,
		note: `INSERT INTO ` + votes + ` (gid, run_id, step, generation, token, state, result, created_at, not_after)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
			ON DUPLICATE KEY UPDATE state = VALUES(state), result = VALUES(result), token = VALUES(token),
				generation = VALUES(generation), not_after = GREATEST(not_after, VALUES(not_after))`,
		prove:  `INSERT INTO ` + rows + ` (gid, run_id, step, created_at) VALUES (?, ?, ?, ?)`,
		settle: `UPDATE ` + votes + ` SET state = '` + voted + `', result = ? WHERE gid = ? AND token = ? AND state = '` + noted + `'`,
		close:  `UPDATE ` + votes + ` SET state = '` + committed + `' WHERE gid = ? AND state IN ('` + voted + `', '` + lost + `')`,
		lose:   `UPDATE ` + votes + ` SET state = '` + lost + `' WHERE gid = ? AND state = '` + voted + `'`,
		votes:  `SELECT gid, run_id, step, state, created_at FROM ` + votes + ` WHERE gid IN (?)`,
		aged: `SELECT gid, run_id, created_at FROM ` + votes + `
			WHERE created_at < ? AND not_after < ? AND state <> '` + lost + `' AND (created_at, gid) > (?, ?)
			ORDER BY created_at, gid LIMIT ?`,
		dropRow:  `DELETE FROM ` + rows + ` WHERE gid = ?`,
		dropVote: `DELETE FROM ` + votes + ` WHERE gid = ?`,
	}
}

// The lock is the same session's as the branch: who gets it finds the branch
// ended, prepared or rolled back.
func (mysql) lock(ctx context.Context, conn *sqlx.Conn, gid string, wait time.Duration) (session int64, err error) {
	var got sql.NullBool
	err = conn.QueryRowxContext(ctx, `SELECT GET_LOCK(?, ?), CONNECTION_ID()`, gid, wait.Seconds()).Scan(&got, &session)
	switch {
	case err != nil:
		return 0, err
	case !got.Valid:
		return 0, errors.New("GET_LOCK failed")
	case !got.Bool:
		return 0, errBusy
	}
	return session, nil
}

func (mysql) unlock(ctx context.Context, conn *sqlx.Conn, gid string) error {
	var held sql.NullBool
	if err := conn.GetContext(ctx, &held, `SELECT RELEASE_LOCK(?)`, gid); err != nil || held.Bool {
		return err
	}
	return errors.New("the lock was not held")
}

func (d mysql) begin(ctx context.Context, conn *sqlx.Conn, gid string, t terms) (int64, error) {
	set := fmt.Sprintf(`SET SESSION innodb_lock_wait_timeout = %d, lock_wait_timeout = %[1]d`, seconds(t.lockTimeout))
	if t.idle > 0 {
		set += fmt.Sprintf(`, wait_timeout = %d`, seconds(t.idle))
	}
	todo := []string{set}
	if t.isolation != sql.LevelDefault {
		todo = append(todo, `SET SESSION TRANSACTION ISOLATION LEVEL `+strings.ToUpper(t.isolation.String()))
	}
	for _, stmt := range append(todo, `XA START '`+gid+`'`) {
		if _, err := conn.ExecContext(ctx, stmt); err != nil {
			if number(err) == myDuplicateXID {
				return 0, fmt.Errorf("%w: %w", errBusy, err)
			}
			return 0, err
		}
	}
	return d.changes(ctx, conn)
}

// seconds is the unit of the server's settings, from 1 up to what they take.
func seconds(d time.Duration) int64 {
	return min(max(int64((d+time.Second-1)/time.Second), 1), 1_000_000)
}

// changes counts the rows that the session has written. A row that is locked or
// set to what it was does not count. (MySQL counts this query too, so that it
// always tells of changes; then no branch is taken for read-only.)
func (mysql) changes(ctx context.Context, conn *sqlx.Conn) (n int64, err error) {
	var rows []struct {
		Name  string `db:"Variable_name"`
		Value int64  `db:"Value"`
	}
	err = conn.SelectContext(ctx, &rows,
		`SHOW SESSION STATUS WHERE Variable_name IN ('Handler_write', 'Handler_update', 'Handler_delete')`)
	if err == nil && len(rows) != 3 {
		err = fmt.Errorf("the server counts %d of 3 kinds of changes", len(rows))
	}
	for _, r := range rows {
		n += r.Value
	}
	return n, err
}

// written finds out a handler that has ended the branch by a COMMIT, which the
// server refuses inside of one, as it does whatever implies a COMMIT.
func (d mysql) written(ctx context.Context, conn *sqlx.Conn, _ string, mark int64) (bool, error) {
	n, err := d.changes(ctx, conn)
	if err != nil {
		return false, err
	}
	_, err = conn.ExecContext(ctx, `COMMIT`)
	switch {
	case err == nil, number(err) == myWrongState && !strings.Contains(err.Error(), "ACTIVE"):
		return false, errLost
	case number(err) != myWrongState:
		return false, err
	}
	return n != mark, nil
}

func (d mysql) prepare(ctx context.Context, conn *sqlx.Conn, gid string) error {
	return d.xa(ctx, conn, gid, `XA PREPARE '`+gid+`'`)
}

func (d mysql) commit(ctx context.Context, conn *sqlx.Conn, gid string) error {
	return d.xa(ctx, conn, gid, `XA COMMIT '`+gid+`' ONE PHASE`)
}

func (d mysql) xa(ctx context.Context, conn *sqlx.Conn, gid, stmt string) error {
	_, err := conn.ExecContext(ctx, `XA END '`+gid+`'`)
	switch number(err) {
	case 0:
	case myUnknownXID, myWrongState:
		return fmt.Errorf("%w: %w", errLost, err)
	}
	if err != nil {
		return fmt.Errorf("ending the branch: %w", err)
	}
	_, err = conn.ExecContext(ctx, stmt)
	return err
}

func (d mysql) rollback(ctx context.Context, conn *sqlx.Conn, gid string) error {
	// It may have been ended before, and ending one that a deadlock has doomed
	// is an error.
	_, _ = conn.ExecContext(ctx, `XA END '`+gid+`'`)
	_, err := conn.ExecContext(ctx, `XA ROLLBACK '`+gid+`'`)
	return err
}

func (mysql) recover(ctx context.Context, q sqlx.QueryerContext) (gids []string, err error) {
	var rows []struct {
		FormatID int64  `db:"formatID"`
		Gtrid    int    `db:"gtrid_length"`
		Bqual    int    `db:"bqual_length"`
		Data     string `db:"data"`
	}
	if err := sqlx.SelectContext(ctx, q, &rows, `XA RECOVER`); err != nil {
		return nil, err
	}
	for _, r := range rows {
		if r.FormatID == 1 && r.Bqual == 0 && len(r.Data) == r.Gtrid {
			gids = append(gids, r.Data)
		}
	}
	return gids, nil
}

func (d mysql) prepared(ctx context.Context, q sqlx.QueryerContext, gid string) (bool, error) {
	all, err := d.list(ctx, q, gid)
	return len(all) > 0, err
}

func (d mysql) list(ctx context.Context, q sqlx.QueryerContext, prefix string) (all []listed, err error) {
	gids, err := d.recover(ctx, q)
	for _, gid := range gids {
		if strings.HasPrefix(gid, prefix) {
			all = append(all, listed{GID: gid})
		}
	}
	return all, err
}

// finish ends a branch by its name, once the session that has prepared it is
// over: see keepFor.
func (d mysql) finish(ctx context.Context, e executor, gid string, commit bool, session int64, wait time.Duration) error {
	command := `XA ROLLBACK`
	if commit {
		command = `XA COMMIT`
	}
	if err := d.over(ctx, e, session, wait); err != nil {
		return err
	}
	late := time.Now().Add(wait)
	for try := 0; ; try++ {
		_, err := e.ExecContext(ctx, command+` '`+gid+`'`)
		if n := number(err); n != myUnknownXID && n != myWrongState {
			return err
		}
		is, look := d.prepared(ctx, e, gid)
		if look != nil {
			return look
		}
		if !is {
			return errGone
		}
		if time.Now().After(late) {
			return fmt.Errorf("%w: %w", errBusy, err)
		}
		if err := pause(ctx, time.Millisecond<<min(try, 6)); err != nil {
			return err
		}
	}
}

// overFor is how long a session has to be gone from the list of sessions. The
// storage engine lets go of its branch right after that.
const overFor = 50 * time.Millisecond

// over waits until a session is over. After a restart of the server another one
// may have its number; so where the wait is in vain the branch is tried.
func (mysql) over(ctx context.Context, e executor, session int64, wait time.Duration) error {
	late := time.Now().Add(wait)
	for there := true; there; {
		err := sqlx.GetContext(ctx, e, &there, `SELECT EXISTS (SELECT 1 FROM information_schema.processlist WHERE id = ?)`, session)
		if err != nil {
			return err
		}
		if there = there && time.Now().Before(late); there {
			if err := pause(ctx, 10*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return pause(ctx, overFor)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errBusy, ctx.Err())
	case <-time.After(d):
		return nil
	}
}

func (mysql) refused(err error) bool {
	switch number(err) {
	case 0, myShutdown, myInterrupted, myKilled:
		return false
	}
	return true
}

func (mysql) timedOut(err error) bool { return number(err) == myLockTimeout }
func (mysql) raced(err error) bool {
	n := number(err)
	return n == myDeadlock || n == myLockTimeout
}

var numberRule = regexp.MustCompile(`\bError (\d{4})\b`)

// number is the server's number of an error, or 0 if it is not the server's.
func number(err error) int {
	if err == nil {
		return 0
	}
	m := numberRule.FindStringSubmatch(err.Error())
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1])
	return n
}
