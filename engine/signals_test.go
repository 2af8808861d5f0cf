package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// approval is a saga that waits for a human between two tasks.
func approval() *definitions.Workflow {
	b := definitions.Saga("approval").Service("shop").Output("steps.approve.output.who")
	b.Step("create").Action("create").Compensation("uncreate")
	b.Step("approve").WaitSignal("approval")
	b.Step("deliver").Action("deliver").Pivot().When("steps.approve.output.ok")
	return b.MustBuild()
}

func yes(id string) rest.Signal {
	return rest.Signal{ID: id, Payload: json.RawMessage(`{"ok": true, "who": "ann"}`), By: "ann"}
}

// awaits tells whether the run's step approve waits now.
func (w *world) awaits(id string) func() bool {
	return func() bool {
		d, err := w.engine.Run(context.Background(), id)
		return err == nil && d.Steps[1].State == "waiting"
	}
}

// signal gives a run its approval and tells whether it was received now.
func (w *world) signal(id string, s rest.Signal) bool {
	w.t.Helper()
	out, err := w.engine.Signal(context.Background(), id, "approval", s)
	if err != nil {
		w.t.Fatal(err)
	}
	return out.Received
}

// TestApprovalSurvivesARestart restarts the orchestrator while a run waits for a
// signal without a timeout, which nothing but the signal wakes.
func TestApprovalSurvivesARestart(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	w.worker("a", shop(l))
	w.start()
	w.register(approval())
	id := w.run(rest.Start{Workflow: "approval"})
	w.eventually("the run waits", w.awaits(id))
	w.stop()
	w.start()
	if s, err := w.engine.Stats(context.Background()); err != nil || s.Resident != 0 {
		t.Errorf("%d runs are in memory, %v", s.Resident, err)
	}
	if !w.signal(id, yes("s-1")) || w.signal(id, yes("s-1")) {
		t.Error("a signal is not told from its repetition")
	}
	d := w.wait(id, "succeeded")
	if string(d.Output) != `"ann"` {
		t.Errorf("output is %s", d.Output)
	}
	if w.signal(id, yes("s-1")) {
		t.Error("a repetition is received after the end")
	}
}

// TestEarlySignalIsKept sends the signal while the step before it runs, and
// restarts the orchestrator in between.
func TestEarlySignalIsKept(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	w.start()
	w.register(approval())
	id := w.run(rest.Start{Workflow: "approval"}) // nobody serves its first step
	if !w.signal(id, yes("s-1")) {
		t.Error("the signal is not received")
	}
	w.stop()
	w.start()
	d, err := w.engine.Run(context.Background(), id)
	if err != nil || len(d.Signals) != 1 || d.Signals[0] != (rest.KeptSignal{Name: "approval", ID: "s-1"}) {
		t.Errorf("kept are %v, %v", d.Signals, err)
	}
	w.worker("a", shop(l))
	w.wait(id, "succeeded")
}

// TestRefusedSignals has a clear answer for each signal that is of no use.
func TestRefusedSignals(t *testing.T) {
	w, l := newWorld(t, func(c *engine.Config) { c.Limits.MaxSignals, c.Limits.MaxSignalBytes = 1, 100 }), newLedger()
	w.start()
	w.register(approval())
	run := func(id string) string { return w.run(rest.Start{Workflow: "approval", ID: id}) }
	waits, turned, ended := run("waits"), run("turned"), run("ended")
	w.signal(waits, yes("s-1"))
	w.signal(ended, yes("s-1"))
	if _, err := w.engine.Cancel(context.Background(), turned, rest.Cancel{}); err != nil {
		t.Fatal(err)
	}
	w.worker("a", shop(l))
	w.wait(ended, "succeeded")
	w.wait(turned, "compensated")
	unstarted := w.run(rest.Start{Workflow: "approval", ID: "unserved"})
	w.wait(waits, "succeeded")
	w.eventually("the run waits", w.awaits(unstarted))
	for _, c := range []struct {
		run, name string
		signal    rest.Signal
		kind      engine.Kind
		code      string
		field     string
	}{
		{"nope", "approval", yes("1"), engine.KindNotFound, "unknown_run", "run"},
		{unstarted, "assent", yes("1"), engine.KindNotFound, "unknown_signal", "name"},
		{unstarted, "", yes("1"), engine.KindInvalid, "required", "name"},
		{unstarted, "a\nb", yes("1"), engine.KindInvalid, "not_printable", "name"},
		{unstarted, "approval", rest.Signal{ID: string(make([]byte, 300))}, engine.KindInvalid, "too_long", "id"},
		{unstarted, "approval", rest.Signal{Payload: json.RawMessage(`{`)}, engine.KindInvalid, "not_json", "payload"},
		{unstarted, "approval", rest.Signal{Payload: json.RawMessage(fmt.Sprintf("%q", make([]byte, 100)))}, engine.KindTooLarge, "payload_too_large", "payload"},
		{ended, "approval", yes("2"), engine.KindConflict, "run_ended", ""},
		{ended, "approval", rest.Signal{ID: "s-1"}, engine.KindConflict, "not_allowed", ""},
		{turned, "approval", yes("2"), engine.KindConflict, "run_ended", ""},
	} {
		_, err := w.engine.Signal(context.Background(), c.run, c.name, c.signal)
		var own *engine.Error
		if !errors.As(err, &own) || own.Kind != c.kind || own.Code != c.code || own.Field != c.field {
			t.Errorf("%s to %s: %v (%+v), want %s of %q", c.name, c.run, err, own, c.code, c.field)
		}
	}
}

