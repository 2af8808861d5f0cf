package engine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store"
)

var errCrash = errors.New("crashed by the test")

// crashing is a store that fails one commit as a crash would: before anything
// was written, or after all was but nobody was told.
type crashing struct {
	store.Store
	mu    sync.Mutex
	left  int // commits until the crash
	after bool
	dead  bool
}

func (c *crashing) Commit(parts []store.Part) ([]error, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return nil, errCrash
	}
	if c.left--; c.left > 0 {
		return c.Store.Commit(parts)
	}
	c.dead = true
	if c.after {
		if errs, err := c.Store.Commit(parts); err != nil || errs != nil {
			return errs, err
		}
	}
	return nil, errCrash
}

func crashingAt(at int, after bool) func(store.Store) store.Store {
	return func(s store.Store) store.Store { return &crashing{Store: s, left: at, after: after} }
}

// TestCrashAtEveryCommit kills the engine at each commit of a run that succeeds
// and of one that is compensated, before and after the commit is on disk. The
// worker lives on. After a restart each effect has happened, and handlers were
// called once for each key wherever the worker could tell.
func TestCrashAtEveryCommit(t *testing.T) {
	for _, failing := range []bool{false, true} {
		for _, after := range []bool{false, true} {
			for at := 1; at <= 7; at++ {
				t.Run(fmt.Sprintf("failing=%v/after=%v/commit=%d", failing, after, at), func(t *testing.T) {
					t.Parallel()
					crashOnce(t, failing, after, at)
				})
			}
		}
	}
}

func crashOnce(t *testing.T, failing, after bool, at int) {
	w, l := newWorld(t, nil), newLedger()
	h := shop(l)
	want := "succeeded"
	if failing {
		h["deliver"] = decline("no_address")
		want = "compensated"
	}
	w.worker("a", h)
	w.start()
	w.register(order())
	w.stop()
	start := rest.Start{Workflow: "order", ID: "o", Input: orderInput}
	e := w.crashAt(at, after, start)
	if r, err := e.Wait(context.Background(), "o", patience); err == nil && r.Status == "stalled" {
		// The pivot was declined, but by a second sending of the attempt; what
		// became of the first, only an operator can say.
		if _, err := e.Resolve(context.Background(), "o", rest.Settle{Reason: "looked it up"}); err != nil {
			t.Fatal(err)
		}
		w.eventually("the run ends", func() bool {
			d, err := e.Run(context.Background(), "o")
			return err == nil && d.Ended != nil
		})
	}
	w.wait("o", want)
	effects := []string{"o/create/action/1", "o/pay/action/1"}
	if failing {
		effects = append(effects, "o/pay/compensate/1", "o/create/compensate/1")
	} else {
		effects = append(effects, "o/deliver/action/1")
	}
	for _, key := range effects {
		if n := l.count(key); n != 1 {
			t.Errorf("%s: the handler was called %d times\n%v\n%s", key, n, l.order(), w.history("o"))
		}
	}
}

// crashAt starts an engine that crashes at a commit, starts a run, and starts
// an engine anew after the crash (or the run's end), and the run again.
func (w *world) crashAt(at int, after bool, start rest.Start) *engine.Engine {
	w.t.Helper()
	w.wrap = crashingAt(at, after)
	e := w.start()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func(gone <-chan struct{}) { // the client gives up on an orchestrator that is gone
		<-gone
		cancel()
	}(e.Done())
	if w.alongside != nil {
		go w.alongside(ctx, e)
	}
	if _, err := e.StartRun(ctx, start); err == nil {
		_, _ = e.Wait(ctx, start.ID, patience)
	}
	cancel()
	w.stop()
	w.wrap = nil
	e = w.start()
	if _, err := e.StartRun(context.Background(), start); err != nil {
		w.t.Fatal(err)
	}
	return e
}

// TestLongTaskSurvivesARestart restarts the orchestrator while a handler runs:
// the task is adopted, and not started a second time.
func TestLongTaskSurvivesARestart(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	h := shop(l)
	started, finish := make(chan struct{}, 10), make(chan struct{})
	h["pay"] = func(ctx context.Context, _ []byte) ([]byte, error) {
		l.apply(ctx)
		started <- struct{}{}
		<-finish
		return []byte(`{"amount":12}`), nil
	}
	w.worker("a", h)
	w.worker("b", h)
	w.start()
	w.register(order())
	id := w.run(rest.Start{Workflow: "order", Input: orderInput})
	<-started
	w.stop()
	e := w.start()
	w.eventually("the task is adopted", func() bool {
		d, err := e.Run(context.Background(), id)
		return err == nil && d.Steps[1].State == "running"
	})
	close(finish)
	w.wait(id, "succeeded")
	if n := l.count(id + "/pay/action/1"); n != 1 {
		t.Errorf("pay was started %d times", n)
	}
}

// severable is a broker whose connections can be cut for good, as those of a
// process that is killed.
type severable struct {
	broker.Broker
	mu    sync.Mutex
	conns []broker.Conn
}

func (s *severable) Open(ctx context.Context, o broker.Options) (broker.Conn, error) {
	c, err := s.Broker.Open(ctx, o)
	if err == nil {
		s.mu.Lock()
		s.conns = append(s.conns, c)
		s.mu.Unlock()
	}
	return c, err
}

func (s *severable) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_ = c.Close(ctx)
		cancel()
	}
}

