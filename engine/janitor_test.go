package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store"
)

// retains has an engine remove runs as soon as they have ended.
func retains(cfg *engine.Config) { cfg.Retain = time.Nanosecond }

// gone waits until a run has been removed.
func (w *world) gone(id string) {
	w.t.Helper()
	w.eventually("run "+id+" is removed", func() bool {
		_, err := w.store.Run(context.Background(), id)
		return errors.Is(err, store.ErrNotFound)
	})
}

func TestAnEndedRunIsRemovedAndStaysKnown(t *testing.T) {
	w, l := newWorld(t, retains), newLedger()
	e, ctx := w.start(), context.Background()
	w.register(order())
	w.register(booking())
	w.worker("a", shop(l))
	w.worker("b", bookingHandlers(l))
	w.run(rest.Start{Workflow: "order", ID: "o-1", Input: orderInput, Tags: map[string]string{"region": "eu"}})
	w.run(rest.Start{Workflow: "booking", ID: "b-1"})
	w.gone("o-1")
	w.gone("b-1")

	for _, again := range []string{"at once", "after a restart"} {
		started, err := e.StartRun(ctx, rest.Start{Workflow: "order", ID: "o-1", Input: orderInput})
		if err != nil || started.Created || started.Status != "succeeded" || started.Version == "" {
			t.Errorf("%s, a repeated start is answered with %+v, %v", again, started, err)
		}
		_, err = e.StartRun(ctx, rest.Start{Workflow: "order", ID: "o-1", Input: []byte(`{"total": 13}`)})
		isError(t, err, engine.KindConflict, "id_taken")
		out := e.StartRuns(ctx, []rest.Start{{Workflow: "order", ID: "o-1", Input: orderInput}, {Workflow: "booking", ID: "o-1"}})
		if out[0].Run == nil || out[0].Run.Status != "succeeded" || out[1].Error == nil || out[1].Error.Status != 409 {
			t.Errorf("%s, a batch is answered with %+v", again, out)
		}

		_, err = e.Run(ctx, "o-1")
		isError(t, err, engine.KindGone, engine.CodeRemoved)
		var own *engine.Error
		if !errors.As(err, &own) || own.Removed == nil || own.Removed.Status != "succeeded" || own.Removed.Workflow != "order" ||
			own.Removed.KnownUntil == nil || own.Removed.Removed.Before(own.Removed.Ended) {
			t.Errorf("%s, what is known of the run is %+v", again, own)
		}
		if p := engine.Problem(err); p.Status != 410 || p.Removed == nil {
			t.Errorf("the problem is %+v", p)
		}
		for what, call := range map[string]func() error{
			"history": func() error { _, err := e.History(ctx, "o-1"); return err },
			"retry":   func() error { _, err := e.Retry(ctx, "o-1", rest.Settle{}); return err },
			"cancel":  func() error { _, err := e.Cancel(ctx, "o-1", rest.Cancel{}); return err },
			"signal":  func() error { _, err := e.Signal(ctx, "o-1", "s", rest.Signal{}); return err },
			"skip":    func() error { _, err := e.Skip(ctx, "o-1", rest.Settle{Reason: "r"}); return err },
		} {
			if err := call(); !errors.As(err, &own) || own.Kind != engine.KindGone {
				t.Errorf("%s, %s: the error is %v", again, what, err)
			}
		}
		r, err := e.Wait(ctx, "o-1", patience)
		if err != nil || r.Status != "succeeded" || r.Removed == nil || r.Ended == nil {
			t.Errorf("%s, a wait is answered with %+v, %v", again, r, err)
		}
		if d := w.decision("b-1"); d != "committed" {
			t.Errorf("T2: %s, the decision of the removed run is %s", again, d)
		}
		page, err := e.Runs(ctx, store.Filter{})
		if err != nil || len(page.Runs) != 0 {
			t.Errorf("%s, the list is %+v, %v", again, page, err)
		}
		w.stop()
		e = w.start()
	}
	if n := l.count("o-1/pay/action/1"); n > 1 {
		t.Errorf("S5: an effect of the removed run happened %d times", n)
	}
}