// TestTooManySignals keeps no more than the limit.
func TestTooManySignals(t *testing.T) {
	w := newWorld(t, func(c *engine.Config) { c.Limits.MaxSignals = 2 })
	w.start()
	w.register(approval())
	id := w.run(rest.Start{Workflow: "approval"})
	w.signal(id, yes("1"))
	w.signal(id, yes(""))
	_, err := w.engine.Signal(context.Background(), id, "approval", yes("3"))
	var own *engine.Error
	if !errors.As(err, &own) || own.Code != "too_many_signals" {
		t.Errorf("the third is answered %v", err)
	}
}

// TestCrashAroundASignal kills the engine at each commit of a run that waits for
// a signal, whose sender repeats it until it is answered.
func TestCrashAroundASignal(t *testing.T) {
	for _, early := range []bool{false, true} {
		for _, after := range []bool{false, true} {
			for at := 1; at <= 5; at++ {
				t.Run(fmt.Sprintf("early=%v/after=%v/commit=%d", early, after, at), func(t *testing.T) {
					t.Parallel()
					crashAroundASignal(t, early, after, at)
				})
			}
		}
	}
}

func crashAroundASignal(t *testing.T, early, after bool, at int) {
	w, l := newWorld(t, nil), newLedger()
	w.worker("a", shop(l))
	w.start()
	w.register(approval())
	w.stop()
	w.wrap = crashingAt(at, after)
	e := w.start()
	gone, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-e.Done()
		cancel()
	}()
	// send starts the run and signals it, as often as it takes.
	send := func(ctx context.Context) error {
		if _, err := w.engine.StartRun(ctx, rest.Start{Workflow: "approval", ID: "r"}); err != nil {
			return err
		}
		for !early && ctx.Err() == nil && !w.awaits("r")() {
			if d, err := w.engine.Run(ctx, "r"); err == nil && d.Ended != nil {
				break
			}
			<-time.After(2 * time.Millisecond)
		}
		_, err := w.engine.Signal(ctx, "r", "approval", yes("s-1"))
		return err
	}
	if err := send(gone); err == nil {
		_, _ = e.Wait(gone, "r", patience)
	}
	cancel()
	w.stop()
	w.wrap = nil
	w.start()
	if err := send(context.Background()); err != nil {
		t.Fatal(err)
	}
	w.wait("r", "succeeded")
	for _, key := range []string{"r/create/action/1", "r/deliver/action/1"} {
		if n := l.count(key); n != 1 {
			t.Errorf("%s: called %d times\n%s", key, n, w.history("r"))
		}
	}
	events, err := w.engine.History(context.Background(), "r")
	received := 0
	for _, e := range events {
		if e.Kind == "signal_received" {
			received++
		}
	}
	if err != nil || received != 1 {
		t.Errorf("the signal was received %d times, %v\n%s", received, err, w.history("r"))
	}
}

// TestManyRunsThatWait has many runs wait, some for a time and some for a signal:
// they are rows, of which a restart loads none, and each signal wakes its run.
func TestManyRunsThatWait(t *testing.T) {
	const runs = 1000
	b := definitions.Saga("patient")
	b.Step("nap").Sleep(24 * time.Hour).When("input.naps")
	b.Step("approve").WaitSignal("approval")
	w := newWorld(t, nil)
	w.start()
	w.register(b.MustBuild())
	starts := make([]rest.Start, runs)
	for i := range starts {
		starts[i] = rest.Start{Workflow: "patient", ID: fmt.Sprint("p-", i), Input: json.RawMessage(fmt.Sprintf(`{"naps":%v}`, i%2 == 0))}
	}
	for _, o := range w.engine.StartRuns(context.Background(), starts) {
		if o.Error != nil {
			t.Fatal(o.Error)
		}
	}
	w.stop()
	w.start()
	if s, err := w.engine.Stats(context.Background()); err != nil || s.Resident != 0 || s.Runs["patient"]["running"] != runs {
		t.Fatalf("%d runs are in memory, %v are there, %v", s.Resident, s.Runs, err)
	}
	var all sync.WaitGroup
	for i := range starts {
		all.Go(func() { w.signal(starts[i].ID, yes("s")) })
	}
	all.Wait()
	w.eventually("those that waited for nothing else have ended", func() bool {
		s, err := w.engine.Stats(context.Background())
		return err == nil && s.Runs["patient"]["succeeded"] == runs/2
	})
}
