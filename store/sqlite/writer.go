package sqlite

import (
	"database/sql/driver"
	"fmt"
)

// writer is the one connection that writes, with its prepared statements.
type writer struct {
	conn  *conn
	names *names

	begin, end, epoch                *stmt
	hasRun, hasRecord                *stmt
	updateRun, runStatus, dropRecord *stmt
	runs, tags, records, counts      *inserter

	deltas map[countKey]int64 // of this transaction
	args   args               // scratch
}

// countKey is a row of counts.
type countKey struct{ workflow, status int64 }

func newWriter(path string) (*writer, error) {
	c, err := openConn(dsn(path, "rw", "&_mutex=no"),
		"busy_timeout = "+busyTimeout,
		"synchronous = FULL",
		"fullfsync = ON", // on macOS fsync alone does not reach the disk
		"wal_autocheckpoint = 0",
		"temp_store = MEMORY",
		"cache_size = -32768",
		"journal_size_limit = 67108864",
	)
	if err != nil {
		return nil, fmt.Errorf("opening for writing: %w", err)
	}
	w := &writer{conn: c, deltas: map[countKey]int64{}}
	if err := w.assertDurable(); err == nil {
		err = w.prepare()
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return w, nil
}

// assertDurable turns the write-ahead log on and reads back the settings that
// make a commit durable, since a setting that does not hold is no error to
// SQLite.
func (w *writer) assertDurable() error {
	mode, err := value[string](w.conn, "PRAGMA journal_mode = WAL")
	if err != nil {
		return fmt.Errorf("turning the write-ahead log on: %w", err)
	}
	if mode != "wal" {
		return fmt.Errorf("the journal mode is %q instead of wal: does the file system lack shared memory (as network file systems do)?", mode)
	}
	sync, err := value[int64](w.conn, "PRAGMA synchronous")
	if err != nil {
		return fmt.Errorf("reading back synchronous: %w", err)
	}
	if sync != 2 {
		return fmt.Errorf("synchronous is %d instead of 2 (FULL): commits would not survive a power cut", sync)
	}
	return nil
}

func (w *writer) prepare() error {
	for _, p := range []struct {
		to  **stmt
		sql string
	}{
		{&w.begin, "BEGIN IMMEDIATE"},
		{&w.end, "COMMIT"},
		{&w.epoch, "SELECT epoch FROM shards WHERE shard = ?"},
		{&w.hasRun, "SELECT 1 FROM runs WHERE id = ?1 UNION ALL SELECT 1 FROM runs WHERE ref = ?2 LIMIT 1"},
		{&w.hasRecord, "SELECT 1 FROM history WHERE ref = ? AND seq = ?"},
		{&w.runStatus, "SELECT workflow, status FROM runs WHERE ref = ?"},
		{&w.updateRun, `UPDATE runs SET status = ?, waived = ?, updated = ?, ended = ?, wake = ?,
			failed_step = ?, error = ? WHERE ref = ?`},
		{&w.dropRecord, "DELETE FROM history WHERE ref = ? AND seq >= ? AND seq < ?"},
	} {
		var err error
		if *p.to, err = w.conn.prepare(p.sql); err != nil {
			return err
		}
	}
	// OR ROLLBACK: a conflict ends the transaction (see writer.commit), and
	// SQLite need not be able to undo a single statement.
	for _, p := range []struct {
		to      **inserter
		head    string
		columns int
		tail    string
	}{
		{&w.runs, `INSERT OR ROLLBACK INTO runs (ref, id, workflow, status, waived, key, input_hash, tags, retry_of,
			created, updated, ended, wake, failed_step, error)`, 15, ""},
		{&w.tags, "INSERT OR ROLLBACK INTO tags (name, value, created, ref)", 4, ""},
		{&w.records, "INSERT OR ROLLBACK INTO history (ref, seq, data)", 3, ""},
		{&w.counts, "INSERT INTO counts (workflow, status, n)", 3,
			" ON CONFLICT (workflow, status) DO UPDATE SET n = n + excluded.n"},
	} {
		var err error
		if *p.to, err = newInserter(w.conn, p.head, p.columns, p.tail); err != nil {
			return err
		}
	}
	return nil
}

// abandon undoes the transaction in progress, if there is one, and what has
// gathered for it.
func (w *writer) abandon() error {
	for _, in := range []*inserter{w.runs, w.tags, w.records, w.counts} {
		in.reset()
	}
	clear(w.deltas)
	if w.conn.raw.AutoCommit() {
		return nil // a conflict or a failure has undone it already
	}
	if err := w.conn.exec("ROLLBACK"); err != nil {
		return fmt.Errorf("rolling back: %w", err)
	}
	return nil
}

// exists tells whether a query with these arguments has a row.
func (w *writer) exists(s *stmt, values ...driver.Value) (bool, error) {
	w.args = w.args[:0]
	w.args.add(values...)
	var one [1]driver.Value
	return s.row(w.args, one[:])
}
