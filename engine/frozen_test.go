package engine_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/broker/rabbit"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	lockpg "github.com/ringmaster-dev/ringmaster/lock/postgres"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store/postgres"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// The variables that make the test binary an orchestrator that is to be frozen.
const (
	frozenBroker    = "RINGMASTER_FROZEN_BROKER"
	frozenDB        = "RINGMASTER_FROZEN_DB"
	frozenSchema    = "RINGMASTER_FROZEN_SCHEMA"
	frozenNamespace = "RINGMASTER_FROZEN_NAMESPACE"
	frozenShards    = "RINGMASTER_FROZEN_SHARDS"
)

// frozenOrchestrator is an orchestrator in a process of its own.
func frozenOrchestrator() error {
	ctx := context.Background()
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("RINGMASTER_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	shards, _ := strconv.Atoi(os.Getenv(frozenShards))
	b, err := rabbit.New(rabbit.Config{URLs: []string{os.Getenv(frozenBroker)}})
	if err != nil {
		return err
	}
	st, err := postgres.Open(ctx, postgres.Config{URL: os.Getenv(frozenDB), Schema: os.Getenv(frozenSchema), Shards: uint32(shards), Conns: 4, Logger: log})
	if err != nil {
		return err
	}
	locks, err := lockpg.New(ctx, lockpg.Config{URL: os.Getenv(frozenDB), Schema: os.Getenv(frozenSchema) + "_l"})
	if err != nil {
		return err
	}
	e, err := engine.New(engine.Config{
		Store: st, Broker: b, Leases: locks, LeaseTime: time.Second, Node: "frozen", Namespace: os.Getenv(frozenNamespace),
		HeartbeatInterval: 50 * time.Millisecond, RecoveryGrace: 2 * time.Second, Logger: log,
	})
	if err != nil {
		return err
	}
	if err := e.Start(ctx); err != nil {
		return err
	}
	<-e.Done()
	return e.Err()
}

// TestAFrozenOwnerHasNoEffect stops the process of an orchestrator that owns half
// of the shards, while runs flow, over a real RabbitMQ and a real PostgreSQL. The
// other takes its shards over, and all runs end. When the process goes on it
// commits nothing and causes nothing: each effect is there once. Then it takes its
// part again.
func TestAFrozenOwnerHasNoEffect(t *testing.T) {
	const shards, runs = 6, 300
	tm := newTeam(t, shards)
	r := testenv.RabbitMQ(t)
	tm.broker = rabbitBroker(t, r)
	ns := tm.schema
	alive := tm.join(func(c *engine.Config) { c.Namespace = ns })
	ctx := context.Background()
	if _, err := alive.RegisterWorkflow(ctx, order().JSON()); err != nil {
		t.Fatal(err)
	}
	frozen := exec.Command(os.Args[0])
	frozen.Env = append(os.Environ(), frozenBroker+"="+r.URL, frozenDB+"="+tm.url, frozenSchema+"="+tm.schema,
		frozenNamespace+"="+ns, frozenShards+"="+strconv.Itoa(shards))
	frozen.Stderr = os.Stderr
	if err := frozen.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = frozen.Process.Kill(); _ = frozen.Wait() })
	signal := func(s syscall.Signal) {
		if err := frozen.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	owned := func(n int) {
		tm.eventually(fmt.Sprintf("the other process owns %d shards", n), func() bool {
			of := 0
			for shard := range uint32(shards) {
				owner, _, err := alive.store.Owner(ctx, shard)
				if err != nil {
					t.Fatal(err)
				}
				if strings.HasPrefix(owner, "frozen-") {
					of++
				}
			}
			return of == n && len(alive.Shards()) == shards-n
		})
	}
	owned(shards / 2)

	box, db := ledgerDB(ctx, filepath.Join(t.TempDir(), "worker.db"))
	t.Cleanup(func() { db.Close() })
	db.MustExec(`CREATE TABLE done (effect TEXT NOT NULL)`)
	midway, flowing := make(chan struct{}), 0
	h := func(ctx context.Context, _ []byte) ([]byte, error) {
		return box.Do(ctx, func(ctx context.Context, tx *sqlx.Tx) ([]byte, error) {
			if flowing++; flowing == runs { // a third of all; writers take turns at SQLite
				close(midway)
			}
			_, err := tx.ExecContext(ctx, `INSERT INTO done VALUES (?)`, worker.TaskFrom(ctx).IdempotencyKey)
			return []byte(`{"amount":1}`), err
		})
	}
	for i := range 2 {
		sdk, err := worker.New(worker.Config{
			Broker: tm.broker, Namespace: ns, Name: fmt.Sprint("w", i), Service: "shop", HeartbeatInterval: 50 * time.Millisecond, ResendAfter: time.Second, Logger: tm.logger(),
		})
		if err != nil {
			t.Fatal(err)
		}
		for typ := range shop(newLedger()) {
			sdk.HandleFunc(typ, h)
		}
		ctx, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() { defer close(done); _ = sdk.Run(ctx) }()
		t.Cleanup(func() { cancel(); <-done })
	}
	starts := make([]rest.Start, runs)
	for i := range starts {
		starts[i] = rest.Start{Workflow: "order", ID: fmt.Sprint("r", i), Input: orderInput}
	}
	for _, o := range alive.StartRuns(ctx, starts) {
		if o.Error != nil {
			t.Fatal(o.Error)
		}
	}
	<-midway
	signal(syscall.SIGSTOP)
	stopped := time.Now()
	owned(0)
	t.Logf("taken over after %v", time.Since(stopped).Round(time.Millisecond))
	tm.engine, tm.store = alive.Engine, alive.store
	defer func() { tm.engine = nil }()
	for i := range runs {
		tm.wait(fmt.Sprint("r", i), "succeeded")
	}
	signal(syscall.SIGCONT)
	owned(shards / 2) // it has found out, and takes part again
	late := alive.StartRuns(ctx, []rest.Start{{Workflow: "order", ID: "late-1", Input: orderInput}, {Workflow: "order", ID: "late-2", Input: orderInput}})
	for _, o := range late {
		if o.Error != nil {
			t.Fatal(o.Error)
		}
		tm.wait(o.Run.ID, "succeeded")
	}
	var n, distinct int
	if err := db.QueryRow(`SELECT count(*), count(DISTINCT effect) FROM done`).Scan(&n, &distinct); err != nil {
		t.Fatal(err)
	}
	if want := 3 * (runs + len(late)); n != want || distinct != want {
		t.Errorf("%d effects, %d different ones; want %d", n, distinct, want)
	}
	for _, r := range starts {
		if events, err := alive.History(ctx, r.ID); err != nil || len(events) == 0 || events[len(events)-1].Seq != uint64(len(events)) {
			t.Errorf("the history of %s has gaps (%d events, %v)", r.ID, len(events), err)
		}
	}
}
