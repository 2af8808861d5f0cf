package xa

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// The states of a vote.
const (
	noted     = "noted"     // a prepare has begun; nothing was answered
	voted     = "voted"     // prepared, and answered
	lost      = "lost"      // voted; the server says that it is committed, and it is not
	readOnly  = "read_only" // wrote nothing, ended, and answered
	committed = "committed"
	aborted   = "aborted" // or blocked ahead of its prepare
	alone     = "alone"   // committed in one phase
)

// branch is one task's view of its branch.
type branch struct {
	*Participant
	info  worker.TaskInfo
	gid   string
	token int64 // of the note written last
	id    int64 // of the session that is at it, where the server numbers them
}

func (p *Participant) branch(ctx context.Context) (*branch, error) {
	info := worker.TaskFrom(ctx)
	if info.RunID == "" {
		return nil, worker.Final(CodeNoTask, errors.New("xa: the context belongs to no task"))
	}
	return &branch{Participant: p, info: info, gid: p.GID(info.RunID, info.Step)}, nil
}

// standing is what the database knows of a branch.
type standing struct {
	prepared   bool // it is prepared
	applied    bool // its row is there: it was committed
	known      bool // there is a vote, or a note of one to come
	Token      int64
	Generation int64
	State      string
	Result     []byte
}

