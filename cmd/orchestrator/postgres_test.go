package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker/rabbit"
	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// desk performs the steps of orders and counts each effect. As an inbox does, it
// tells a task that comes again by its key.
type desk struct {
	mu      sync.Mutex
	effects map[string]int // by run and phase
	done    map[string]bool
}

func (d *desk) handle(ctx context.Context, _ []byte) ([]byte, error) {
	task := worker.TaskFrom(ctx)
	if strings.HasSuffix(task.RunID, "7") && task.Type == "deliver" {
		return nil, worker.Final("no_such_street", nil)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.done[task.IdempotencyKey] {
		d.done[task.IdempotencyKey] = true
		d.effects[task.RunID+" "+task.Type]++
	}
	return nil, nil
}

func orderSaga() *definitions.Workflow {
	b := definitions.Saga("order").Service("desk")
	b.Step("create").Action("create").Compensation("cancel")
	b.Step("pay").Action("pay").Compensation("refund")
	b.Step("deliver").Action("deliver").Compensation("take-back")
	return b.MustBuild()
}

// serveDesk runs a worker that does all of it until the test ends.
func serveDesk(t *testing.T, amqpURL string) *desk {
	t.Helper()
	b, err := rabbit.New(rabbit.Config{URLs: []string{amqpURL}})
	if err != nil {
		t.Fatal(err)
	}
	sdk, err := worker.New(worker.Config{Broker: b, Service: "desk"})
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{effects: map[string]int{}, done: map[string]bool{}}
	for _, taskType := range []string{"create", "pay", "deliver", "cancel", "refund", "take-back"} {
		sdk.HandleFunc(taskType, d.handle)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- sdk.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return d
}

// S2, S5, S10: the database server is killed while orders flow, and started again.
// Everything that was acknowledged ends as it should, each effect once.
func TestOrdersOutliveTheDatabaseServer(t *testing.T) {
	server, err := testenv.StartPostgres(t.Context(), testenv.PostgresConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	broker := testenv.RabbitMQ(t)
	node := startDaemon(t, "dev", "--listen", "127.0.0.1:0", "--db", server.URL, "--broker", broker.URL)
	d, c := serveDesk(t, broker.URL), node.client(t)
	if _, err := c.Register(t.Context(), orderSaga()); err != nil {
		t.Fatal(err)
	}
	const orders = 200
	var wg sync.WaitGroup
	started := make(chan string, orders)
	for part := range 4 {
		wg.Go(func() {
			for i := part; i < orders; i += 4 {
				started <- startOrder(t, c, fmt.Sprint("order-", i))
			}
		})
	}
	for n := range orders {
		<-started
		if n == orders/4 || n == orders/2 {
			server.Kill()
			if err := server.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	wg.Wait()
	for i := range orders {
		id := fmt.Sprint("order-", i)
		run, err := c.Wait(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]int{"create": 1, "pay": 1, "deliver": 1}
		status := "succeeded"
		if strings.HasSuffix(id, "7") {
			want, status = map[string]int{"create": 1, "pay": 1, "refund": 1, "cancel": 1}, "compensated"
		}
		if run.Status != status {
			t.Errorf("%s is %s", id, run.Status)
		}
		for _, effect := range []string{"create", "pay", "deliver", "cancel", "refund", "take-back"} {
			if got := d.effects[id+" "+effect]; got != want[effect] {
				t.Errorf("%s: %s was done %d times, want %d", id, effect, got, want[effect])
			}
		}
	}
	node.end(t)
}

// startOrder starts a run, again until it is acknowledged.
func startOrder(t *testing.T, c *client.Client, id string) string {
	for {
		_, err := c.StartRun(t.Context(), rest.Start{Workflow: "order", ID: id, Input: json.RawMessage(`{}`)})
		if !errors.Is(err, client.ErrUnavailable) {
			if err != nil {
				t.Errorf("starting %s: %v", id, err)
			}
			return id
		}
		<-time.After(20 * time.Millisecond)
	}
}

func TestDoctorLooksAtPostgreSQL(t *testing.T) {
	db := testenv.Postgres(t)
	doctor := func(db string) string {
		var out strings.Builder
		c := &cli{in: strings.NewReader(""), out: &out, err: io.Discard, now: time.Now}
		root := newRoot(c)
		root.SetArgs([]string{"doctor", "--db", db, "--listen", "127.0.0.1:1"})
		_ = root.ExecuteContext(t.Context()) // what it finds is looked at
		return out.String()
	}
	has := func(out, want string) {
		t.Helper()
		if !strings.Contains(out, want) || strings.Contains(out, "fsync") {
			t.Errorf("want %q in\n%s", want, out)
		}
	}
	has(doctor(db), `schema "ringmaster" does not exist yet`)
	startDaemon(t, "dev", "--listen", "127.0.0.1:0", "--db", db).end(t)
	has(doctor(db), "is sound; 16 shards, 0 runs; a durable write takes")
	has(doctor("postgres://someone:secret@127.0.0.1:1/x"), "postgres://someone:***@127.0.0.1:1/x: ")
}

func TestPasswordsOfDatabasesAreMasked(t *testing.T) {
	for text, want := range map[string]string{
		"ringmaster.db":                                  "ringmaster.db",
		"postgres://u@h/d":                               "postgres://u@h/d",
		"postgres://u:p,q@h1:1,h2:2/d":                   "postgres://u:***@h1:1,h2:2/d",
		"postgres://h/d?user=u&password=p&sslpassword=q": "postgres://h/d?password=***&sslpassword=***&user=u",
		"postgres://u:p%zz@h/d":                          "postgres://***",
	} {
		if got := maskedDB(text); got != want {
			t.Errorf("%s is shown as %s, want %s", text, got, want)
		}
	}
}
