package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store"
)

// askChildAgain is how long a run's shard waits for word of a child before it
// repeats its request, and lookAgain the same once it knows that the child is
// there: what tells of its end may have been lost between two orchestrators.
const (
	askChildAgain = 5 * time.Second
	lookAgain     = 15 * time.Second
	// childRoom is how many times the limit of unfinished runs there may be before
	// children wait for room.
	childRoom = 2
)

// Codes of the failures of child runs that could not begin.
const (
	CodeChildID    = "child_id_taken"       // another run has the id
	CodeChildDepth = machine.CodeChildDepth // runs are nested too deep
)

// childRequest goes from the shard of a run to the shard of its child: be there
// for this attempt, and say how it ends. It can be repeated: the same attempt is
// the same run. All in it are values, since shards may come to live in different
// processes.
type childRequest struct {
	of       protocol.TaskID // the attempt
	id       string          // of the child
	parent   machine.Parent
	whole    bool // workflow and start are filled in; else: only if it is there
	workflow string
	start    machine.Start
	cancel   *machine.Cancel // the run has turned back
}

// childWord is what the child's shard says before the end: whether it is there.
// The end comes as the attempt's Result.
type childWord struct {
	of    protocol.TaskID
	there bool
}

// asked is an attempt that is a child run, as its run's shard remembers it.
type asked struct {
	request childRequest // not whole
	there   bool
}

// isChild tells whether an attempt is a child run.
func isChild(r *run, step int, phase machine.Phase) bool {
	return phase == machine.Action && r.state.Def(step).Kind == definitions.StepChild
}

// askChild asks for the run that an attempt is. After a restart it probably is
// there, and is asked for by its id alone.
func (s *shard) askChild(r *run, id protocol.TaskID, c machine.Command, recovered bool) {
	q := s.childRequest(r, id, c)
	short := q
	short.whole, short.workflow, short.start = false, "", machine.Start{}
	s.asked[id] = &asked{request: short, there: recovered}
	if recovered {
		q = short
	}
	s.effects.children = append(s.effects.children, q)
	s.askLater(id, askChildAgain)
}

func (s *shard) childRequest(r *run, id protocol.TaskID, c machine.Command) childRequest {
	child := r.state.Child(c)
	return childRequest{of: id, id: child.Start.RunID, parent: child.Start.Parent, whole: true, workflow: child.Workflow, start: child.Start}
}

func (s *shard) askLater(id protocol.TaskID, after time.Duration) {
	s.alarms.set(alarm{at: s.eng.clock.now().Add(after).UnixMilli(), key: id})
}

// cancelChild has the child of an attempt turn back.
func (s *shard) cancelChild(r *run, id protocol.TaskID) {
	a := s.asked[id]
	if a == nil {
		return
	}
	why := r.state.ChildCancel()
	a.request.cancel = &why
	s.effects.children = append(s.effects.children, a.request)
}

// forgetChild forgets an attempt that has come to its end.
func (s *shard) forgetChild(id protocol.TaskID) { delete(s.asked, id) }

// askAgain repeats the request for a child, in whole where it is not known to be
// there. Like every request it leaves after what it stands on is durable.
func (s *shard) askAgain(id protocol.TaskID) error {
	a := s.asked[id]
	if a.there || a.request.cancel != nil {
		s.effects.children = append(s.effects.children, a.request)
		s.askLater(id, lookAgain)
		return nil
	}
	s.askLater(id, askChildAgain)
	r, err := s.resident(id.Ref)
	if errors.Is(err, errUnreadable) {
		return nil
	}
	if err != nil || r == nil {
		return err
	}
	for _, c := range r.state.Commands(s.cmds[:0]) {
		if c.Kind == machine.Dispatch && taskID(id.Ref, c) == id {
			s.effects.children = append(s.effects.children, s.childRequest(r, id, c))
		}
	}
	return nil
}

// childHeard takes in whether a child is there.
func (s *shard) childHeard(w *childWord) error {
	a := s.asked[w.of]
	if a == nil {
		return nil
	}
	if a.there = w.there; a.there {
		s.askLater(w.of, lookAgain)
		return nil
	}
	return s.askAgain(w.of)
}