// TestKilledWorkersTaskIsTriedElsewhere kills a worker under a running task.
func TestKilledWorkersTaskIsTriedElsewhere(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	w.start()
	w.register(order())
	doomed := &severable{Broker: w.broker}
	h := shop(l)
	hang, started := make(chan struct{}), make(chan struct{}, 10)
	h["pay"] = func(context.Context, []byte) ([]byte, error) {
		started <- struct{}{}
		<-hang
		return nil, errors.New("killed")
	}
	w.workerOn(doomed, "doomed", h)
	t.Cleanup(func() { close(hang) }) // before the worker is waited for
	id := w.run(rest.Start{Workflow: "order", Input: orderInput})
	<-started
	w.worker("heir", shop(l))
	doomed.kill()
	d := w.wait(id, "succeeded")
	if d.Steps[1].Attempts != 2 {
		t.Errorf("pay took %d attempts, not 2", d.Steps[1].Attempts)
	}
}

// TestTaskThatKillsItsWorkersIsIsolated has three workers die under a task:
// there is no fourth attempt, and the run turns back.
func TestTaskThatKillsItsWorkersIsIsolated(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	w.start()
	w.register(order())
	hang, started := make(chan struct{}), make(chan struct{}, 10)
	h := shop(l)
	h["pay"] = func(context.Context, []byte) ([]byte, error) {
		started <- struct{}{}
		<-hang
		return nil, errors.New("killed")
	}
	var id string
	for i := range 3 {
		doomed := &severable{Broker: w.broker}
		w.workerOn(doomed, fmt.Sprintf("doomed-%d", i), h)
		if i == 0 {
			id = w.run(rest.Start{Workflow: "order", Input: orderInput})
		}
		<-started
		// The next beat lists the task as running: the death counts.
		w.eventually("the task is known to run", func() bool {
			d, err := w.engine.Run(context.Background(), id)
			return err == nil && d.Steps[1].State == "running"
		})
		doomed.kill()
	}
	t.Cleanup(func() { close(hang) }) // before the workers are waited for
	w.worker("heir", shop(l))
	d := w.wait(id, "compensated")
	if d.Steps[1].Attempts != 3 {
		t.Errorf("pay took %d attempts, not 3", d.Steps[1].Attempts)
	}
	for _, key := range []string{"/pay/compensate/1", "/create/compensate/1"} {
		if n := l.count(id + key); n != 1 {
			t.Errorf("%s was called %d times", key, n)
		}
	}
}

// TestDrainMovesWhatWasNotStarted drains a worker with a full queue.
func TestDrainMovesWhatWasNotStarted(t *testing.T) {
	b := definitions.Saga("one").Service("shop")
	b.Step("pay").Action("pay").NoCompensation("a test")
	w, l := newWorld(t, nil), newLedger()
	e := w.start()
	w.register(b.MustBuild())
	release := make(chan struct{})
	running := make(chan struct{}, 100)
	leave := w.worker("first", handlers{"pay": func(ctx context.Context, in []byte) ([]byte, error) {
		running <- struct{}{}
		<-release
		return ok(l, "null")(ctx, in)
	}})
	var ids []string
	for range 60 {
		ids = append(ids, w.run(rest.Start{Workflow: "one"}))
	}
	for range 16 { // its concurrency
		<-running
	}
	w.eventually("the rest is queued at it", func() bool {
		ws, err := e.Workers(context.Background())
		return err == nil && len(ws) == 1 && ws[0].Outstanding == 60
	})
	w.worker("second", handlers{"pay": ok(l, "null")})
	if err := e.DrainWorker(context.Background(), mustWorker(t, e, "first")); err != nil {
		t.Fatal(err)
	}
	w.eventually("what was not started is done elsewhere", func() bool {
		s, err := e.Stats(context.Background())
		return err == nil && s.Runs["one"]["succeeded"] == 44
	})
	close(release)
	for _, id := range ids {
		if d := w.wait(id, "succeeded"); d.Steps[0].Attempts != 1 {
			t.Errorf("run %s took %d attempts", id, d.Steps[0].Attempts)
		}
		if n := l.count(id + "/pay/action/1"); n != 1 {
			t.Errorf("run %s: pay was called %d times", id, n)
		}
	}
	leave()
}

func mustWorker(t *testing.T, e *engine.Engine, name string) string {
	t.Helper()
	ws, err := e.Workers(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range ws {
		if w.Name == name {
			return w.ID
		}
	}
	t.Fatalf("no worker %s", name)
	return ""
}

// TestRestoredStoreSupersedesWhatWorkersKnew brings back an older copy of the
// store under a worker that lives on and has seen later epochs.
func TestRestoredStoreSupersedesWhatWorkersKnew(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	w.worker("a", shop(l))
	w.start()
	w.register(order())
	w.stop()
	file := filepath.Join(w.dir, "ringmaster.db")
	copied, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 { // epochs grow, and the worker sees them
		w.start()
		w.wait(w.run(rest.Start{Workflow: "order", ID: fmt.Sprint("before-", i), Input: orderInput}), "succeeded")
		w.stop()
	}
	_ = os.Remove(file + "-wal")
	_ = os.Remove(file + "-shm")
	if err := os.WriteFile(file, copied, 0o600); err != nil {
		t.Fatal(err)
	}
	// Epochs are at least the time in seconds: let it pass the three starts.
	pause(4 * time.Second)
	w.start()
	d := w.wait(w.run(rest.Start{Workflow: "order", ID: "after", Input: orderInput}), "succeeded")
	for _, s := range d.Steps {
		if s.Attempts != 1 {
			t.Errorf("%s took %d attempts: the worker refused some", s.Name, s.Attempts)
		}
	}
}
