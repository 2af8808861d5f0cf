package sqlite

import (
	"database/sql/driver"
	"fmt"
	"maps"
	"sync/atomic"
)

// writer is the one connection that writes, with its prepared statements.
type writer struct {
	conn  *conn
	names *names

	begin, end, epoch                *stmt
	hasRun, hasRecord, number        *stmt
	updateRun, runStatus, dropRecord *stmt
	putLock, dropLock                *stmt
	hasTombstone, refOf, bury        *stmt
	removal, dropHistory, dropTag    *stmt
	dropRun, removed, forget         *stmt
	runs, tags, records, counts      *inserter

	// buried is false as long as there has never been a tombstone. It is also
	// read beside the writer.
	buried atomic.Bool

	// numbers are those (in the column run) of runs by ref: of runs that have
	// been written and not ended, as far as they are remembered.
	numbers map[int64]int64
	next    int64 // number of the next run

	// Of the transaction in progress:
	fresh  map[int64]int64 // numbers of new runs
	ended  []int64         // refs of runs that end with it
	deltas map[countKey]int64

	args args // scratch
}

// maxNumbers bounds writer.numbers, to about 5 MB. Numbers that are not
// remembered are looked up.
const maxNumbers = 1 << 17

// countKey is a row of counts.
type countKey struct{ workflow, status int64 }

func newWriter(path string, more []string) (*writer, error) {
	pragmas := append([]string{
		"busy_timeout = " + busyTimeout,
		"synchronous = FULL",
		"fullfsync = ON", // on macOS fsync alone does not reach the disk
		"wal_autocheckpoint = 0",
		"temp_store = MEMORY",
		// 16 MB. At each commit SQLite walks its cache's hash table, whose size
		// is the power of two above this number of pages.
		"cache_size = 4000",
		"journal_size_limit = 67108864",
	}, more...)
	c, err := openConn(dsn(path, "rw", "&_mutex=no"), pragmas...)
	if err != nil {
		return nil, fmt.Errorf("opening for writing: %w", err)
	}
	w := &writer{conn: c, numbers: map[int64]int64{}, fresh: map[int64]int64{},
		deltas: map[countKey]int64{}}
	if err = w.assertDurable(); err == nil {
		err = w.prepare()
	}
	if err == nil {
		w.next, err = value[int64](c, "SELECT coalesce(max(run), 0) + 1 FROM runs")
	}
	if err == nil {
		var some int64
		some, err = value[int64](c, "SELECT EXISTS (SELECT 1 FROM tombstones)")
		w.buried.Store(some != 0)
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
		{&w.hasRecord, "SELECT 1 FROM history WHERE run = ? AND seq = ?"},
		{&w.number, "SELECT run FROM runs WHERE ref = ?"},
		{&w.runStatus, "SELECT workflow, status FROM runs WHERE run = ?"},
		{&w.updateRun, `UPDATE runs SET status = ?, waived = ?, updated = ?, ended = ?, wake = ?,
			failed_step = ?, error = ? WHERE run = ?`},
		{&w.hasTombstone, "SELECT 1 FROM tombstones WHERE id = ?"},
		{&w.refOf, "SELECT ref FROM runs WHERE id = ?"},
		{&w.bury, `INSERT OR ROLLBACK INTO tombstones (id, shard, status, buried, until, workflow, input_hash, waived, created, ended)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`},
		{&w.removal, "SELECT run, workflow, status, created, tags FROM runs WHERE ref = ?"},
		{&w.dropHistory, "DELETE FROM history WHERE run = ?"},
		{&w.dropTag, "DELETE FROM tags WHERE name = ? AND value = ? AND created = ? AND ref = ?"},
		{&w.dropRun, "DELETE FROM runs WHERE run = ?"},
		{&w.removed, "UPDATE shards SET removed = max(removed, ?2) WHERE shard = ?1"},
		{&w.forget, "DELETE FROM tombstones WHERE id = ? AND shard = ?"},
		{&w.dropRecord, "DELETE FROM history WHERE run = ? AND seq >= ? AND seq < ?"},
		{&w.putLock, "INSERT INTO locks (shard, name, data) VALUES (?, ?, ?) ON CONFLICT (shard, name) DO UPDATE SET data = excluded.data"},
		{&w.dropLock, "DELETE FROM locks WHERE shard = ? AND name = ?"},
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
		{&w.runs, `INSERT OR ROLLBACK INTO runs (run, ref, id, workflow, status, waived, key, input_hash, tags, retry_of,
			created, updated, ended, wake, failed_step, error, parent, parent_step)`, 18, ""},
		{&w.tags, "INSERT OR ROLLBACK INTO tags (name, value, created, ref)", 4, ""},
		{&w.records, "INSERT OR ROLLBACK INTO history (run, seq, data)", 3, ""},
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

// abandon undoes the transaction in progress, if there is one, and forgets
// what has gathered for it.
func (w *writer) abandon() error {
	for _, in := range []*inserter{w.runs, w.tags, w.records, w.counts} {
		in.reset()
	}
	clear(w.deltas)
	clear(w.fresh)
	w.ended = w.ended[:0]
	if w.conn.raw.AutoCommit() {
		return nil // a conflict or a failure has undone it already
	}
	if err := w.conn.exec("ROLLBACK"); err != nil {
		return fmt.Errorf("rolling back: %w", err)
	}
	return nil
}

// remember keeps the numbers of a transaction's new runs once it is durable,
// and forgets those of runs that have ended.
func (w *writer) remember() {
	if len(w.numbers)+len(w.fresh) > maxNumbers {
		clear(w.numbers)
	}
	maps.Copy(w.numbers, w.fresh)
	for _, ref := range w.ended {
		delete(w.numbers, ref)
	}
	clear(w.fresh)
	w.ended = w.ended[:0]
}

// numberOf returns a run's number, if there is such a run.
func (w *writer) numberOf(ref int64) (int64, bool, error) {
	if n, ok := w.fresh[ref]; ok {
		return n, true, nil
	}
	if n, ok := w.numbers[ref]; ok {
		return n, true, nil
	}
	w.args = w.args[:0]
	w.args.add(ref)
	var n [1]driver.Value
	found, err := w.number.row(w.args, n[:])
	if err != nil {
		return 0, false, fmt.Errorf("looking for the number of a run: %w", err)
	}
	if !found {
		return 0, false, nil
	}
	if len(w.numbers) < maxNumbers {
		w.numbers[ref] = n[0].(int64)
	}
	return n[0].(int64), true, nil
}

// exists tells whether a query with these arguments has a row.
func (w *writer) exists(s *stmt, values ...driver.Value) (bool, error) {
	w.args = w.args[:0]
	w.args.add(values...)
	var one [1]driver.Value
	return s.row(w.args, one[:])
}