// A child that is gone would be started again by its parent.
func TestAChildStaysAsLongAsItsParent(t *testing.T) {
	w, l := newWorld(t, retains), newLedger()
	e := w.start()
	w.register(purchase())
	w.register(settlement())
	h := bank(l)
	let := make(chan struct{})
	h["ship"] = func(ctx context.Context, _ []byte) ([]byte, error) {
		<-let
		l.apply(ctx)
		return []byte("null"), nil
	}
	w.worker("a", h)
	w.worker("b", shop(l))
	w.register(order())
	w.run(rest.Start{Workflow: "purchase", ID: "p", Input: orderInput})
	w.eventually("the child ends", func() bool {
		r, err := w.store.Run(context.Background(), "p:settle:1")
		return err == nil && r.Status == store.StatusCommitted
	})
	for i := range 8 { // in each shard, some later than the child
		id := w.run(rest.Start{Workflow: "order", ID: fmt.Sprint("later-", i), Input: orderInput})
		w.gone(id)
	}
	if _, err := e.Run(context.Background(), "p:settle:1"); err != nil {
		t.Errorf("the child of a run that has not ended: %v", err)
	}
	close(let)
	w.gone("p")
	w.gone("p:settle:1")
}

func TestIdsAreForgottenAfterTheirHorizon(t *testing.T) {
	w, l := newWorld(t, func(cfg *engine.Config) {
		retains(cfg)
		cfg.RetainIDs, cfg.TaskLifetime = 200*time.Millisecond, 200*time.Millisecond
	}), newLedger()
	e, ctx := w.start(), context.Background()
	w.register(order())
	w.register(booking())
	w.worker("a", shop(l))
	w.worker("b", bookingHandlers(l))
	if d := w.decision("never-there"); d != "aborted" {
		t.Errorf("the decision is %s", d)
	}
	w.run(rest.Start{Workflow: "order", ID: "o-1", Input: orderInput})
	w.eventually("the tombstones go", func() bool {
		tombs, err := w.store.Tombstones(ctx, []string{"o-1", "never-there"})
		if err != nil {
			t.Fatal(err)
		}
		_, run := w.store.Run(ctx, "o-1")
		return len(tombs) == 0 && run != nil
	})
	for _, id := range []string{"o-1", "never-there"} {
		_, err := e.Run(ctx, id)
		isError(t, err, engine.KindNotFound, "unknown_run")
		// A shard remembers for a moment what it has told of an id.
		w.eventually("a run is started under id "+id, func() bool {
			started, err := e.StartRun(ctx, rest.Start{Workflow: "booking", ID: id})
			return err == nil && started.Created
		})
	}
}

func TestRunsAreKeptUntilTheArchiveHasThem(t *testing.T) {
	var (
		mu     sync.Mutex
		broken = true
		got    []store.Unfinished
	)
	w, l := newWorld(t, func(cfg *engine.Config) {
		retains(cfg)
		cfg.Archive = func(_ context.Context, runs []store.Unfinished) error {
			mu.Lock()
			defer mu.Unlock()
			if broken {
				return errors.New("the disk is full")
			}
			got = append(got, runs...)
			return nil
		}
	}), newLedger()
	w.start()
	w.register(order())
	w.worker("a", shop(l))
	w.run(rest.Start{Workflow: "order", ID: "o-1", Input: orderInput})
	w.wait("o-1", "succeeded")
	w.stop()
	e := w.start()
	if _, err := e.Run(context.Background(), "o-1"); err != nil {
		t.Errorf("without an archive: %v", err)
	}
	mu.Lock()
	broken = false
	mu.Unlock()
	w.gone("o-1")
	mu.Lock()
	defer mu.Unlock()
	if len(got) == 0 || got[0].Run.ID != "o-1" || len(got[0].History) == 0 {
		t.Errorf("the archive has %+v", got)
	}
}

func TestWithoutRetentionNothingIsRemoved(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	w.start()
	w.register(order())
	w.worker("a", shop(l))
	w.run(rest.Start{Workflow: "order", ID: "o-1", Input: orderInput})
	w.wait("o-1", "succeeded")
	w.stop()
	e := w.start()
	if _, err := e.Run(context.Background(), "o-1"); err != nil {
		t.Error(err)
	}
}

// Ended runs are removed while they flow and orchestrators come and go: each
// effect happens once, no child is started again, and every id stays known.
func TestOldRunsGoWhileShardsMove(t *testing.T) {
	const runs = 60
	tm, l := newTeam(t, 8), newLedger()
	tm.tune = retains
	last := tm.moving(bank(l), []*definitions.Workflow{purchase(), settlement()}, runs, func(int) []byte { return orderInput })
	ctx := context.Background()
	tm.eventually("all runs are removed", func() bool {
		page, err := last.store.List(ctx, store.Filter{})
		tombs, err2 := last.store.Buried(ctx, "", 10*runs)
		return errors.Join(err, err2) == nil && len(page.Runs) == 0 && len(tombs) == 2*runs
	})
	for n := range runs {
		id := fmt.Sprint("r", n)
		tm.effectsOf(l, id, whenBought...)
		started, err := last.StartRun(ctx, rest.Start{Workflow: "purchase", ID: id, Input: orderInput})
		if err != nil || started.Created || started.Status != "succeeded" {
			t.Errorf("S10: a repeated start is answered with %+v, %v", started, err)
		}
	}
}

