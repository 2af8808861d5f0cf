package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	_ "github.com/mattn/go-sqlite3"

	"github.com/ringmaster-dev/ringmaster/broker/rabbit"
	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/inbox"
)

// drill is a deployment that loses its database and gets a copy back: a daemon
// in a process of its own, and workers whose effects an inbox makes happen once.
type drill struct {
	t       *testing.T
	ctx     context.Context
	db      string   // of the daemon
	serve   []string // its arguments
	broker  string
	effects *sqlx.DB
	gate    chan struct{} // holds the payments of runs that ask for it
	daemon  *exec.Cmd
	client  *client.Client
	drain   func() error // the workers
}

type drillInput struct {
	Hold bool `json:"hold,omitempty"`
}

var (
	drillReserve = definitions.NewTask[drillInput, string]("drill", "reserve")
	drillPay     = definitions.NewTask[drillInput, string]("drill", "pay")
	drillShip    = definitions.NewTask[drillInput, string]("drill", "ship")
)

func drillFlow() *definitions.Workflow {
	b := definitions.Saga("drill").Service("drill")
	b.Step("reserve").Do(drillReserve).NoCompensation("the test looks at effects alone")
	b.Step("pay").Do(drillPay).NoCompensation("the test looks at effects alone")
	b.Step("ship").Do(drillShip).Pivot()
	return b.MustBuild()
}

func newDrill(t *testing.T, db string) *drill {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	d := &drill{t: t, ctx: ctx, broker: testenv.RabbitMQ(t).URL, gate: make(chan struct{})}
	d.useDB(db)
	var err error
	d.effects, err = sqlx.Open("sqlite3", "file:"+filepath.Join(t.TempDir(), "app.db")+"?_journal_mode=WAL&_synchronous=OFF&_txlock=immediate")
	d.check(err)
	d.effects.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = d.effects.Close() })
	_, err = d.effects.Exec("CREATE TABLE effects (run TEXT, step TEXT)")
	d.check(err)
	return d
}

// useDB has the daemon keep its state there from its next start on.
func (d *drill) useDB(db string) {
	d.db = db
	d.serve = []string{"serve", "--db", db, "--amqp-url", d.broker, "--listen", "127.0.0.1:0", "--log-format", "json", "--shards", "4"}
}

func (d *drill) register() {
	_, err := d.client.Register(d.ctx, drillFlow())
	d.check(err)
}