// resumeChild takes up an attempt of a recovered run.
func (s *shard) resumeChild(r *run, c machine.Command) {
	id := taskID(r.row.Ref, c)
	if c.Kind == machine.Dispatch {
		s.askChild(r, id, c, true)
	} else if c.Kind == machine.CancelTask {
		s.cancelChild(r, id)
	}
}

// What follows is done by the shard of the child.

// wantChild answers a request for a run.
func (s *shard) wantChild(q *childRequest) error {
	if of, ok := s.awaited[q.id]; ok && of == q.of && q.cancel == nil {
		s.tell(q, true)
		return nil
	}
	row, tomb, err := s.lookForChild(q.id)
	if errors.Is(err, errUnreadable) {
		return nil // who can tell how it ended
	}
	if err != nil {
		return err
	}
	switch {
	case tomb != nil && tomb.Workflow != "":
		s.refuseChild(q, CodeChildID, "a run with the id "+q.id+" existed, and was removed")
		return nil
	case tomb != nil:
		s.refuseChild(q, errBuried().Code, "run "+q.id+": "+errBuried().Message)
		return nil
	case row == nil && q.cancel != nil:
		// Requests come in the order in which they were decided on: none is
		// under way that would start it.
		s.tellOf(q.of, q.parent.RunID, machine.Withdrawn{
			Step: int(q.of.Step), Phase: machine.Phase(q.of.Phase), Generation: q.of.Generation, Attempt: q.of.Attempt,
		})
		return nil
	case row == nil && !q.whole:
		s.tell(q, false)
		return nil
	case row == nil:
		return s.startChild(q)
	case row.Parent != q.parent.RunID || row.ParentStep != q.parent.Step:
		s.refuseChild(q, CodeChildID, "a run with the id "+q.id+" exists, and is not a child of this one")
		return nil
	}
	r, err := s.resident(row.Ref)
	if errors.Is(err, errUnreadable) {
		return nil
	}
	if err != nil || r == nil {
		return err
	}
	s.awaited[q.id] = q.of
	if r.state.Status().Final() {
		s.tellParent(r)
		return nil
	}
	s.tell(q, true)
	if q.cancel != nil {
		if err := s.step(r, *q.cancel); err != nil {
			s.eng.log.Warn("a child run cannot be cancelled", "run", q.id, "error", err)
		}
	}
	return nil
}