// A start, and a participant's question, that come through the broker are answered
// after their run was removed.
func TestARemovedRunIsKnownOverRabbitMQ(t *testing.T) {
	w, l := newWorld(t, retains), newLedger()
	w.broker = rabbitBroker(t, testenv.RabbitMQ(t))
	w.start()
	w.register(booking())
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	sdk, _ := w.sdk(w.broker, "a", bookingHandlers(l))
	conn, err := w.broker.Open(ctx, broker.Options{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	start := protocol.EncodeRequest(protocol.RequestsQueue(""), &protocol.Request{
		Type: protocol.RequestStart, Body: []byte(`{"workflow":"booking","id":"b-1"}`),
	})
	for range 2 {
		if err := conn.PublishConfirmed(ctx, start); err != nil {
			t.Fatal(err)
		}
		w.eventually("the run has been removed", func() bool {
			tombs, err := w.store.Tombstones(ctx, []string{"b-1"})
			return err == nil && len(tombs) == 1
		})
	}
	if d, err := sdk.Decision(ctx, "b-1"); err != nil || d != protocol.Committed {
		t.Errorf("T2: the decision is %v, %v", d, err)
	}
	for key, n := range l.effects {
		if n != 1 {
			t.Errorf("S5: the effect of %s happened %d times", key, n)
		}
	}
}

// TestCrashAtEveryCommitUpToARemoval kills the engine before and after each commit
// of a run, its removal included. The run is removed in the end, was archived
// before, and its id stays known.
func TestCrashAtEveryCommitUpToARemoval(t *testing.T) {
	for _, after := range []bool{false, true} {
		for at := 1; at <= 6; at++ {
			t.Run(fmt.Sprintf("after=%v/commit=%d", after, at), func(t *testing.T) {
				t.Parallel()
				crashWithRemoval(t, after, at)
			})
		}
	}
}

func crashWithRemoval(t *testing.T, after bool, at int) {
	var archived atomic.Int64
	w, l := newWorld(t, func(cfg *engine.Config) {
		retains(cfg)
		cfg.Archive = func(_ context.Context, runs []store.Unfinished) error {
			archived.Add(int64(len(runs)))
			return nil
		}
	}), newLedger()
	w.worker("a", shop(l))
	w.start()
	w.register(order())
	w.stop()

	w.wrap = crashingAt(at, after)
	e, start := w.start(), rest.Start{Workflow: "order", ID: "o", Input: orderInput}
	_, _ = e.StartRun(lifeOf(t, e), start) // it may crash meanwhile
	w.eventually("the engine crashes, or the run is removed", func() bool {
		select {
		case <-e.Done():
			return true
		default:
			tombs, err := w.store.Tombstones(context.Background(), []string{"o"})
			return err == nil && len(tombs) == 1
		}
	})
	w.stop()
	w.wrap = nil
	e = w.start()
	if _, err := e.StartRun(context.Background(), start); err != nil {
		t.Fatal(err)
	}
	w.eventually("the run is removed", func() bool {
		tombs, err := w.store.Tombstones(context.Background(), []string{"o"})
		return err == nil && len(tombs) == 1
	})
	started, err := e.StartRun(context.Background(), start)
	if err != nil || started.Created || started.Status != "succeeded" {
		t.Errorf("S10: a repeated start is answered with %+v, %v", started, err)
	}
	if archived.Load() == 0 {
		t.Error("the run was removed, and not archived")
	}
	for _, key := range []string{"o/create/action/1", "o/pay/action/1", "o/deliver/action/1"} {
		if n := l.count(key); n != 1 {
			t.Errorf("S5: the effect of %s happened %d times", key, n)
		}
	}
}

func TestRetentionSettingsAreChecked(t *testing.T) {
	for says, tune := range map[string]func(*engine.Config){
		"Retain: must not be negative": func(c *engine.Config) { c.Retain = -1 },
		"at least TaskLifetime":        func(c *engine.Config) { c.RetainIDs = time.Hour },
	} {
		cfg := engine.Config{}
		tune(&cfg)
		if _, err := engine.New(cfg); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("the error is %v, not %q", err, says)
		}
	}
}

// Example_retention has ended runs be removed after 90 days, while their ids stay
// known for another year.
func Example_retention() {
	cfg := engine.Config{Retain: 90 * 24 * time.Hour, RetainIDs: 365 * 24 * time.Hour}
	fmt.Println(cfg.Retain, cfg.RetainIDs)
	// Output: 2160h0m0s 8760h0m0s
}
