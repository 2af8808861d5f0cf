package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// decision asks for a run's decision.
func (w *world) decision(id string) string {
	w.t.Helper()
	d, err := w.engine.Decision(context.Background(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return d.Decision
}

// lifeOf is a context that ends when an engine does, as a client gives up on an
// orchestrator that is gone.
func lifeOf(t *testing.T, e *engine.Engine) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	go func() {
		select {
		case <-e.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx
}

// isError checks the code of an engine's error.
func isError(t *testing.T, err error, kind engine.Kind, code string) {
	t.Helper()
	var e *engine.Error
	if !errors.As(err, &e) || e.Kind != kind || e.Code != code {
		t.Errorf("the error is %v, not %s", err, code)
	}
}

func TestDecisionIsUndecidedAsLongAsVotesComeIn(t *testing.T) {
	for _, c := range []struct{ vote, want string }{{"yes", "committed"}, {"no", "aborted"}} {
		t.Run(c.want, func(t *testing.T) {
			w, l := newWorld(t, nil), newLedger()
			w.start()
			w.register(booking())
			h := bookingHandlers(l)
			asked, vote := make(chan struct{}), make(chan struct{})
			h["hotel.try"] = func(ctx context.Context, in []byte) ([]byte, error) {
				close(asked)
				<-vote
				if c.vote == "no" {
					return decline("no_room")(ctx, in)
				}
				return ok(l, "null")(ctx, in)
			}
			w.worker("a", h)
			id := w.run(rest.Start{Workflow: "booking"})
			<-asked
			if d := w.decision(id); d != "undecided" {
				t.Errorf("before the vote it is %s", d)
			}
			close(vote)
			w.wait(id, c.want)
			for range 2 {
				if d := w.decision(id); d != c.want {
					t.Errorf("after the vote it is %s", d)
				}
				w.stop()
				w.start()
			}
		})
	}
}

func TestSagaHasNoDecision(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	e := w.start()
	w.register(order())
	id := w.run(rest.Start{Workflow: "order", Input: orderInput})
	_, err := e.Decision(context.Background(), id)
	isError(t, err, engine.KindConflict, "no_decision")
	w.worker("a", shop(l))
	w.wait(id, "succeeded")
	_, err = e.Decision(context.Background(), id)
	isError(t, err, engine.KindConflict, "no_decision")
	for _, bad := range []string{"", "a\nb", string(make([]byte, engine.MaxIDBytes+1))} {
		if _, err := e.Decision(context.Background(), bad); err == nil {
			t.Errorf("%q is taken for the id of a run", bad)
		}
	}
}

// TestNoRecordMeansAbort is T8: of a run that there is not the answer is abort,
// and it excludes that a run of this id is started, in whatever way, ever.
func TestNoRecordMeansAbort(t *testing.T) {
	w := newWorld(t, nil)
	e := w.start()
	w.register(booking())
	start := rest.Start{Workflow: "booking", ID: "lost"}
	for range 2 {
		for range 2 {
			if d := w.decision("lost"); d != "aborted" {
				t.Fatalf("T8: the decision of a run that there is not is %s", d)
			}
			_, err := e.StartRun(context.Background(), start)
			isError(t, err, engine.KindConflict, "presumed_aborted")
		}
		out := e.StartRuns(context.Background(), []rest.Start{{Workflow: "booking"}, start})
		if out[0].Error != nil || out[1].Error == nil || out[1].Error.Code != "presumed_aborted" || out[1].Error.Status != 409 {
			t.Errorf("T8: a batch is answered with %+v", out)
		}
		_, err := e.Run(context.Background(), "lost")
		isError(t, err, engine.KindNotFound, "unknown_run")
		w.stop()
		e = w.start()
	}
}

// TestStartAndQuestionAtOnce has a run started and its decision asked for side by
// side: either there is the run, or the answer is abort, and never both.
func TestStartAndQuestionAtOnce(t *testing.T) {
	w := newWorld(t, nil)
	e := w.start()
	w.register(booking())
	var all sync.WaitGroup
	for i := range 200 {
		start := rest.Start{Workflow: "booking", ID: fmt.Sprint("b-", i)}
		all.Go(func() {
			var both sync.WaitGroup
			var started error
			var answer rest.Decision
			both.Go(func() { _, started = e.StartRun(context.Background(), start) })
			both.Go(func() { answer, _ = e.Decision(context.Background(), start.ID) })
			both.Wait()
			if (started == nil) != (answer.Decision == "undecided") || started != nil && answer.Decision != "aborted" {
				t.Errorf("T8: the start of %s is answered with %v, the question with %q", start.ID, started, answer.Decision)
			}
		})
	}
	all.Wait()
}

// TestAbortIsDurableBeforeItIsAnswered has the process end before the answer is on disk,
// and after it: nobody has been told, and a start agrees with the disk.
func TestAbortIsDurableBeforeItIsAnswered(t *testing.T) {
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprintf("after=%v", after), func(t *testing.T) {
			w := newWorld(t, nil)
			w.start()
			w.register(booking())
			w.stop()
			w.wrap = func(s store.Store) store.Store { return &crashing{Store: s, left: 1, after: after} }
			e := w.start()
			if d, err := e.Decision(lifeOf(t, e), "lost"); err == nil {
				t.Errorf("T8: %s was answered by a process that ended before it knew", d.Decision)
			}
			<-e.Done()
			w.stop()
			w.wrap = nil
			e = w.start()
			_, err := e.StartRun(context.Background(), rest.Start{Workflow: "booking", ID: "lost"})
			if after {
				isError(t, err, engine.KindConflict, "presumed_aborted")
			} else if err != nil {
				t.Errorf("nobody has heard of an abort, and the start is refused: %v", err)
			}
		})
	}
}

// TestAnswersAgreeWithTheEnd asks all the time, through a crash at each commit:
// what is answered, other than undecided, is how the run ends (T2, T8).
func TestAnswersAgreeWithTheEnd(t *testing.T) {
	for _, after := range []bool{false, true} {
		for at := 1; at <= 6; at++ {
			t.Run(fmt.Sprintf("after=%v/commit=%d", after, at), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, nil)
				h := bookingHandlers(newLedger())
				if at%2 == 0 {
					h["hotel.try"] = decline("no_room")
				}
				w.worker("a", h)
				w.start()
				w.register(booking())
				w.stop()
				w.wrap = func(s store.Store) store.Store { return &crashing{Store: s, left: at, after: after} }
				e := w.start()
				ctx := lifeOf(t, e)
				told := map[string]bool{}
				ask := func() bool {
					d, err := e.Decision(ctx, "b")
					if err == nil {
						told[d.Decision] = true
					}
					return err == nil
				}
				_, err := e.StartRun(ctx, rest.Start{Workflow: "booking", ID: "b"})
				for err == nil && ask() && !told["committed"] && !told["aborted"] {
				}
				if r, err := e.Wait(ctx, "b", patience); err == nil {
					told[r.Status] = true
				}
				w.stop()
				w.wrap = nil
				e = w.start()
				ctx = lifeOf(t, e)
				w.run(rest.Start{Workflow: "booking", ID: "b"})
				for ask() && !told["committed"] && !told["aborted"] {
				}
				r, err := e.Wait(ctx, "b", patience)
				ask()
				delete(told, "undecided")
				if err != nil || len(told) != 1 || !told[r.Status] {
					t.Errorf("T2, T8: the run is %s (%v), and was told to be %v\n%s", r.Status, err, told, w.history("b"))
				}
			})
		}
	}
}

