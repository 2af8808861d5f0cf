package engine_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	_ "github.com/mattn/go-sqlite3"

	"github.com/ringmaster-dev/ringmaster/broker/rabbit"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/inbox"
)

// The variables that make the test binary a worker that is to be paused.
const (
	pausedBroker = "RINGMASTER_PAUSED_BROKER"
	pausedDB     = "RINGMASTER_PAUSED_DB"
)

func TestMain(m *testing.M) {
	if os.Getenv(pausedBroker) != "" {
		pausedWorker()
		return
	}
	if os.Getenv(frozenBroker) != "" {
		if err := frozenOrchestrator(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serial is a saga of two steps, one task of each customer at a time.
func serial() *definitions.Workflow {
	b := definitions.Saga("serial").Service("shop").RoutingKey("input.customer").Serial()
	b.Step("first").Action("first").Compensation("undo").
		Retry(definitions.RetryPolicy{Initial: time.Minute, MaxAttempts: 5})
	b.Step("second").Action("second").Pivot()
	return b.MustBuild()
}

// turns watches that no two tasks of a key are under way.
type turns struct {
	mu     sync.Mutex
	at     map[string]string
	tokens map[string]uint64
	faults []string
	order  []string // runs whose first step began
}

func (s *turns) handlers() handlers {
	f := func(ctx context.Context, _ []byte) ([]byte, error) {
		info := worker.TaskFrom(ctx)
		name := definitions.SerialPrefix + info.Workflow + "/" + info.RoutingKey
		s.mu.Lock()
		if other := s.at[name]; other != "" {
			s.faults = append(s.faults, info.IdempotencyKey+" beside "+other)
		}
		if token := info.Token(name); token <= s.tokens[name] {
			s.faults = append(s.faults, fmt.Sprintf("%s has token %d after %d", info.IdempotencyKey, token, s.tokens[name]))
		}
		s.at[name], s.tokens[name] = info.IdempotencyKey, info.Token(name)
		if info.Type == "first" {
			s.order = append(s.order, info.RunID)
		}
		s.mu.Unlock()
		s.mu.Lock()
		s.at[name] = ""
		s.mu.Unlock()
		return nil, nil
	}
	return handlers{"first": f, "second": f, "undo": f}
}

// TestTasksOfAKeyTakeTurns runs many runs of few customers over a real RabbitMQ,
// while workers come and go and the orchestrator is started again.
func TestTasksOfAKeyTakeTurns(t *testing.T) {
	w := newWorld(t, nil)
	w.broker = rabbitBroker(t, testenv.RabbitMQ(t))
	s := &turns{at: map[string]string{}, tokens: map[string]uint64{}}
	w.start()
	w.register(serial())
	leave := w.worker("a", s.handlers())
	w.worker("b", s.handlers())
	var starts []rest.Start
	for i := range 60 {
		starts = append(starts, rest.Start{Workflow: "serial", ID: fmt.Sprintf("s-%d", i), Input: fmt.Appendf(nil, `{"customer":"c-%d"}`, i%3)})
	}
	for i, o := range w.engine.StartRuns(context.Background(), starts) {
		if o.Error != nil {
			t.Fatal(o.Error)
		}
		switch i {
		case 20:
			w.worker("c", s.handlers())
			leave()
		case 40:
			w.stop()
			w.start()
		}
	}
	for _, r := range starts {
		w.wait(r.ID, "succeeded")
	}
	if len(s.faults) > 0 {
		t.Errorf("%d faults: %v", len(s.faults), s.faults)
	}
}

// pausedWorker is a worker that says so when its handler has begun, waits for a
// line, and then has its effect in the database.
func pausedWorker() {
	ctx := context.Background()
	b, err := rabbit.New(rabbit.Config{URLs: []string{os.Getenv(pausedBroker)}})
	if err != nil {
		panic(err)
	}
	box, _ := ledgerDB(ctx, os.Getenv(pausedDB))
	sdk, err := worker.New(worker.Config{Broker: b, Name: "paused", Service: "shop", HeartbeatInterval: 50 * time.Millisecond})
	if err != nil {
		panic(err)
	}
	in := bufio.NewReader(os.Stdin)
	sdk.HandleFunc("first", func(ctx context.Context, _ []byte) ([]byte, error) {
		fmt.Println("begun")
		_, _ = in.ReadString('\n')
		out, err := box.Do(ctx, record)
		var e *worker.Error
		if errors.As(err, &e) {
			fmt.Println(e.Code, e.Retryable)
		} else {
			fmt.Println("done", err)
		}
		return out, err
	})
	_ = sdk.Run(ctx)
}

// ledgerDB opens a database with an inbox and a table of effects.
func ledgerDB(ctx context.Context, path string) (*inbox.Inbox, *sqlx.DB) {
	db := sqlx.MustOpen("sqlite3", "file:"+path+"?_busy_timeout=10000&_journal_mode=WAL")
	box, err := inbox.New(ctx, db, inbox.SQLite, inbox.Options{})
	if err != nil {
		panic(err)
	}
	db.MustExecContext(ctx, `CREATE TABLE IF NOT EXISTS effects (run TEXT NOT NULL)`)
	return box, db
}

func record(ctx context.Context, tx *sqlx.Tx) ([]byte, error) {
	_, err := tx.ExecContext(ctx, `INSERT INTO effects VALUES (?)`, worker.TaskFrom(ctx).RunID)
	return nil, err
}

// TestAPausedWorkersEffectIsRefused stops a worker's process in its handler, over
// a real RabbitMQ. Its lease ends, the next task of the key runs elsewhere, and
// when it wakes up the inbox refuses its effect: it is not let in behind.
func TestAPausedWorkersEffectIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	r := testenv.RabbitMQ(t)
	w.broker = rabbitBroker(t, r)
	path := filepath.Join(t.TempDir(), "worker.db")
	box, db := ledgerDB(t.Context(), path)
	t.Cleanup(func() { db.Close() })
	w.start()
	w.register(serial())
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), pausedBroker+"="+r.URL, pausedDB+"="+path)
	child.Stderr = os.Stderr
	wake, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = child.Process.Kill(); _ = child.Wait() })
	says := bufio.NewScanner(out)
	start := func(id string) {
		w.run(rest.Start{Workflow: "serial", ID: id, Input: []byte(`{"customer":"c"}`)})
	}
	start("paused")
	if !says.Scan() || says.Text() != "begun" {
		t.Fatalf("the worker says %q", says.Text())
	}
	if err := child.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	start("next")
	h := func(ctx context.Context, _ []byte) ([]byte, error) { return box.Do(ctx, record) }
	w.worker("other", handlers{"first": h, "second": h, "undo": h})
	w.wait("next", "succeeded")
	if err := child.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if _, err := wake.Write([]byte("go on\n")); err != nil {
		t.Fatal(err)
	}
	if !says.Scan() || says.Text() != inbox.CodeStaleToken+" true" {
		t.Errorf("the paused worker says %q", says.Text())
	}
	var effects []string
	if err := db.Select(&effects, `SELECT run FROM effects ORDER BY rowid`); err != nil || strings.Join(effects, " ") != "next next" {
		t.Errorf("the effects are %q, %v", effects, err)
	}
	if _, err := w.engine.Cancel(context.Background(), "paused", rest.Cancel{Reason: "the test is over"}); err != nil {
		t.Fatal(err)
	}
	w.wait("paused", "compensated")
}
