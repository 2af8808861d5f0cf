package xa

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// The states of a vote.
const (
	noted     = "noted"     // a prepare has begun; nothing was answered
	voted     = "voted"     // prepared, and answered
	readOnly  = "read_only" // wrote nothing, ended, and answered
	committed = "committed"
	aborted   = "aborted" // or blocked ahead of its prepare
	alone     = "alone"   // committed in one phase
)

// branch is one task's view of its branch.
type branch struct {
	*Participant
	info worker.TaskInfo
	gid  string
}

func (p *Participant) branch(ctx context.Context) (*branch, error) {
	info := worker.TaskFrom(ctx)
	if info.RunID == "" {
		return nil, worker.Final(CodeNoTask, errors.New("xa: the context belongs to no task"))
	}
	return &branch{p, info, p.GID(info.RunID, info.Step)}, nil
}

// standing is what the database knows of a branch.
type standing struct {
	prepared   bool // it is prepared
	applied    bool // its row is there: it was committed
	known      bool // there is a vote, or a note of one to come
	Generation int64
	State      string
	Result     []byte
}

// look reads the standing. Whether the branch is prepared comes first: one that
// is being committed shows its row before it ceases to be prepared.
func (b *branch) look(ctx context.Context, q sqlx.QueryerContext) (s standing, err error) {
	err = sqlx.GetContext(ctx, q, &s.prepared,
		`SELECT EXISTS (SELECT 1 FROM pg_prepared_xacts WHERE gid = $1 AND database = current_database())`, b.gid)
	if err != nil {
		return s, fmt.Errorf("looking for the branch: %w", err)
	}
	if err := sqlx.GetContext(ctx, q, &s.applied, b.sql.row, b.gid); err != nil {
		return s, fmt.Errorf("looking for the branch's row: %w", err)
	}
	switch err := sqlx.GetContext(ctx, q, &s, b.sql.vote, b.gid); {
	case errors.Is(err, sql.ErrNoRows):
	case err != nil:
		return s, fmt.Errorf("reading the vote: %w", err)
	default:
		s.known = true
	}
	return s, nil
}

// note writes the branch's vote.
func (b *branch) note(ctx context.Context, q sqlx.ExecerContext, state string, result []byte) error {
	var notAfter int64
	if !b.info.NotAfter.IsZero() {
		notAfter = b.info.NotAfter.UnixMilli()
	}
	_, err := q.ExecContext(ctx, b.sql.note, b.gid, b.info.RunID, b.info.Step, int64(b.info.Generation), state, result,
		time.Now().UnixMilli(), notAfter)
	if err != nil {
		return fmt.Errorf("noting the branch as %s: %w", state, err)
	}
	return nil
}

// session is a connection that holds the branch's lock: no other task is at it,
// but for a commit of the branch once it is prepared.
type session struct {
	*branch
	conn   *sqlx.Conn
	locked bool
	open   bool // in a transaction
}

// session takes a connection and the branch's lock.
func (b *branch) session(ctx context.Context) (*session, error) {
	conn, err := b.db.Connx(ctx)
	if err != nil {
		return nil, failure("taking a connection", err)
	}
	s := &session{branch: b, conn: conn}
	// Before the answer is known the lock counts as held.
	s.locked = true
	_, err = conn.ExecContext(ctx, `SELECT set_config('lock_timeout', $1, true), pg_advisory_lock($2)`,
		millis(b.opts.LockTimeout), lockKey(b.gid))
	if err == nil {
		return s, nil
	}
	if sqlState(err) == stateLockTimeout {
		s.locked = false
		s.close(ctx)
		return nil, worker.NoEffect(worker.Retryable(CodeBusy,
			fmt.Errorf("xa: another attempt has been at branch %s for %v: %w", b.gid, b.opts.LockTimeout, err)))
	}
	s.close(ctx)
	return nil, failure("locking the branch", err)
}

// close gives the connection back as it was; one that cannot be brought into
// order is closed, which gives up whatever it holds.
func (s *session) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.SettleTimeout)
	defer cancel()
	sound := true
	if s.open {
		_, err := s.conn.ExecContext(ctx, `ROLLBACK`)
		sound = err == nil
	}
	if s.locked && sound {
		err := s.conn.GetContext(ctx, &sound, `SELECT pg_advisory_unlock($1)`, lockKey(s.gid))
		sound = sound && err == nil
	}
	if !sound {
		_ = s.conn.Raw(func(any) error { return driver.ErrBadConn }) // closes it
	}
	_ = s.conn.Close()
}