// look reads the standing. Whether the branch is prepared comes first: one that
// is being committed shows its row before it ceases to be prepared.
func (b *branch) look(ctx context.Context, q sqlx.QueryerContext) (s standing, err error) {
	if s.prepared, err = b.server.prepared(ctx, q, b.gid); err != nil {
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

// note writes the branch's vote, and with it a token, so that a vote noted
// before is not settled any more. The lower half of the token is the number of
// the session, by which others see whether it is over.
func (b *branch) note(ctx context.Context, e sqlx.ExecerContext, state string, result []byte) error {
	var notAfter int64
	if !b.info.NotAfter.IsZero() {
		notAfter = b.info.NotAfter.UnixMilli()
	}
	b.token = rand.Int64N(1<<31)<<32 | b.id&math.MaxUint32
	_, err := e.ExecContext(ctx, b.sql.note, b.gid, b.info.RunID, b.info.Step, int64(b.info.Generation), b.token, state, result,
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
	spent  bool // to be closed
	keep   bool // prepared, and waiting for the decision
	mark   int64
}

// session takes a connection and the branch's lock.
func (b *branch) session(ctx context.Context) (*session, error) {
	if b.slots != nil {
		select {
		case b.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, failure("waiting for a connection", ctx.Err())
		}
	}
	conn, err := b.db.Connx(ctx)
	if err != nil {
		b.leave()
		return nil, failure("taking a connection", err)
	}
	s := &session{branch: b, conn: conn}
	// Before the answer is known the lock counts as held.
	s.locked = true
	s.id, err = b.server.lock(ctx, conn, b.gid, b.opts.LockTimeout)
	switch {
	case err == nil:
		return s, nil
	case errors.Is(err, errBusy):
		s.locked = false
		err = worker.NoEffect(worker.Retryable(CodeBusy,
			fmt.Errorf("xa: another attempt has been at branch %s for %v: %w", b.gid, b.opts.LockTimeout, err)))
	default:
		err = failure("locking the branch", err)
	}
	s.close(ctx)
	return nil, err
}

// leave gives the session's slot to another.
func (b *branch) leave() {
	if b.slots != nil {
		<-b.slots
	}
}

// close gives the connection back as it was; one that cannot be brought into
// order is closed, which gives up whatever it holds.
func (s *session) close(ctx context.Context) {
	if s.keep {
		s.kept.put(s.gid, s.conn)
		s.leave()
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.SettleTimeout)
	defer cancel()
	var err error
	if s.open {
		err = s.server.rollback(ctx, s.conn, s.gid)
	}
	if s.locked && err == nil && !s.spent {
		err = s.server.unlock(ctx, s.conn, s.gid)
	}
	if err != nil || s.spent {
		discard(s.conn)
	}
	_ = s.conn.Close()
	s.leave()
}

// begin begins a transaction. One whose worker has gone silent ends a little
// after the task's time.
func (s *session) begin(ctx context.Context) (err error) {
	t := terms{isolation: s.opts.Isolation, lockTimeout: s.opts.LockTimeout}
	if d, ok := ctx.Deadline(); ok {
		t.idle = max(time.Until(d), 0) + s.opts.SettleTimeout
	}
	s.open, s.spent = true, s.server.bound()
	if s.mark, err = s.server.begin(ctx, s.conn, s.gid, t); errors.Is(err, errBusy) {
		return worker.NoEffect(worker.Retryable(CodeBusy, fmt.Errorf("xa: beginning branch %s: %w", s.gid, err)))
	}
	if err != nil {
		return failure("beginning the branch", err)
	}
	return nil
}

// perform begins the branch, runs fn in it, and tells whether it has written
// anything.
func (s *session) perform(ctx context.Context, fn Func) (out []byte, written bool, err error) {
	if err := s.begin(ctx); err != nil {
		return nil, false, err
	}
	if out, err = s.call(ctx, fn); err != nil {
		return nil, false, err
	}
	written, err = s.server.written(ctx, s.conn, s.gid, s.mark)
	if err != nil {
		return nil, false, s.ending("asking what was written", CodeTxLost, err)
	}
	return out, written, nil
}

// ending is the error of what ends a transaction: without effect if the server
// has said so, or else unknown.
func (s *session) ending(doing, code string, err error) error {
	switch {
	case errors.Is(err, errLost):
		return &worker.Error{Outcome: protocol.OutcomeUnknown, Code: CodeTxLost, Err: fmt.Errorf("xa: branch %s: %w", s.gid, err)}
	case s.server.refused(err):
		return failure(doing, err)
	}
	return worker.Unknown(code, fmt.Errorf("xa: %s: %w", doing, err))
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
	case s.server.timedOut(err):
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
func (b *branch) end(ctx context.Context, e executor, at standing, commit bool, code string) (gone bool, err error) {
	doing := "rolling back"
	if commit {
		doing = "committing"
	}
	err = b.server.finish(ctx, e, b.gid, commit, at.Token&math.MaxUint32, b.opts.LockTimeout)
	switch {
	case err == nil && commit && b.server.bound():
		return false, b.witness(ctx, e)
	case err == nil:
		return false, nil
	case errors.Is(err, errGone):
		return true, nil
	case errors.Is(err, errBusy):
		return false, worker.Retryable(CodeBusy, fmt.Errorf("xa: %s branch %s: %w", doing, b.gid, err))
	}
	return false, worker.Unknown(code, fmt.Errorf("xa: %s branch %s: %w", doing, b.gid, err))
}

// witness checks that a commit has committed, which a server that has lost sight
// of the branch only says.
func (b *branch) witness(ctx context.Context, e executor) error {
	var applied bool
	if err := sqlx.GetContext(ctx, e, &applied, b.sql.row, b.gid); err != nil {
		return worker.Unknown(CodeCommit, fmt.Errorf("xa: looking for the row of branch %s after its commit: %w", b.gid, err))
	}
	if applied {
		return nil
	}
	_, err := e.ExecContext(ctx, b.sql.lose, b.gid)
	return worker.Unknown(CodeCommit, errors.Join(b.lostFromSight(), err))
}

func (b *branch) lostFromSight() error {
	return fmt.Errorf("xa: the server has committed branch %s by its own words, but not in fact, and has lost sight of it: "+
		"it holds the branch's locks until it is started again, and then the branch can be committed", b.gid)
}

// failure is an error of the database with which nothing was left behind.
func failure(doing string, err error) error {
	return worker.NoEffect(worker.Retryable(CodeDatabase, fmt.Errorf("xa: %s: %w", doing, err)))
}