func (d *drill) check(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// start starts the daemon and waits until it serves.
func (d *drill) start() {
	d.t.Helper()
	d.daemon = exec.Command("orchestrator", d.serve...)
	log, err := d.daemon.StderrPipe()
	d.check(err)
	d.check(d.daemon.Start())
	daemon := d.daemon
	d.t.Cleanup(func() { _ = daemon.Process.Kill(); _ = daemon.Wait() })
	lines := bufio.NewScanner(log)
	var said bytes.Buffer
	for lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		var line struct{ Msg, API string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "serving" {
			go func() { _, _ = io.Copy(io.Discard, log) }()
			d.client, err = client.New(client.Config{URL: line.API})
			d.check(err)
			return
		}
	}
	d.t.Fatalf("the daemon does not serve:\n%s", &said)
}

func (d *drill) kill() {
	d.check(d.daemon.Process.Kill())
	_ = d.daemon.Wait() // it says that it was killed
	d.client.CloseIdleConnections()
}

// command runs a command line and returns what it printed.
func (d *drill) command(args ...string) string {
	d.t.Helper()
	out, err := exec.CommandContext(d.ctx, "orchestrator", args...).CombinedOutput()
	if err != nil {
		d.t.Fatalf("orchestrator %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (d *drill) startWorker() {
	d.t.Helper()
	b, err := rabbit.New(rabbit.Config{URLs: []string{d.broker}})
	d.check(err)
	w, err := worker.New(worker.Config{Broker: b, Service: "drill", Concurrency: 64, HeartbeatInterval: 200 * time.Millisecond})
	d.check(err)
	box, err := inbox.New(d.ctx, d.effects, inbox.SQLite, inbox.Options{})
	d.check(err)
	for _, task := range []string{"reserve", "pay", "ship"} {
		w.HandleFunc(task, func(ctx context.Context, payload []byte) ([]byte, error) {
			if task == "pay" && bytes.Contains(payload, []byte(`"hold":true`)) {
				select {
				case <-d.gate:
				case <-ctx.Done():
					return nil, worker.NoEffect(ctx.Err())
				}
			}
			return box.Do(ctx, func(ctx context.Context, tx *sqlx.Tx) ([]byte, error) {
				t := worker.TaskFrom(ctx)
				_, err := tx.ExecContext(ctx, "INSERT INTO effects (run, step) VALUES (?, ?)", t.RunID, t.Step)
				return []byte(`"done"`), err
			})
		})
	}
	ctx, stop := context.WithCancel(d.ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	d.drain = func() error {
		stop()
		return <-ended
	}
}

func (d *drill) startRuns(prefix string, n int, in drillInput) (ids []string) {
	d.t.Helper()
	input, err := json.Marshal(in)
	d.check(err)
	for i := range n {
		ids = append(ids, fmt.Sprintf("%s-%d", prefix, i))
		_, err := d.client.StartRun(d.ctx, rest.Start{Workflow: "drill", ID: ids[i], Input: input})
		d.check(err)
	}
	return ids
}

// succeeded waits for runs, and checks that each has had each effect once.
func (d *drill) succeeded(ids []string) {
	d.t.Helper()
	for _, id := range ids {
		run, err := d.client.Wait(d.ctx, id)
		if err != nil || run.Status != "succeeded" {
			d.t.Errorf("run %s is %s, %v", id, run.Status, err)
		}
	}
	d.once(ids)
}

func (d *drill) once(ids []string) {
	d.t.Helper()
	for _, id := range ids {
		var steps []string
		d.check(d.effects.Select(&steps, "SELECT step FROM effects WHERE run = ? ORDER BY rowid", id))
		if got := strings.Join(steps, " "); got != "reserve pay ship" {
			d.t.Errorf("the effects of run %s are %q", id, got)
		}
	}
}

// A copy is made while runs go on; the database is lost; the copy takes its
// place. What the copy knows goes on and ends, with each effect once, also of
// steps that were done since. What it does not know is gone, and says so.
func TestRunsGoOnFromARestoredCopy(t *testing.T) {
	for _, workersLive := range []bool{false, true} {
		t.Run(fmt.Sprintf("workers live on %t", workersLive), func(t *testing.T) {
			dir := t.TempDir()
			d := newDrill(t, filepath.Join(dir, "ringmaster.db"))
			copied := filepath.Join(dir, "copy.db")
			restoreDrill(d, workersLive,
				func() { d.command("backup", "--db", d.db, copied) },
				func() { d.command("restore", "--db", d.db, "--replace", copied) })
		})
	}
}

func restoreDrill(d *drill, workersLive bool, backup, restore func()) {
	d.start()
	d.startWorker()
	d.register()
	ended := d.startRuns("ended", 50, drillInput{})
	d.succeeded(ended)
	held := d.startRuns("held", 20, drillInput{Hold: true})

	// Runs start, go on and end while the copy is made.
	var flowing []string
	var enough atomic.Bool
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; !enough.Load(); i++ {
			flowing = append(flowing, d.startRuns(fmt.Sprintf("flowing-%d", i), 1, drillInput{})...)
		}
	}()
	backup()
	enough.Store(true)
	<-stopped
	late := d.startRuns("late", 20, drillInput{})
	close(d.gate)
	d.succeeded(held)
	d.succeeded(flowing)
	d.succeeded(late)

	d.kill()
	if !workersLive {
		_ = d.drain() // it says that nobody told it whether its last results are durable
	}
	restore()
	d.start()
	if !workersLive {
		d.startWorker()
	}
	d.succeeded(ended)
	d.succeeded(held)
	var known, gone []string
	for _, id := range flowing {
		switch _, err := d.client.Get(d.ctx, id); {
		case err == nil:
			known = append(known, id)
		case errors.Is(err, client.ErrNotFound):
			gone = append(gone, id)
		default:
			d.t.Fatal(err)
		}
	}
	d.t.Logf("of %d runs that flowed during the copy, it knows %d", len(flowing), len(known))
	d.succeeded(known)
	for _, id := range late {
		if _, err := d.client.Get(d.ctx, id); !errors.Is(err, client.ErrNotFound) {
			d.t.Errorf("run %s is younger than the copy: %v", id, err)
		}
	}
	// Whoever starts them again, as a client does that is not sure, finds what was done.
	for _, id := range append(gone, late...) {
		_, err := d.client.StartRun(d.ctx, rest.Start{Workflow: "drill", ID: id, Input: json.RawMessage(`{}`)})
		d.check(err)
	}
	d.succeeded(append(gone, late...))
	d.check(d.drain())
}