// lookForChildren looks up, in one read, the runs that a batch of messages asks
// for, and the ids that can no longer be used.
func (s *shard) lookForChildren(batch []message) error {
	clear(s.looked)
	var ids []string
	for i := range batch {
		if q := batch[i].child; q != nil {
			ids = append(ids, q.id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	s.lookedAt = s.eng.clock.since()
	rows, err := read(s, func(ctx context.Context) ([]store.Run, error) { return s.eng.cfg.Store.Lookup(ctx, ids) })
	if err != nil {
		return fmt.Errorf("look up child runs: %w", err)
	}
	tombs, err := read(s, func(ctx context.Context) ([]store.Tombstone, error) { return s.eng.cfg.Store.Tombstones(ctx, ids) })
	if err != nil {
		return fmt.Errorf("look up tombstones: %w", err)
	}
	for i := range tombs {
		s.looked[tombs[i].ID] = found{tomb: &tombs[i]}
	}
	for i := range rows {
		s.looked[rows[i].ID] = found{row: &rows[i]}
	}
	return nil
}

// found is what the store has of an id: a run, or a tombstone.
type found struct {
	row  *store.Run
	tomb *store.Tombstone
}

// lookForChild returns the run of an id if there is one, or a tombstone, which
// tells that there can be none.
func (s *shard) lookForChild(id string) (*store.Run, *store.Tombstone, error) {
	if f, looked := s.looked[id]; looked {
		return f.row, f.tomb, nil
	}
	return s.known(id, s.lookedAt)
}

// startChild starts a run that is not there. The limit of unfinished runs does
// not refuse it, since its parent could not end without it; only far beyond is it
// kept waiting, so that runs that multiply do not bring the orchestrator down.
func (s *shard) startChild(q *childRequest) error {
	limits := &s.eng.cfg.Limits
	if depth := int(q.parent.Depth); depth > limits.MaxChildDepth {
		s.refuseChild(q, CodeChildDepth, fmt.Sprintf("run %s of workflow %s would be nested %d deep; at most %d. Does a workflow come to start itself?",
			q.id, q.workflow, depth, limits.MaxChildDepth))
		return nil
	}
	if n := len(q.start.Input); n > limits.MaxPayloadBytes {
		s.refuseChild(q, "payload_too_large", fmt.Sprintf("the input of run %s is %d bytes long; at most %d", q.id, n, limits.MaxPayloadBytes))
		return nil
	}
	if s.eng.unfinished.Load() >= childRoom*int64(limits.MaxUnfinished) {
		s.eng.metrics.shed.WithLabelValues("children").Inc()
		return nil // the request comes again
	}
	wf, err := s.eng.workflows.current(s.ctx, q.workflow)
	var own *Error
	if errors.As(err, &own) && own.Kind == KindNotFound {
		s.refuseChild(q, own.Code, own.Message)
		return nil
	}
	if err != nil {
		s.eng.log.Error("a child run cannot be started yet", "run", q.id, "workflow", q.workflow, "again_in", askChildAgain, "error", err)
		return nil // the request comes again
	}
	s.awaited[q.id] = q.of
	o := &startOrder{
		wf: wf, id: q.id, input: q.start.Input, hash: inputHash(q.workflow, q.start.Input), key: q.start.Key,
		deadline: q.start.Deadline, priority: q.start.Priority, parent: q.parent, sought: true,
	}
	o.reply = func(_ rest.Started, err error) {
		if err != nil {
			delete(s.awaited, q.id)
			code := "start_rejected"
			if errors.As(err, &own) {
				code = own.Code
			}
			s.refuseChild(q, code, "run "+q.id+" of workflow "+q.workflow+": "+err.Error())
		}
	}
	if err := s.start(o); err != nil {
		return err
	}
	s.tell(q, true)
	return nil
}

// refuseChild fails the attempt for good: it has had no effect.
func (s *shard) refuseChild(q *childRequest, code, message string) {
	s.tellOf(q.of, q.parent.RunID, resultOf(q.of, machine.Result{Outcome: machine.OutcomeFailed, Code: code, Message: message}))
}

// tellParent tells the attempt that a run is how it ended, if it has asked. If
// it has not, it will. An ended child must not be removed while its parent has
// not ended: it would be started again.
func (s *shard) tellParent(r *run) {
	of, ok := s.awaited[r.row.ID]
	if !ok {
		return
	}
	delete(s.awaited, r.row.ID)
	s.tellOf(of, r.row.Parent, resultOf(of, r.state.ChildResult()))
}

func resultOf(of protocol.TaskID, r machine.Result) machine.Result {
	r.Step, r.Phase, r.Generation, r.Attempt = int(of.Step), machine.Phase(of.Phase), of.Generation, of.Attempt
	return r
}

func (s *shard) tellOf(of protocol.TaskID, parent string, in machine.Input) {
	s.effects.answers = append(s.effects.answers, message{ref: of.Ref, runID: parent, input: in})
}

func (s *shard) tell(q *childRequest, there bool) {
	s.effects.answers = append(s.effects.answers, message{ref: q.of.Ref, word: &childWord{of: q.of, there: there}})
}

// childWaits says in words how the run goes that a step is.
func (e *Engine) childWaits(ctx context.Context, step, id, workflow string) string {
	row, err := e.row(ctx, id)
	if err != nil {
		return fmt.Sprintf("step %s is to be run %s of workflow %s, which has not started yet", step, id, workflow)
	}
	what := fmt.Sprintf("step %s waits for run %s of workflow %s, which is %s", step, id, workflow, machine.Status(row.Status))
	if row.Status == store.StatusStalled {
		what += " and needs an operator"
	}
	return what
}