// begin begins a transaction. One whose worker has gone silent ends a little
// after the task's time.
func (s *session) begin(ctx context.Context) error {
	s.open = true
	begin := `BEGIN`
	if level := s.opts.Isolation; level != sql.LevelDefault {
		begin += ` ISOLATION LEVEL ` + strings.ToUpper(level.String())
	}
	if _, err := s.conn.ExecContext(ctx, begin); err != nil {
		return err
	}
	var idle time.Duration
	if d, ok := ctx.Deadline(); ok {
		idle = max(time.Until(d), 0) + s.opts.SettleTimeout
	}
	_, err := s.conn.ExecContext(ctx, `SELECT set_config('lock_timeout', $1, true),
		set_config('idle_in_transaction_session_timeout', $2, true), set_config('synchronous_commit',
		CASE WHEN current_setting('synchronous_commit') = 'off' THEN 'local' ELSE current_setting('synchronous_commit') END, true),
		set_config('ringmaster.branch', $3, true)`,
		millis(s.opts.LockTimeout), millis(idle), s.gid)
	return err
}

// written tells whether the transaction has written anything. It fails if the
// handler has ended the transaction, which takes the transaction's settings
// with it.
func (s *session) written(ctx context.Context) (bool, error) {
	var now struct{ Same, Written bool }
	err := s.conn.GetContext(ctx, &now, `SELECT COALESCE(current_setting('ringmaster.branch', true), '') = $1 AS same,
		txid_current_if_assigned() IS NOT NULL AS written`, s.gid)
	switch {
	case err != nil:
		return false, failure("asking what was written", err)
	case !now.Same:
		return false, &worker.Error{Outcome: protocol.OutcomeUnknown, Code: CodeTxLost,
			Err: fmt.Errorf("xa: the handler of branch %s has ended the transaction itself", s.gid)}
	}
	return now.Written, nil
}

// call runs the handler in the transaction. Its errors have had no effect, as
// the transaction is rolled back, unless it says that they may have had one
// elsewhere.
func (s *session) call(ctx context.Context, fn Func) (out []byte, err error) {
	tx := &Tx{conn: s.conn, db: s.db}
	defer func() {
		tx.ended.Store(true)
		if v := recover(); v != nil {
			out, err = nil, worker.NoEffect(worker.Recovered(v))
		}
	}()
	if out, err = fn(ctx, tx); err == nil {
		if len(out) == 0 {
			out = []byte("null")
		}
		return out, nil
	}
	var stated *worker.Error
	switch {
	case errors.As(err, &stated):
		if stated.Outcome == protocol.OutcomeUnknown {
			return nil, err
		}
	case sqlState(err) == stateLockTimeout:
		err = worker.Retryable(CodeLockTimeout, err)
	}
	return nil, worker.NoEffect(err)
}

// prove writes the branch's row, which is there once the transaction commits.
func (s *session) prove(ctx context.Context) error {
	_, err := s.conn.ExecContext(ctx, s.sql.prove, s.gid, s.info.RunID, s.info.Step, time.Now().UnixMilli())
	return err
}

// end ends a branch that is prepared; gone if there is none of that name.
func (b *branch) end(ctx context.Context, e sqlx.ExecerContext, command, code string) (gone bool, err error) {
	_, err = e.ExecContext(ctx, command+` '`+b.gid+`'`)
	switch sqlState(err) {
	case stateNoSuchObject:
		return true, nil
	case stateBusy:
		return false, worker.Retryable(CodeBusy, fmt.Errorf("xa: %s: %w", command, err))
	}
	if err != nil {
		return false, worker.Unknown(code, fmt.Errorf("xa: %s of branch %s: %w", command, b.gid, err))
	}
	return false, nil
}

// millis is a duration in the unit of PostgreSQL's settings, at least 1 unless
// it is 0, which is no bound.
func millis(d time.Duration) string {
	if d > 0 {
		d = max(d, time.Millisecond)
	}
	return fmt.Sprint(d.Milliseconds())
}

// failure is an error of the database with which nothing was left behind.
func failure(doing string, err error) error {
	return worker.NoEffect(worker.Retryable(CodeDatabase, fmt.Errorf("xa: %s: %w", doing, err)))
}
