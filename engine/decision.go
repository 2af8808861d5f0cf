package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store"
)

// decisionOrder is a participant's question for the decision of a run, on its
// way to the run's shard.
type decisionOrder struct {
	id string
	// ref is the run's number; 0 where the store had no run and no tombstone
	// of this id at lookedUp.
	ref      int64
	lookedUp time.Duration
	reply    func(machine.Decision, error) // called once, when the answer is durable
}

// Decision answers a participant that asks what was decided of a run. The
// answer is durable before it is given, and once it is not undecided it is for
// ever. Of a run that there is not, nobody can decide to commit any more: the
// answer is aborted, and keeps a run of this id from ever being started.
func (e *Engine) Decision(ctx context.Context, id string) (rest.Decision, error) {
	if id == "" {
		return rest.Decision{}, invalid("required", "id", "is required")
	}
	if err := checkID("id", id, MaxIDBytes); err != nil {
		return rest.Decision{}, err
	}
	if err := e.serving(); err != nil {
		return rest.Decision{}, err
	}
	if !e.owns(id) {
		return ask[rest.Decision](ctx, e, order{Method: errandDecision, ID: id}, nil)
	}
	o := &decisionOrder{id: id, lookedUp: e.clock.since()}
	status, ref, err := e.fate(ctx, id)
	if err != nil {
		return rest.Decision{}, err
	}
	var d machine.Decision
	if status.Final() {
		d, err = decisionOf(status)
	} else {
		done := make(chan answer[machine.Decision], 1)
		o.ref, o.reply = ref, func(d machine.Decision, err error) { done <- answer[machine.Decision]{d, settleError(err)} }
		if !e.post(e.shardOf(id), message{ref: ref, decision: o}) {
			return rest.Decision{}, errMoved()
		}
		d, err = await(ctx, e, done)
	}
	if err != nil {
		return rest.Decision{}, err
	}
	return rest.Decision{ID: id, Decision: d.String()}, nil
}

// tellDecision answers a question that came through the broker. A question that
// cannot be answered is told so.
func (e *Engine) tellDecision(ctx context.Context, req *protocol.Request) error {
	a := protocol.Answer{RunID: req.RunID, Orchestrator: e.id}
	told, err := e.Decision(ctx, req.RunID)
	var own *Error
	switch {
	case err == nil:
		err = a.Decision.UnmarshalText([]byte(told.Decision))
	case refused(err) && errors.As(err, &own):
		a.Code, a.Message, err = own.Code, own.Error(), nil
	}
	if err != nil {
		return err
	}
	return e.conn.Publish(ctx, protocol.EncodeAnswer(req.ReplyTo, &a))
}

// fate is the status of a run, or of its tombstone, by its id, and the number
// of the run; neither, if there is none.
func (e *Engine) fate(ctx context.Context, id string) (store.Status, int64, error) {
	row, err := e.cfg.Store.Run(ctx, id)
	if err == nil {
		return row.Status, row.Ref, nil
	}
	if !errors.Is(err, store.ErrNotFound) {
		return 0, 0, storeError("read run", err)
	}
	tomb, err := e.tombstone(ctx, id)
	if err != nil || tomb == nil {
		return 0, 0, err
	}
	return tomb.Status, 0, nil
}

// decisionOf is the decision of a run that ended with a status.
func decisionOf(s store.Status) (machine.Decision, error) {
	switch s {
	case store.StatusCommitted:
		return machine.DecisionCommit, nil
	case store.StatusAborted:
		return machine.DecisionAbort, nil
	}
	return machine.Undecided, errNoDecision()
}

func errNoDecision() *Error {
	return &Error{
		Kind: KindConflict, Code: "no_decision", Message: "the run is a saga, of which nothing is decided as a whole",
		Hint: "look at the run's steps",
	}
}

// errBuried refuses a start whose id has a tombstone.
func errBuried() *Error {
	return &Error{
		Kind: KindConflict, Code: "presumed_aborted", Field: "id",
		Message: "a participant asked for the decision of a run with this id when there was none, and was told that it is aborted",
		Hint:    "use another id",
	}
}

// decide answers a question for a run's decision.
func (s *shard) decide(o *decisionOrder) error {
	if o.ref != 0 {
		return s.decisionOfRun(o, o.ref)
	}
	row, tomb, err := s.known(o.id, o.lookedUp)
	if err != nil {
		return err
	}
	if row != nil {
		return s.decisionOfRun(o, row.Ref)
	}
	status := store.StatusAborted
	if tomb != nil {
		status = tomb.Status
	} else {
		s.bury(o.id)
	}
	d, refused := decisionOf(status)
	s.answer(o, d, refused)
	return nil
}

func (s *shard) decisionOfRun(o *decisionOrder, ref int64) error {
	r, err := s.resident(ref)
	switch {
	case errors.Is(err, errUnreadable), err == nil && r == nil:
		o.reply(machine.Undecided, errUnreadable) // what was decided is not known
		return nil
	case err != nil:
		return err
	case !r.wf.Kind().HasParticipants():
		s.answer(o, machine.Undecided, errNoDecision())
		return nil
	}
	// What the passing of time decides is decided before it is told.
	if err := s.step(r, machine.Tick{}); err != nil {
		return fmt.Errorf("run %q: %w", o.id, err)
	}
	s.answer(o, r.state.Decision(), nil)
	return nil
}

// answer replies once all is durable that was decided until now.
func (s *shard) answer(o *decisionOrder, d machine.Decision, refused error) {
	s.reply(func(lost error) { o.reply(d, cmp.Or(lost, refused)) })
}

// bury keeps a run of this id from ever being started.
func (s *shard) bury(id string) {
	now := s.eng.clock.now()
	s.part.Bury = append(s.part.Bury, store.Tombstone{ID: id, Shard: s.id, Status: store.StatusAborted, Buried: now, Until: s.eng.knownUntil(now)})
	s.recent.add(id, buriedRef, s.eng.clock.since(), s.number, s.durable.Load())
	s.eng.metrics.presumed.Inc()
	s.eng.log.Warn("the decision of a run was asked for that there is not: it is presumed aborted, and cannot be started any more", "run", id)
}
