package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// booking is a TCC of a flight and a hotel.
func booking() *definitions.Workflow { return bookingOf(definitions.TCC("booking")) }

func bookingOf(b *definitions.TransactionBuilder) *definitions.Workflow {
	for _, name := range []string{"flight", "hotel"} {
		b.Participant(name).Service("shop").Try(name + ".try").Confirm(name + ".confirm").Cancel(name + ".cancel").
			Retry(definitions.RetryPolicy{Initial: time.Millisecond, MaxAttempts: 3}).
			PhaseTwoRetry(definitions.RetryPolicy{Initial: time.Millisecond, Max: 10 * time.Millisecond})
	}
	return b.MustBuild()
}

func bookingHandlers(l *ledger) handlers {
	h := handlers{}
	for _, name := range []string{"flight", "hotel"} {
		for _, phase := range []string{".try", ".confirm", ".cancel"} {
			h[name+phase] = ok(l, "null")
		}
	}
	return h
}

func TestTCCCommitsWhenAllVoteYes(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	w.start()
	w.register(booking())
	h := bookingHandlers(l)
	failures := 2
	h["hotel.confirm"] = func(ctx context.Context, in []byte) ([]byte, error) {
		if failures--; failures >= 0 { // decided is decided: asked until it is done
			return nil, errors.New("the desk is closed")
		}
		return ok(l, "null")(ctx, in)
	}
	w.worker("a", h)
	id := w.run(rest.Start{Workflow: "booking"})
	if d := w.wait(id, "committed"); d.Decision != "committed" || d.Steps[0].Prepare != "flight.try" {
		t.Errorf("the run says that it is decided %q, and that the flight is prepared by %q", d.Decision, d.Steps[0].Prepare)
	}
	for _, key := range []string{"/flight/prepare/1", "/hotel/prepare/1", "/flight/commit/1", "/hotel/commit/1"} {
		if n := l.count(id + key); n != 1 {
			t.Errorf("%s took effect %d times", key, n)
		}
	}
	for _, call := range l.order() {
		if call == "flight/abort" || call == "hotel/abort" {
			t.Errorf("%s was called", call)
		}
	}
}

func TestTCCAbortsWhenOneVotesNo(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	w.start()
	w.register(booking())
	h := bookingHandlers(l)
	h["hotel.try"] = decline("no_room")
	w.worker("a", h)
	id := w.run(rest.Start{Workflow: "booking"})
	d := w.wait(id, "aborted")
	if d.FailedStep != "hotel" || d.Decision != "aborted" {
		t.Errorf("the run says that %q failed", d.FailedStep)
	}
	order := l.order()
	if n := l.count(id + "/flight/prepare/1"); n != l.count(id+"/flight/abort/1") {
		t.Errorf("the flight was tried %d times and cancelled otherwise: %v", n, order)
	}
	if slices.Contains(order, "flight/commit") || slices.Contains(order, "hotel/commit") || slices.Contains(order, "hotel/abort") {
		t.Errorf("handlers were called as %v", order)
	}
}

func TestReadOnlyParticipantHasNoPhaseTwo(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	w.start()
	w.register(booking())
	h := bookingHandlers(l)
	h["hotel.try"] = func(ctx context.Context, _ []byte) ([]byte, error) {
		l.apply(ctx)
		return nil, worker.ErrReadOnly
	}
	w.worker("a", h)
	id := w.run(rest.Start{Workflow: "booking"})
	w.wait(id, "committed")
	if slices.Contains(l.order(), "hotel/commit") || l.count(id+"/flight/commit/1") != 1 {
		t.Errorf("handlers were called as %v", l.order())
	}
}

func TestCancelBeforeTheDecisionAborts(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	e := w.start()
	w.register(booking())
	h := bookingHandlers(l)
	started := make(chan struct{}, 10)
	h["hotel.try"] = func(ctx context.Context, _ []byte) ([]byte, error) {
		started <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	w.worker("a", h)
	id := w.run(rest.Start{Workflow: "booking"})
	<-started
	if _, err := e.Cancel(context.Background(), id, rest.Cancel{By: "ann"}); err != nil {
		t.Fatal(err)
	}
	w.wait(id, "aborted")
	if n := l.count(id + "/hotel/abort/1"); n != 1 {
		t.Errorf("the hotel, whose try is in doubt, was cancelled %d times: %v", n, l.order())
	}
}

// TestCrashAtEveryCommitOfATCC kills the engine at each commit, before and
// after it is on disk: nobody commits where another aborts (T1), and the
// decision stands (T2, T6).
func TestCrashAtEveryCommitOfATCC(t *testing.T) {
	for _, no := range []bool{false, true} {
		for _, after := range []bool{false, true} {
			for at := 1; at <= 6; at++ {
				t.Run(fmt.Sprintf("no=%v/after=%v/commit=%d", no, after, at), func(t *testing.T) {
					t.Parallel()
					w, l := newWorld(t, nil), newLedger()
					h := bookingHandlers(l)
					if no {
						h["hotel.try"] = decline("no_room")
					}
					w.worker("a", h)
					w.start()
					w.register(booking())
					w.stop()
					w.crashAt(at, after, rest.Start{Workflow: "booking", ID: "b"})
					r, err := w.engine.Wait(context.Background(), "b", patience)
					if err != nil || r.Status != "committed" && r.Status != "aborted" || no && r.Status == "committed" {
						t.Fatalf("run %s, %v\n%s", r.Status, err, w.history("b"))
					}
					done, undone := "/commit/1", "/abort/1"
					if r.Status == "aborted" {
						done, undone = undone, done
					}
					for _, name := range []string{"flight", "hotel"} {
						if n := l.count("b/" + name + undone); n != 0 {
							t.Errorf("the run is %s, and %s%s took effect", r.Status, name, undone)
						}
						prepared := l.count("b/"+name+"/prepare/1") > 0
						if n := l.count("b/" + name + done); prepared && n != 1 {
							t.Errorf("the run is %s, and %s%s was called %d times\n%s", r.Status, name, done, n, w.history("b"))
						}
					}
				})
			}
		}
	}
}

func TestAnEndedRunWaitsForNothing(t *testing.T) {
	w := newWorld(t, nil)
	e := w.start()
	w.register(booking())
	id := w.run(rest.Start{Workflow: "booking"}) // nobody serves it
	if _, err := e.Cancel(context.Background(), id, rest.Cancel{}); err != nil {
		t.Fatal(err)
	}
	if d := w.wait(id, "aborted"); len(d.Waiting) != 0 {
		t.Errorf("the ended run waits: %q", d.Waiting)
	}
}
