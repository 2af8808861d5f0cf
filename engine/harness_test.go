package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/broker/memory"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// patience bounds every wait of these tests; none depends on how fast the
// machine is.
const patience = 60 * time.Second

// world is an engine with a real store and an in-process broker.
type world struct {
	t      *testing.T
	dir    string
	broker broker.Broker
	store  store.Store
	wrap   func(store.Store) store.Store // puts faults between engine and store
	engine *engine.Engine
	tune   func(*engine.Config)
	log    *slog.Logger // of everything; nil: see logger

	alongside func(context.Context, *engine.Engine) // what else is begun before a crash; see crashAt
}

func newWorld(t *testing.T, tune func(*engine.Config)) *world {
	t.Helper()
	b, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: t.TempDir(), broker: b, tune: tune}
	t.Cleanup(w.stop)
	return w
}

func (w *world) logger() *slog.Logger {
	if w.log != nil {
		return w.log
	}
	if os.Getenv("RINGMASTER_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// start opens the store and starts an engine on it.
func (w *world) start() *engine.Engine {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	st, err := sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(w.dir, "ringmaster.db"), Shards: 4, Logger: w.logger()})
	if err != nil {
		w.t.Fatal(err)
	}
	w.store = st
	cfg := engine.Config{
		Store: st, Broker: w.broker, Node: "test", HeartbeatInterval: 50 * time.Millisecond,
		RecoveryGrace: 300 * time.Millisecond, Logger: w.logger(),
	}
	if w.wrap != nil {
		cfg.Store = w.wrap(st)
	}
	if w.tune != nil {
		w.tune(&cfg)
	}
	if w.engine, err = engine.New(cfg); err != nil {
		w.t.Fatal(err)
	}
	if err := w.engine.Start(ctx); err != nil {
		w.t.Fatal(err)
	}
	return w.engine
}

// stop ends the engine and closes the store.
func (w *world) stop() {
	if w.engine == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := w.engine.Stop(ctx); err != nil {
		w.t.Error(err)
	}
	if err := w.store.Close(); err != nil {
		w.t.Error(err)
	}
	w.engine = nil
}

// register registers a workflow.
func (w *world) register(wf *definitions.Workflow) {
	w.t.Helper()
	if _, err := w.engine.RegisterWorkflow(context.Background(), wf.JSON()); err != nil {
		w.t.Fatal(err)
	}
}

// run starts a run and returns its id.
func (w *world) run(s rest.Start) string {
	w.t.Helper()
	started, err := w.engine.StartRun(context.Background(), s)
	if err != nil {
		w.t.Fatal(err)
	}
	return started.ID
}

// wait waits until a run has ended or stalled, and checks its status.
func (w *world) wait(id, status string) rest.RunDetail {
	w.t.Helper()
	r, err := w.engine.Wait(context.Background(), id, patience)
	if err != nil {
		w.t.Fatal(err)
	}
	d, err := w.engine.Run(context.Background(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	if r.Status != status {
		w.t.Fatalf("run %s is %s (%s), not %s\n%s", id, r.Status, r.Error, status, w.history(id))
	}
	return d
}

// eventually waits for a condition that no event tells of.
func (w *world) eventually(what string, cond func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(deadline) {
			w.t.Fatalf("not in time: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

func (w *world) history(id string) string {
	events, err := w.engine.History(context.Background(), id)
	if err != nil {
		return err.Error()
	}
	text := ""
	for _, e := range events {
		text += fmt.Sprintf("%3d %s\n", e.Seq, e.Text)
	}
	return text
}

// ledger counts effects by idempotency key, as a service's database would.
type ledger struct {
	mu      sync.Mutex
	effects map[string]int
	calls   []string // step/phase in order of the calls
}

func newLedger() *ledger { return &ledger{effects: map[string]int{}} }

// apply has an effect once per key.
func (l *ledger) apply(ctx context.Context) {
	info := worker.TaskFrom(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, info.Step+"/"+info.Phase.String())
	l.effects[info.IdempotencyKey]++
}

func (l *ledger) count(key string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.effects[key]
}

func (l *ledger) order() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.calls...)
}

// handlers maps task types to what they do.
type handlers map[string]func(context.Context, []byte) ([]byte, error)

// worker starts a worker; the function returned drains and ends it.
func (w *world) worker(name string, h handlers) (leave func()) {
	w.t.Helper()
	return w.workerOn(w.broker, name, h)
}

func (w *world) workerOn(b broker.Broker, name string, h handlers) (leave func()) {
	w.t.Helper()
	_, leave = w.sdk(b, name, h)
	return leave
}

// sdk is workerOn with the worker itself.
func (w *world) sdk(b broker.Broker, name string, h handlers) (sdk *worker.Worker, leave func()) {
	w.t.Helper()
	return w.tuned(worker.Config{Broker: b, Name: name}, h)
}

// tuned is sdk for a worker with settings of its own.
func (w *world) tuned(c worker.Config, h handlers) (sdk *worker.Worker, leave func()) {
	w.t.Helper()
	b, name := c.Broker, c.Name
	c.Service, c.HeartbeatInterval, c.Logger = "shop", 50*time.Millisecond, w.logger()
	c.SettleTimeout, c.DrainTimeout, c.ResendAfter = 20*time.Second, 5*time.Second, time.Second
	if b != w.broker { // to be killed
		c.SettleTimeout = time.Millisecond
	}
	sdk, err := worker.New(c)
	if err != nil {
		w.t.Fatal(err)
	}
	for typ, f := range h {
		sdk.HandleFunc(typ, f)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sdk.Run(ctx) }()
	var once sync.Once
	leave = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil && b == w.broker { // others are killed
					w.t.Errorf("worker %s: %v", name, err)
				}
			case <-time.After(patience):
				w.t.Errorf("worker %s does not end", name)
			}
		})
	}
	w.t.Cleanup(leave)
	return sdk, leave
}

// ok is a handler that applies its effect to a ledger and answers with JSON.
func ok(l *ledger, output string) func(context.Context, []byte) ([]byte, error) {
	return func(ctx context.Context, _ []byte) ([]byte, error) {
		l.apply(ctx)
		return []byte(output), nil
	}
}

func decline(code string) func(context.Context, []byte) ([]byte, error) {
	return func(context.Context, []byte) ([]byte, error) {
		return nil, worker.Final(code, errors.New("no"))
	}
}

// order is a three-step saga.
func order() *definitions.Workflow {
	b := definitions.Saga("order").Service("shop").Output("{'paid': steps.pay.output.amount}")
	b.Step("create").Action("create").Compensation("uncreate")
	b.Step("pay").Action("pay").Compensation("refund").Input("{'amount': input.total}").
		Retry(definitions.RetryPolicy{Initial: time.Millisecond, Max: 10 * time.Millisecond, MaxAttempts: 20})
	b.Step("deliver").Action("deliver").Pivot().
		Retry(definitions.RetryPolicy{Initial: time.Millisecond, Max: 10 * time.Millisecond, MaxAttempts: 20})
	return b.MustBuild()
}

func shop(l *ledger) handlers {
	return handlers{
		"create": ok(l, `{"id":7}`), "uncreate": ok(l, `null`), "pay": ok(l, `{"amount":12}`),
		"refund": ok(l, `null`), "deliver": ok(l, `{}`),
	}
}

var orderInput = json.RawMessage(`{"total": 12}`)
