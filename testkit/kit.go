package testkit

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// TB is what a Kit needs of a test: *testing.T, *testing.B and *testing.F have
// it. Fatalf must not return. Where there is a method Context, handlers get its
// context, else the background's.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Kit is a workflow under test: its handlers, and what is to go wrong. What was
// set up holds for each Run that follows.
type Kit struct {
	t        TB
	wf       *definitions.Workflow
	base     context.Context
	handlers map[taskName]worker.HandlerFunc
	rest     worker.HandlerFunc
	before   []func()

	faults   []fault
	triggers []trigger
	orders   []order
	locks    map[string]lockFate
	runs     int
}

// taskName names a task type; without service, of any service.
type taskName struct{ service, typ string }

// New returns a Kit without handlers for a workflow.
func New(t TB, wf *definitions.Workflow) *Kit {
	t.Helper()
	if wf == nil {
		t.Fatalf("testkit: there is no workflow")
	}
	k := &Kit{t: t, wf: wf, base: context.Background(), handlers: map[taskName]worker.HandlerFunc{}}
	if c, ok := t.(interface{ Context() context.Context }); ok {
		k.base = c.Context()
	}
	return k
}

// On sets the handler of a typed task, a fake or the real one. It is decoded
// for and encoded after as by worker.Handle. A later handler of the same task
// replaces an earlier one.
func On[In, Out any](k *Kit, task definitions.Task[In, Out], fn func(ctx context.Context, in In) (Out, error)) {
	k.handlers[taskName{task.Service, task.Type}] = func(ctx context.Context, payload []byte) ([]byte, error) {
		in, err := worker.Decode[In](payload)
		if err != nil {
			return nil, err
		}
		out, err := fn(ctx, in)
		if err != nil {
			return nil, err
		}
		return worker.Encode(out)
	}
}

// On sets the untyped handler of a task type, whatever its service.
func (k *Kit) On(taskType string, fn worker.HandlerFunc) {
	k.handlers[taskName{"", taskType}] = fn
}

// Answer sets a handler that does nothing and answers output, encoded as JSON.
func (k *Kit) Answer(taskType string, output any) {
	k.t.Helper()
	data := k.encode(output)
	k.On(taskType, func(context.Context, []byte) ([]byte, error) { return data, nil })
}

// OnRest sets the handler of all task types that have none of their own; nil:
// one that answers null. Without a call, a task without handler fails the test.
func (k *Kit) OnRest(fn worker.HandlerFunc) {
	if fn == nil {
		fn = func(context.Context, []byte) ([]byte, error) { return nil, nil }
	}
	k.rest = fn
}

// BeforeRun adds a function that is called before each run begins, to put what
// the handlers work on into its first state. CrashEverywhere makes many runs.
func (k *Kit) BeforeRun(fn func()) { k.before = append(k.before, fn) }

// handler returns the handler of a task type, or nil.
func (k *Kit) handler(service, typ string) worker.HandlerFunc {
	for _, name := range [...]taskName{{service, typ}, {"", typ}} {
		if fn := k.handlers[name]; fn != nil {
			return fn
		}
	}
	return k.rest
}

// Option changes how a run starts.
type Option func(*machine.Start)

// ID sets the run's id. Default: test-run-1, and so on.
func ID(id string) Option { return func(s *machine.Start) { s.RunID = id } }

// RoutingKey sets the run's routing key. Default: as the workflow says.
func RoutingKey(key string) Option { return func(s *machine.Start) { s.Key = key } }

// Deadline sets the run's deadline, counted from its start. Default: the
// workflow's.
func Deadline(d time.Duration) Option { return func(s *machine.Start) { s.Deadline = start.Add(d) } }

// start is when runs begin on the virtual clock.
var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Run runs the workflow until it has ended, has stalled with no order left
// that would move it on, or waits for a signal that will not come: it is running
// then. Input is encoded as JSON; []byte is taken as JSON text.
func (k *Kit) Run(input any, options ...Option) *Run {
	k.t.Helper()
	return k.run(k.encode(input), nil, options)
}

func (k *Kit) run(input []byte, extra *trigger, options []Option) *Run {
	k.t.Helper()
	for _, fn := range k.before {
		fn()
	}
	k.runs++
	in := machine.Start{RunID: fmt.Sprintf("test-run-%d", k.runs), Input: input}
	for _, o := range options {
		o(&in)
	}
	s := newSimulation(k, in.RunID, extra)
	s.simulate(in)
	return s.run
}

func (k *Kit) encode(v any) []byte {
	k.t.Helper()
	if data, ok := v.([]byte); ok {
		if len(data) > 0 && !json.Valid(data) {
			k.t.Fatalf("testkit: not JSON: %s", data)
		}
		return data
	}
	data, err := json.Marshal(v)
	if err != nil {
		k.t.Fatalf("testkit: encoding %T: %v", v, err)
	}
	return data
}
