package engine_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// onRabbit runs a test for a TCC and for a two-phase commit of a flight and a
// hotel, whose messages go over a real RabbitMQ.
func onRabbit(t *testing.T, f func(t *testing.T, w *world, l *ledger, h handlers)) {
	t.Helper()
	for _, b := range []*definitions.TransactionBuilder{definitions.TCC("booking"), definitions.TwoPhase("booking")} {
		wf := bookingOf(b)
		t.Run(string(wf.Kind()), func(t *testing.T) {
			w, l := newWorld(t, nil), newLedger()
			w.broker = rabbitBroker(t, testenv.RabbitMQ(t))
			w.start()
			w.register(wf)
			f(t, w, l, bookingHandlers(l))
		})
	}
}

// check compares how often each task of a run took effect with what is wanted, by step and phase.
func (l *ledger) check(t *testing.T, id string, want map[string]int) {
	t.Helper()
	for _, step := range []string{"flight", "hotel"} {
		for _, phase := range []string{"prepare", "commit", "abort"} {
			task := step + "/" + phase
			if n := l.count(id + "/" + task + "/1"); n != want[task] {
				t.Errorf("%s took effect %d times, not %d: %v", task, n, want[task], l.order())
			}
		}
	}
}

func TestTransactionCommitsOverRabbitMQ(t *testing.T) {
	onRabbit(t, func(t *testing.T, w *world, l *ledger, h handlers) {
		w.worker("a", h)
		id := w.run(rest.Start{Workflow: "booking"})
		w.wait(id, "committed")
		l.check(t, id, map[string]int{"flight/prepare": 1, "hotel/prepare": 1, "flight/commit": 1, "hotel/commit": 1})
	})
}

func TestTransactionAbortsOverRabbitMQ(t *testing.T) {
	onRabbit(t, func(t *testing.T, w *world, l *ledger, h handlers) {
		prepared := make(chan struct{})
		h["flight.try"] = func(ctx context.Context, in []byte) ([]byte, error) {
			defer close(prepared)
			return ok(l, "null")(ctx, in)
		}
		h["hotel.try"] = func(ctx context.Context, in []byte) ([]byte, error) {
			<-prepared
			return decline("no_room")(ctx, in)
		}
		w.worker("a", h)
		id := w.run(rest.Start{Workflow: "booking"})
		if d := w.wait(id, "aborted"); d.FailedStep != "hotel" || d.Decision != "aborted" {
			t.Errorf("the run says that %q failed, and that it is %s", d.FailedStep, d.Decision)
		}
		l.check(t, id, map[string]int{"flight/prepare": 1, "flight/abort": 1})
	})
}

func TestReadOnlyVoteOverRabbitMQ(t *testing.T) {
	onRabbit(t, func(t *testing.T, w *world, l *ledger, h handlers) {
		h["hotel.try"] = func(ctx context.Context, _ []byte) ([]byte, error) {
			l.apply(ctx)
			return nil, worker.ErrReadOnly
		}
		w.worker("a", h)
		id := w.run(rest.Start{Workflow: "booking"})
		w.wait(id, "committed")
		l.check(t, id, map[string]int{"flight/prepare": 1, "hotel/prepare": 1, "flight/commit": 1})
	})
}

// deciding is a store that fails once a decision is on disk, so that the process
// ends before it can act on it.
type deciding struct {
	store.Store
	decided atomic.Bool
}

func (d *deciding) Commit(parts []store.Part) ([]error, error) {
	if d.decided.Load() {
		return nil, errCrash
	}
	errs, err := d.Store.Commit(parts)
	for _, p := range parts {
		for _, r := range p.Append {
			events, bad := machine.DecodeEvents(r.Data)
			if bad != nil {
				return nil, bad
			}
			if slices.ContainsFunc(events, func(e machine.Event) bool {
				return e.Kind == machine.DecidedCommit || e.Kind == machine.DecidedAbort
			}) {
				d.decided.Store(true)
				return nil, errCrash
			}
		}
	}
	return errs, err
}

// TestOrchestratorEndsAfterTheDecisionOverRabbitMQ restarts the orchestrator
// between the decision and phase two: it is the decision that is delivered (T2).
func TestOrchestratorEndsAfterTheDecisionOverRabbitMQ(t *testing.T) {
	for _, no := range []bool{false, true} {
		onRabbit(t, func(t *testing.T, w *world, l *ledger, h handlers) {
			want, effects := "committed", map[string]int{"flight/prepare": 1, "hotel/prepare": 1, "flight/commit": 1, "hotel/commit": 1}
			if no {
				prepared := make(chan struct{})
				h["flight.try"] = func(ctx context.Context, in []byte) ([]byte, error) {
					defer close(prepared)
					return ok(l, "null")(ctx, in)
				}
				h["hotel.try"] = func(ctx context.Context, in []byte) ([]byte, error) {
					<-prepared
					return decline("no_room")(ctx, in)
				}
				want, effects = "aborted", map[string]int{"flight/prepare": 1, "flight/abort": 1}
			}
			w.stop()
			w.worker("a", h)
			w.wrap = func(s store.Store) store.Store { return &deciding{Store: s} }
			e := w.start()
			id := w.run(rest.Start{Workflow: "booking"})
			<-e.Done()
			w.stop()
			for _, call := range l.order() {
				if call != "flight/prepare" && call != "hotel/prepare" {
					t.Errorf("T6: %s before the process that decided was there again", call)
				}
			}
			w.wrap = nil
			w.start()
			if d := w.decision(id); d != want {
				t.Errorf("T2: after the restart the decision is %s, not %s", d, want)
			}
			w.wait(id, want)
			l.check(t, id, effects)
		})
	}
}

// TestWorkerKilledInPhaseTwoOverRabbitMQ kills a worker that has been told to
// commit, and to abort: another one is told.
func TestWorkerKilledInPhaseTwoOverRabbitMQ(t *testing.T) {
	for _, c := range []struct{ vote, phase, want string }{{"yes", "confirm", "committed"}, {"no", "cancel", "aborted"}} {
		onRabbit(t, func(t *testing.T, w *world, l *ledger, h handlers) {
			told, hang, prepared := make(chan struct{}, 10), make(chan struct{}), make(chan struct{})
			h["flight.try"] = func(ctx context.Context, in []byte) ([]byte, error) {
				defer close(prepared)
				return ok(l, "null")(ctx, in)
			}
			if c.vote == "no" {
				h["hotel.try"] = func(ctx context.Context, in []byte) ([]byte, error) {
					<-prepared
					return decline("no_room")(ctx, in)
				}
			}
			h["flight."+c.phase] = func(context.Context, []byte) ([]byte, error) {
				told <- struct{}{}
				<-hang
				return nil, errors.New("killed")
			}
			doomed := &severable{Broker: w.broker}
			w.workerOn(doomed, "doomed", h)
			t.Cleanup(func() { close(hang) }) // before the worker is waited for
			id := w.run(rest.Start{Workflow: "booking"})
			<-told
			w.worker("heir", bookingHandlers(l))
			doomed.kill()
			w.wait(id, c.want)
			done, undone := "commit", "abort"
			if c.want == "aborted" {
				done, undone = undone, done
			}
			if n := l.count(id + "/flight/" + done + "/1"); n != 1 {
				t.Errorf("T5: the flight's %s took effect %d times: %v", done, n, l.order())
			}
			if n := l.count(id+"/flight/"+undone+"/1") + l.count(id+"/hotel/"+undone+"/1"); n != 0 {
				t.Errorf("T1: %s took effect in a run that is %s: %v", undone, c.want, l.order())
			}
		})
	}
}