// TestParticipantsAskForTheDecision asks by way of the broker: from a handler,
// while the orchestrator is away, and of runs that have no decision.
func TestParticipantsAskForTheDecision(t *testing.T) {
	for _, kind := range []string{"memory", "rabbit"} {
		t.Run(kind, func(t *testing.T) {
			w, l := newWorld(t, nil), newLedger()
			if kind == "rabbit" {
				w.broker = rabbitBroker(t, testenv.RabbitMQ(t))
			}
			w.start()
			w.register(booking())
			w.register(order())
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			h := bookingHandlers(l)
			var sdk *worker.Worker
			connected := make(chan struct{})
			inHandler := make(chan any, 10)
			h["hotel.confirm"] = func(ctx context.Context, in []byte) ([]byte, error) {
				<-connected
				d, err := sdk.Decision(ctx, worker.TaskFrom(ctx).RunID)
				inHandler <- []any{d, err}
				return ok(l, "null")(ctx, in)
			}
			sdk, _ = w.sdk(w.broker, "a", h)
			close(connected)
			id := w.run(rest.Start{Workflow: "booking"})
			if got := fmt.Sprint(<-inHandler); got != "[committed <nil>]" {
				t.Errorf("the handler of a commit is told %v", got)
			}
			w.wait(id, "committed")
			saga := w.run(rest.Start{Workflow: "order", Input: orderInput})
			if d, err := sdk.Decision(ctx, saga); !errors.Is(err, worker.ErrNoDecision) {
				t.Errorf("of a saga it is told %v, %v", d, err)
			}
			w.stop()
			answers := make(chan any, 2)
			for _, id := range []string{id, "lost"} {
				go func() {
					d, err := sdk.Decision(ctx, id)
					answers <- fmt.Sprint(id == "lost", d, err)
				}()
			}
			w.start()
			if a, b := <-answers, <-answers; a != "false committed <nil>" && b != "false committed <nil>" ||
				a != "true aborted <nil>" && b != "true aborted <nil>" {
				t.Errorf("after a restart it is told %v and %v", a, b)
			}
			_, err := w.engine.StartRun(ctx, rest.Start{Workflow: "booking", ID: "lost"})
			isError(t, err, engine.KindConflict, "presumed_aborted")
			gone, stop := context.WithCancel(ctx)
			stop()
			if _, err := sdk.Decision(gone, "x"); !errors.Is(err, context.Canceled) {
				t.Errorf("a question without time is answered with %v", err)
			}
		})
	}
}

// TestQuestionsThatCannotBeAnswered has questions that name no queue, which are
// kept, and one whose asker is gone, which is answered to nobody.
func TestQuestionsThatCannotBeAnswered(t *testing.T) {
	w := newWorld(t, nil)
	w.start()
	w.register(booking())
	kept := letters(t, w.broker)
	request(t, w.broker, &protocol.Request{Type: protocol.RequestDecision, RunID: "x"})
	if reason := <-kept; !strings.Contains(reason, protocol.HeaderReplyTo) {
		t.Errorf("a question without an addressee is kept for the reason %q", reason)
	}
	if d := w.run(rest.Start{Workflow: "booking", ID: "x"}); d != "x" {
		t.Errorf("the question had an effect")
	}
	// Requests of one run are carried out in order.
	request(t, w.broker, &protocol.Request{Type: protocol.RequestDecision, RunID: "lost", ReplyTo: "nobody's"},
		&protocol.Request{Type: protocol.RequestStart, Body: []byte(`{"workflow":"booking","id":"lost"}`)})
	if reason := <-kept; !strings.Contains(reason, "aborted") {
		t.Errorf("the start is kept for the reason %q", reason)
	}
}
