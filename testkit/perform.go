package testkit

import (
	"context"
	"slices"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// noticed is how long it takes to find that an attempt is nowhere.
const noticed = 3 * time.Second

// worker's name in the history.
const workerName = "test"

// send delivers an attempt as often as the test says.
func (s *simulation) send(a attempt) {
	s.t.Helper()
	n, again := s.copies[a]
	if !again {
		key := s.target(a.step, a.phase)
		s.counts[key]++
		n = s.counts[key]
		s.copies[a] = n
	}
	step := s.state.Def(a.step)
	timeout := timeoutOf(step, a.phase)
	find := func(kind faultKind) *fault { return s.faultOf(kind, s.target(a.step, a.phase), n) }
	switch {
	case find(waiting) != nil:
		s.enqueue(coming{at: s.now.Add(step.QueueTimeout), of: a, kept: true, in: machine.Expired{
			Step: a.step, Phase: a.phase, Generation: a.generation, Attempt: a.number,
		}})
		return
	case find(vanishing) != nil:
		s.called(a, again).Fate = "lost"
		s.lose(a, noticed, machine.LostVanished)
		return
	case find(killing) != nil:
		s.called(a, again).Fate = "worker killed"
		s.lose(a, noticed, machine.LostWorkerDied)
		return
	}
	times, late, mute := 1, time.Duration(0), find(muting) != nil
	if f := find(repeating); f != nil {
		times = f.times
	}
	if f := find(delaying); f != nil {
		late = f.by
	}
	for i := range times {
		result, took := s.perform(a, again || i > 0, again, find(failing))
		took += late
		switch {
		case mute && i == 0:
			s.lose(a, min(took+noticed, timeout), machine.LostVanished)
		case took > timeout && i == 0:
			s.lose(a, timeout, machine.LostTimeout)
		}
		if !mute {
			s.enqueue(coming{at: s.now.Add(took), of: a, in: result, kept: result.Outcome == machine.OutcomeFailed || took > timeout || isChild(step, a.phase)})
		}
	}
}

// called notes that a task was delivered.
func (s *simulation) called(a attempt, again bool) *Call {
	step := s.state.Def(a.step)
	typ, _ := machine.TaskOf(step, a.phase)
	s.run.Calls = append(s.run.Calls, Call{
		Type: typ, Service: step.Service, Step: step.Name, Phase: a.phase, Generation: a.generation, Attempt: a.number,
		Key:   protocol.IdempotencyKey(s.run.ID, step.Name, protocol.Phase(a.phase), a.generation),
		Input: slices.Clone(s.state.TaskInput(a.step, a.phase)), At: s.now.Sub(start), Again: again,
	})
	return &s.run.Calls[len(s.run.Calls)-1]
}

// perform calls the handler, or fails in its place. A failure in answer to
// another sending of an attempt does not prove that there was no effect.
func (s *simulation) perform(a attempt, again, resent bool, f *fault) (machine.Result, time.Duration) {
	s.t.Helper()
	step := s.state.Def(a.step)
	call := s.called(a, again)
	fn := s.handler(step.Service, call.Type)
	if f != nil {
		fn = injected(f.err)
		call.Fate = "failed by the test"
	}
	if fn == nil {
		s.finish()
		s.t.Fatalf("testkit: there is no handler for %s of service %s, which step %s calls\n%s",
			call.Type, step.Service, step.Name, s.run)
	}
	timeout := timeoutOf(step, a.phase)
	x := &execution{Context: s.base, start: s.now, timeout: timeout}
	_, version := definitions.SplitTaskType(call.Type)
	info := worker.TaskInfo{
		RunID: s.run.ID, Workflow: s.wf.Name(), Step: step.Name, Service: step.Service, Type: call.Type, Version: version,
		Phase: protocol.Phase(a.phase), OnePhase: s.state.OnePhase(a.phase), Generation: a.generation, Attempt: a.number, IdempotencyKey: call.Key,
		Tokens: s.lockTokens(), RoutingKey: s.state.RoutingKey(), Worker: workerName, Deadline: s.now.Add(timeout),
		Progress: s.state.Progress(a.step, a.phase),
	}
	index := len(s.run.Calls) - 1 // the handler may not know of it: it has no way to add one
	r := worker.Perform(worker.WithTask(x, info), fn, slices.Clone(call.Input))
	call = &s.run.Calls[index]
	if n := s.copies[a]; r.Outcome == protocol.OutcomeSucceeded && s.faultOf(reading, s.target(a.step, a.phase), n) != nil {
		r.Outcome = protocol.OutcomeReadOnly
	}
	outcome := machine.Outcome(r.Outcome)
	call.Outcome, call.Output, call.Code, call.Message = outcome, r.Payload, r.Code, r.Message
	if resent && outcome == machine.OutcomeFailed {
		outcome = machine.OutcomeUnknown
	}
	return machine.Result{
		Step: a.step, Phase: a.phase, Generation: a.generation, Attempt: a.number, Outcome: outcome,
		Retryable: r.Retryable, Code: r.Code, Message: r.Message, Stack: r.Stack, Worker: workerName, Output: r.Payload,
	}, x.elapsed
}

// execution is the context of one call of a handler.
type execution struct {
	context.Context
	start   time.Time
	elapsed time.Duration
	timeout time.Duration
	late    bool
}

type executionKey struct{}

// Value implements context.Context.
func (x *execution) Value(key any) any {
	if key == (executionKey{}) {
		return x
	}
	return x.Context.Value(key)
}

// Err implements context.Context.
func (x *execution) Err() error {
	if x.late {
		return context.DeadlineExceeded
	}
	return x.Context.Err()
}

// ended is closed.
var ended = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// Done implements context.Context.
func (x *execution) Done() <-chan struct{} {
	if x.late {
		return ended
	}
	return x.Context.Done()
}

// Pass says, in a handler, that its work takes d of virtual time. If the step's
// timeout is over by then, the handler's context ends and Pass returns its
// error.
func Pass(ctx context.Context, d time.Duration) error {
	x := executionOf(ctx)
	x.elapsed += max(d, 0)
	if x.elapsed >= x.timeout {
		x.elapsed, x.late = x.timeout, true
	}
	return x.Err()
}

// Now is the virtual time, in a handler.
func Now(ctx context.Context) time.Time {
	x := executionOf(ctx)
	return x.start.Add(x.elapsed)
}

func executionOf(ctx context.Context) *execution {
	x, ok := ctx.Value(executionKey{}).(*execution)
	if !ok {
		panic("testkit: the context is not that of a handler that a Kit has called")
	}
	return x
}
