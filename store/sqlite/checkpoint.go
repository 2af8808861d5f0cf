package sqlite

import (
	"errors"
	"fmt"
	"time"

	"github.com/ringmaster-dev/ringmaster/store"
)

// longLog is the length of the log, in checkpoints, that is worth a warning.
const longLog = 8

// checkpointer copies the write-ahead log into the database beside commits.
type checkpointer struct {
	s    *Store
	conn *conn // for the bulk, used by run only
	tune tuning
	wake chan struct{}
	quit chan struct{}
	done chan struct{}

	rows int // since the last look; guarded by Store.mu
}

func startCheckpointer(s *Store, tune tuning) (*checkpointer, error) {
	c, err := openConn(dsn(s.path, "rw"), "busy_timeout = "+busyTimeout, "synchronous = FULL", "fullfsync = ON",
		"wal_autocheckpoint = 0")
	if err != nil {
		return nil, fmt.Errorf("opening for checkpoints: %w", err)
	}
	k := &checkpointer{s: s, conn: c, tune: tune, wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	go k.run()
	return k, nil
}

// committed looks at the log once in a while and calls for a checkpoint when
// it is long. The caller holds Store.mu.
func (k *checkpointer) committed(parts []store.Part) {
	for i := range parts {
		k.rows += parts[i].Rows()
	}
	if k.rows < k.tune.lookEvery {
		return
	}
	k.rows = 0
	pages, _, err := logState(k.s.w.conn, "NOOP")
	if err != nil {
		k.s.log.Warn("looking at the write-ahead log failed", "error", err)
		return
	}
	k.s.metrics.logPages.Set(float64(pages))
	if pages < k.tune.checkpointPages {
		return
	}
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *checkpointer) run() {
	defer close(k.done)
	for {
		select {
		case <-k.quit:
			return
		case <-k.wake:
		}
		if err := k.checkpoint(); err != nil {
			// Nothing is lost: the log keeps everything and goes on growing.
			k.s.log.Error("checkpoint failed; the write-ahead log grows until one succeeds", "error", err)
		}
	}
}

// checkpoint copies what the log holds while commits go on, and then the rest
// between two commits: only a log that is copied to its end starts again.
func (k *checkpointer) checkpoint() error {
	if _, _, err := logState(k.conn, "PASSIVE"); err != nil {
		return fmt.Errorf("copying the bulk: %w", err)
	}
	s := k.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.failed != nil {
		return nil
	}
	start := time.Now()
	pages, copied, err := logState(s.w.conn, "PASSIVE")
	if err != nil {
		return fmt.Errorf("copying the rest: %w", err)
	}
	s.metrics.checkpoints.Observe(time.Since(start).Seconds())
	s.metrics.logPages.Set(float64(pages - copied))
	if pages-copied > longLog*k.tune.checkpointPages {
		s.log.Warn("a long read keeps the write-ahead log from starting again", "pages", pages, "copied", copied)
	}
	return nil
}

// logState makes a checkpoint in the given mode and returns the pages in the
// log and how many of them are in the database as well.
func logState(c *conn, mode string) (pages, copied int64, err error) {
	row, err := c.row("PRAGMA wal_checkpoint(" + mode + ")")
	if err != nil {
		return 0, 0, err
	}
	if len(row) != 3 {
		return 0, 0, fmt.Errorf("wal_checkpoint answered %v", row)
	}
	pages, ok := row[1].(int64)
	copied, ok2 := row[2].(int64)
	if !ok || !ok2 {
		return 0, 0, fmt.Errorf("wal_checkpoint answered %v", row)
	}
	return pages, copied, nil
}

// stop waits for a checkpoint in progress.
func (k *checkpointer) stop() error {
	close(k.quit)
	<-k.done
	if err := k.conn.close(); err != nil {
		return errors.Join(errors.New("closing the checkpoint connection"), err)
	}
	return nil
}
