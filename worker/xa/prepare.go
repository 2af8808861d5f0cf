package xa

import (
	"context"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// Prepare runs fn in a branch for the task of ctx (see [worker.TaskFrom]),
// prepares the branch, and returns the output of fn: a vote of yes. It returns
// [worker.ErrReadOnly] if fn wrote nothing. Of a task that has voted already it
// returns the vote again. Its other errors are those that a worker reports.
func (p *Participant) Prepare(ctx context.Context, fn Func) ([]byte, error) {
	b, err := p.branch(ctx)
	if err != nil {
		return nil, err
	}
	b.letGo() // a session that an earlier attempt left would not let this one in
	s, err := b.session(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close(ctx)
	at, err := s.look(ctx, s.conn)
	if err != nil {
		return nil, failure("preparing", err)
	}
	if out, answered, err := s.answer(at); answered {
		return out, err
	}
	// From here on no earlier attempt can settle its vote.
	if err := s.note(ctx, s.conn, noted, nil); err != nil {
		return nil, failure("preparing", err)
	}
	if at.prepared {
		// Prepared by an attempt that ended before it wrote its vote, and so
		// before it answered. Nobody relies on it.
		if _, err := s.end(ctx, s.conn, at, false, CodePrepare); err != nil {
			return nil, err
		}
	}
	return s.prepare(ctx, fn)
}

// answer answers a prepare by what is known of the branch already.
func (b *branch) answer(at standing) (out []byte, answered bool, err error) {
	generation := int64(b.info.Generation)
	switch {
	case at.State == aborted:
		return nil, true, worker.NoEffect(worker.Final(CodeSuspended,
			fmt.Errorf("xa: the branch was aborted before this prepare arrived")))
	case !at.known && !at.applied, at.State == noted && !at.applied:
		return nil, false, nil
	case at.known && generation < at.Generation:
		return nil, true, worker.NoEffect(worker.Final(CodeSuperseded,
			fmt.Errorf("xa: generation %d has voted, this is %d", at.Generation, generation)))
	case at.State == noted, !at.known, at.State == alone, generation > at.Generation:
		return nil, true, &worker.Error{Outcome: protocol.OutcomeUnknown, Code: CodeConflict,
			Err: fmt.Errorf("xa: branch %s has taken effect already, and not by this prepare", b.gid)}
	case at.State == readOnly:
		return nil, true, worker.ErrReadOnly
	case at.State == voted && !at.prepared && !at.applied:
		return nil, true, worker.Final(CodeHeuristicRollback,
			fmt.Errorf("xa: branch %s was prepared and has voted; it was rolled back by somebody else", b.gid))
	}
	return at.Result, true, nil
}

// prepare runs fn, prepares, and writes the vote.
func (s *session) prepare(ctx context.Context, fn Func) ([]byte, error) {
	out, written, err := s.perform(ctx, fn)
	if err != nil {
		return nil, err
	}
	if !written {
		return nil, s.withdraw(ctx, out)
	}
	if err := s.prove(ctx); err != nil {
		return nil, failure("writing the branch's row", err)
	}
	// From here on the outcome is unknown until it is known. An attempt that
	// finds the branch without a vote begins anew.
	if err := s.server.prepare(ctx, s.conn, s.gid); err != nil {
		return nil, s.ending("preparing the branch", CodePrepare, err)
	}
	s.open = false
	var e sqlx.ExecerContext = s.conn
	if s.server.bound() {
		e = s.db
	}
	res, err := e.ExecContext(ctx, s.sql.settle, out, s.gid, s.token)
	if err != nil {
		return nil, worker.Unknown(CodePrepare, fmt.Errorf("xa: writing the vote: %w", err))
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return nil, &worker.Error{Outcome: protocol.OutcomeUnknown, Code: CodeTxLost,
			Err: errors.Join(fmt.Errorf("xa: branch %s was prepared, and was ended by somebody else before it had voted", s.gid), err)}
	}
	s.keep = s.server.bound()
	return out, nil
}

// withdraw ends a transaction that has written nothing. What it read is checked
// by its commit, where its isolation asks for that.
func (s *session) withdraw(ctx context.Context, out []byte) error {
	if err := s.server.commit(ctx, s.conn, s.gid); err != nil {
		if errors.Is(err, errLost) {
			return s.ending("voting", CodeTxLost, err)
		}
		return failure("ending a branch that has written nothing", err)
	}
	s.open = false
	if err := s.note(ctx, s.conn, readOnly, out); err != nil {
		return failure("voting", err)
	}
	return worker.ErrReadOnly
}
