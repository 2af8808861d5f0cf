package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // for scripts that look at zones

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ringmaster-dev/ringmaster/api"
	"github.com/ringmaster-dev/ringmaster/broker/memory"
	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
	"github.com/ringmaster-dev/ringmaster/worker"
)

var updateScripts = flag.Bool("update", false, "rewrite what scripts compare with")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"orchestrator": main})
}

// The scripts run the command line itself, against an orchestrator with a
// worker in this process. What the worker does is said by a run's input:
// {"decline": true} fails the payment for good, {"stick": true} fails the
// undoing of it until an operator comes, {"hold": true} holds the payment
// until the run is cancelled.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: *updateScripts,
		Setup:         setUp,
		Cmds:          map[string]func(*testscript.TestScript, bool, []string){"plain": cmdPlain, "gone": cmdGone},
	})
}

// cmdPlain puts the last output into the file "plain", with what differs from
// run to run replaced: plain stdout|stderr.
func cmdPlain(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0])
	for _, r := range []struct{ what, with string }{
		{`[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`, "UUID"},
		{`\b[0-9a-f]{32}\b`, "VERSION"},
		{`\bshop-1-[0-9a-f]{8}\b`, "WORKER"},
		{`20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}( [A-Z0-9+-]+)?`, "CLOCK"},
		{`\bnow\b|([0-9.]+(ms|µs|s|m|h))+ ago`, "AGO"},
		{`([0-9.]+(ms|µs|s))+`, "TIME"},
		{` +\n`, "\n"},
		{`  +`, "  "},
	} {
		text = regexp.MustCompile(r.what).ReplaceAllString(text, r.with)
	}
	ts.Check(os.WriteFile(ts.MkAbs("plain"), []byte(text), 0o600))
}

// cmdGone waits until a run has been removed: gone ID.
func cmdGone(ts *testscript.TestScript, _ bool, args []string) {
	cl, err := client.New(client.Config{URL: ts.Getenv("RINGMASTER_API")})
	ts.Check(err)
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	for err == nil {
		_, err = cl.Get(ctx, args[0])
	}
	if !errors.Is(err, client.ErrRemoved) {
		ts.Fatalf("waiting until run %s is removed: %v", args[0], err)
	}
}

type sale struct {
	Decline, Stick, Hold bool
}

type paid struct {
	Receipt string `json:"receipt"`
}

func setUp(env *testscript.Env) error {
	env.Setenv("NO_COLOR", "1")
	env.Setenv("RINGMASTER_OPERATOR", "ana")
	ctx, stop := context.WithCancel(context.Background())
	env.Defer(stop)
	b, err := memory.New(memory.Config{})
	if err != nil {
		return err
	}
	st, err := sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(env.WorkDir, "served.db"), Shards: 2, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	retain, err := retention(filepath.Join(env.WorkDir, "retain"))
	if err != nil {
		return err
	}
	e, err := engine.New(engine.Config{Store: st, Broker: b, Node: "test", HeartbeatInterval: 50 * time.Millisecond, RecoveryGrace: -1, Retain: retain})
	if err != nil {
		return err
	}
	if err := e.Start(ctx); err != nil {
		return err
	}
	server := httptest.NewServer(api.New(api.Config{Service: e}))
	env.Setenv("RINGMASTER_API", server.URL)
	w, err := newTestWorker(worker.Config{Broker: b, Name: "shop-1", Service: "shop", HeartbeatInterval: 50 * time.Millisecond, DrainTimeout: -1})
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	env.Defer(func() {
		server.Close()
		stop()
		if err := <-done; err != nil {
			env.T().Log("worker:", err)
		}
		if err := errors.Join(e.Stop(context.Background()), st.Close()); err != nil {
			env.T().Log("engine:", err)
		}
	})
	return errors.Join(
		os.WriteFile(filepath.Join(env.WorkDir, "sale.json"), saleFlow().JSON(), 0o600),
		os.WriteFile(filepath.Join(env.WorkDir, "waits.json"), waitingFlow().JSON(), 0o600))
}

// retention is how long the orchestrator of a script keeps ended runs: what the
// script's file "retain" says.
func retention(path string) (time.Duration, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return time.ParseDuration(strings.TrimSpace(string(text)))
}

func saleFlow() *definitions.Workflow {
	b := definitions.Saga("sale").Service("shop").Output("steps.pay.output")
	b.Step("reserve").Action("reserve").Compensation("release").After()
	b.Step("pay").Action("pay").Compensation("refund").After("reserve").When("input != null").
		Input(`input`).Retry(definitions.RetryPolicy{MaxAttempts: 3, NonRetryable: []string{"card_declined"}}).
		CompensationRetry(definitions.RetryPolicy{Initial: time.Millisecond, MaxAttempts: 2})
	b.Step("invoice").Action("invoice").NoCompensation("an invoice is only a file").After("reserve")
	b.Step("ship").Action("ship").Pivot().After("pay", "invoice")
	b.Step("notify").Action("notify").After("ship")
	return b.MustBuild()
}

func waitingFlow() *definitions.Workflow {
	b := definitions.Saga("waits").Service("shop").Output("steps.approve.output")
	b.Step("reserve").Action("reserve").Compensation("release")
	b.Step("approve").WaitSignal("approval").Timeout(72 * time.Hour)
	b.Step("confirm").WaitSignal("confirmation")
	b.Step("route").Case("slow", "input.slow == true").Otherwise("quick")
	b.Step("cool-off").Sleep(time.Millisecond).Branch("route", "quick")
	b.Step("ship").Action("ship").Pivot()
	return b.MustBuild()
}

func newTestWorker(cfg worker.Config) (*worker.Worker, error) {
	w, err := worker.New(cfg)
	if err != nil {
		return nil, err
	}
	nothing := func(context.Context, sale) (struct{}, error) { return struct{}{}, nil }
	for _, task := range []string{"reserve", "release", "notify", "invoice"} {
		worker.Handle(w, definitions.NewTask[sale, struct{}]("shop", task), nothing)
	}
	worker.Handle(w, definitions.NewTask[json.RawMessage, struct{}]("shop", "closed"), func(context.Context, json.RawMessage) (struct{}, error) {
		return struct{}{}, worker.NoEffect(worker.Retryable("closed", errors.New("the shop is closed")))
	})
	worker.Handle(w, definitions.NewTask[sale, paid]("shop", "pay"), func(ctx context.Context, in sale) (paid, error) {
		if in.Hold {
			<-ctx.Done()
			return paid{}, worker.NoEffect(ctx.Err())
		}
		return paid{Receipt: "r-1"}, nil
	})
	worker.Handle(w, definitions.NewTask[sale, struct{}]("shop", "ship"), func(_ context.Context, in sale) (struct{}, error) {
		if in.Decline {
			return struct{}{}, worker.Final("out_of_stock", errors.New("no \x1b[31mred\x1b[0m ones left"))
		}
		return struct{}{}, nil
	})
	worker.Handle(w, definitions.NewTask[sale, json.RawMessage]("shop", "refund"), func(_ context.Context, in sale) (json.RawMessage, error) {
		if in.Stick {
			return nil, worker.Final("bank_closed", errors.New("the bank is closed"))
		}
		return nil, nil
	})
	return w, nil
}
