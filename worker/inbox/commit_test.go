package inbox_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/inbox"
)

// fate is what happens to commits.
type fate int32

const (
	commits    fate = iota
	answerLost      // the database commits; the caller sees an error
	rollsBack       // the database rolls back; the caller sees an error
	cutOff          // as answerLost, and no transaction can begin after it
)

var errCut = errors.New("connection cut")

// faulty is a driver in front of another, with a fate.
type faulty struct {
	driver.Connector
	fate atomic.Int32
	cut  atomic.Bool
}

func (f *faulty) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := f.Connector.Connect(ctx)
	return &faultyConn{c, f}, err
}

type faultyConn struct {
	driver.Conn
	f *faulty
}

func (c *faultyConn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	if c.f.cut.Load() {
		return nil, errCut
	}
	tx, err := c.Conn.(driver.ConnBeginTx).BeginTx(ctx, o)
	return &faultyTx{tx, c.f}, err
}

func (c *faultyConn) ExecContext(ctx context.Context, q string, args []driver.NamedValue) (driver.Result, error) {
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, q, args)
}

func (c *faultyConn) QueryContext(ctx context.Context, q string, args []driver.NamedValue) (driver.Rows, error) {
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, q, args)
}

func (c *faultyConn) CheckNamedValue(v *driver.NamedValue) error {
	if checker, ok := c.Conn.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

type faultyTx struct {
	driver.Tx
	f *faulty
}

func (t *faultyTx) Commit() error {
	switch fate(t.f.fate.Load()) {
	case answerLost, cutOff:
		t.f.cut.Store(fate(t.f.fate.Load()) == cutOff)
		return errors.Join(t.Tx.Commit(), errCut)
	case rollsBack:
		return errors.Join(t.Tx.Rollback(), errCut)
	}
	return t.Tx.Commit()
}

// connector opens a driver's connections by name.
type connector struct {
	driver driver.Driver
	dsn    string
}

func (c connector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }
func (c connector) Driver() driver.Driver                        { return c.driver }

func TestALostCommitIsLookedUpBeforeItIsReported(t *testing.T) {
	cases := []struct {
		name    string
		fate    fate
		outcome protocol.Outcome // 0: succeeded
		effects int
	}{
		{"answer lost", answerLost, 0, 1},
		{"rolled back", rollsBack, protocol.OutcomeFailed, 0},
		{"cut off", cutOff, protocol.OutcomeUnknown, 1},
	}
	onEach(t, inbox.Options{}, func(t *testing.T, b bench) {
		for _, c := range cases {
			f := &faulty{Connector: connector{b.db.Driver(), b.dsn}}
			db := sqlx.NewDb(sql.OpenDB(f), b.db.DriverName())
			defer db.Close()
			o := inbox.Options{LookupTimeout: time.Minute}
			if c.fate == cutOff {
				o.LookupTimeout = 100 * time.Millisecond // it is in vain
			}
			box := must(inbox.New(t.Context(), db, b.dialect, o))
			f.fate.Store(int32(c.fate))
			out, err := box.Do(task(t.Context(), c.name, action, 1, 1), b.apply)
			f.fate.Store(int32(commits))
			f.cut.Store(false)
			var stated *worker.Error
			switch errors.As(err, &stated); {
			case c.outcome == 0 && (err != nil || string(out) != `{"attempt":1}`):
				t.Errorf("%s: %s, %v", c.name, out, err)
			case c.outcome != 0 && (stated == nil || stated.Outcome != c.outcome || !stated.Retryable || !errors.Is(err, errCut)):
				t.Errorf("%s: %v", c.name, err)
			}
			if n := b.effects(t, c.name, action); n != c.effects {
				t.Errorf("%s: %d effects", c.name, n)
			}
			// Another attempt finds out.
			if _, err := box.Do(task(t.Context(), c.name, action, 1, 2), b.apply); err != nil {
				t.Errorf("%s: second attempt: %v", c.name, err)
			}
			if n := b.effects(t, c.name, action); n != 1 {
				t.Errorf("%s: %d effects after the second attempt", c.name, n)
			}
		}
	})
}
