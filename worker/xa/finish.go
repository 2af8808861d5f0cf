package xa

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/worker"
)

// Commit commits the branch of the task of ctx. For a participant that is alone,
// as [worker.TaskInfo.OnePhase] tells, it runs fn in one transaction and returns
// its output. It succeeds however often it is asked. An error with code
// CodeHeuristicRollback says that there is nothing to commit any more.
func (p *Participant) Commit(ctx context.Context, fn Func) ([]byte, error) {
	b, err := p.branch(ctx)
	if err != nil {
		return nil, err
	}
	if b.endKept(ctx, true) {
		return b.closed(ctx, b.db), nil
	}
	if !b.server.bound() {
		// In a round trip less.
		at, err := b.look(ctx, b.db)
		if err != nil {
			return nil, failure("committing", err)
		}
		if at.prepared {
			gone, err := b.end(ctx, b.db, at, true, CodeCommit)
			if err != nil {
				return nil, err
			}
			if !gone {
				return b.closed(ctx, b.db), nil
			}
		}
	}
	// All that is left goes on under the lock: a prepare may still be at it.
	s, err := b.session(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close(ctx)
	at, err := s.look(ctx, s.conn)
	if err != nil {
		return nil, failure("committing", err)
	}
	switch {
	case at.prepared:
		if gone, err := s.end(ctx, s.conn, at, true, CodeCommit); err != nil {
			return nil, err
		} else if gone {
			return nil, worker.Retryable(CodeBusy, fmt.Errorf("xa: branch %s was ended by another session", b.gid))
		}
		return s.closed(ctx, s.conn), nil
	case at.State == alone && at.applied:
		return at.Result, nil
	case at.applied, at.State == readOnly:
		return s.closed(ctx, s.conn), nil
	case at.State == lost:
		return nil, worker.Unknown(CodeCommit, s.lostFromSight())
	case at.known:
		return nil, worker.Final(CodeHeuristicRollback, fmt.Errorf("xa: branch %s of step %s is to be committed but is not prepared, "+
			"and its row was not committed: it was rolled back (its vote is noted as %q)", b.gid, b.info.Step, at.State))
	case !b.info.OnePhase:
		return nil, worker.Final(CodeHeuristicRollback, fmt.Errorf("xa: branch %s of step %s is to be committed, "+
			"but this database knows neither it nor its vote: it was restored to an earlier state, or is another one", b.gid, b.info.Step))
	}
	return s.commitAlone(ctx, fn)
}

// closed notes that the branch is committed, and returns the answer. The
// branch's row says so too, so an error of the note changes nothing.
func (b *branch) closed(ctx context.Context, e sqlx.ExecerContext) []byte {
	_, _ = e.ExecContext(ctx, b.sql.close, b.gid)
	return []byte("null")
}

// commitAlone is the one phase of a participant that is alone.
func (s *session) commitAlone(ctx context.Context, fn Func) ([]byte, error) {
	out, _, err := s.perform(ctx, fn)
	if err != nil {
		return nil, err
	}
	if err := s.prove(ctx); err != nil {
		return nil, failure("writing the row", err)
	}
	if err := s.note(ctx, s.conn, alone, out); err != nil {
		return nil, failure("committing", err)
	}
	if err := s.server.commit(ctx, s.conn, s.gid); err != nil {
		return nil, s.ending("committing", CodeCommit, err)
	}
	s.open = false
	return out, nil
}

// Abort rolls back the branch of the task of ctx, and keeps its prepare from
// running from now on, also where it has not run yet. It succeeds however often
// it is asked. An error with code CodeHeuristicCommit says that the branch was
// committed.
func (p *Participant) Abort(ctx context.Context) error {
	b, err := p.branch(ctx)
	if err != nil {
		return err
	}
	b.endKept(ctx, false) // what it leaves undone is found below
	s, err := b.session(ctx)
	if err != nil {
		return err
	}
	defer s.close(ctx)
	at, err := s.look(ctx, s.conn)
	if err != nil {
		return failure("aborting", err)
	}
	switch {
	case at.prepared:
		gone, err := s.end(ctx, s.conn, at, false, CodeAbort)
		if err != nil {
			return err
		}
		if gone {
			return worker.Retryable(CodeBusy, fmt.Errorf("xa: branch %s was ended by another session", b.gid))
		}
	case at.applied:
		return worker.Final(CodeHeuristicCommit,
			fmt.Errorf("xa: branch %s of step %s is to be aborted, but was committed", b.gid, b.info.Step))
	case at.State == readOnly || at.State == aborted:
		return nil
	}
	if err := s.note(ctx, s.conn, aborted, nil); err != nil {
		return worker.Unknown(CodeAbort, fmt.Errorf("xa: %w", err))
	}
	return nil
}
