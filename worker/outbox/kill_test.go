package outbox_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/broker/rabbit"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
	"github.com/ringmaster-dev/ringmaster/worker/outbox"
)

// The variables that make the test binary a relay which kills itself.
const (
	childDriver  = "OUTBOX_CHILD_DRIVER"
	childDialect = "OUTBOX_CHILD_DIALECT"
	childDSN     = "OUTBOX_CHILD_DSN"
	childAMQP    = "OUTBOX_CHILD_AMQP"
)

func TestMain(m *testing.M) {
	if os.Getenv(childMarks) != "" {
		markingApplication()
	}
	if os.Getenv(childDriver) != "" {
		if os.Getenv(childAMQP) != "" {
			child()
		}
		application()
	}
	os.Exit(m.Run())
}

// child relays until its fifth message is confirmed, and then is gone: no row
// of the batch is removed.
func child() {
	ctx := context.Background()
	db := sqlx.MustOpen(os.Getenv(childDriver), os.Getenv(childDSN))
	d := outbox.Dialect(must(strconv.Atoi(os.Getenv(childDialect))))
	box := must(outbox.New(ctx, db, d, outbox.Options{Lease: time.Second, InFlight: 1}))
	br := must(rabbit.New(rabbit.Config{URLs: []string{os.Getenv(childAMQP)}}))
	n := 0
	err := outbox.NewRelay(box, fickle{br, func(ctx context.Context, c broker.Conn, m broker.Message) error {
		if err := c.PublishConfirmed(ctx, m); err != nil {
			return err
		}
		if n++; n == 5 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return nil
	}}).Run(ctx)
	panic(err)
}

// application takes orders until it is killed.
func application() {
	ctx := context.Background()
	db := sqlx.MustOpen(os.Getenv(childDriver), os.Getenv(childDSN))
	b := bench{db: db, dialect: outbox.Dialect(must(strconv.Atoi(os.Getenv(childDialect))))}
	b.box = must(outbox.New(ctx, db, b.dialect, outbox.Options{}))
	for g := range 4 {
		go func() {
			for i := 0; ; i++ {
				_ = b.order(ctx, fmt.Sprintf("order-%d-%d-%d", os.Getpid(), g, i))
			}
		}()
	}
	select {}
}

// An application is killed while it takes orders: each order has its request,
// and each request its order.
func TestAnApplicationThatIsKilledLeavesBothOrNeither(t *testing.T) {
	onEach(t, outbox.Options{}, func(t *testing.T, b bench) {
		for round := int64(1); round <= 2; round++ {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), childDriver+"="+b.driver, childDSN+"="+b.dsn, childDialect+"="+strconv.Itoa(int(b.dialect)))
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "orders are taken", func() bool {
				n, _, err := b.box.Pending(t.Context())
				return err == nil && n >= 20*round
			})
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		// A server may take a moment to end what the killed process had begun.
		var orders, keys []string
		eventually(t, "orders and requests are the same", func() bool {
			orders, keys = nil, nil
			return b.db.Select(&orders, `SELECT id FROM orders ORDER BY id`) == nil &&
				b.db.Select(&keys, `SELECT `+b.key()+` FROM ringmaster_outbox ORDER BY `+b.key()) == nil && slices.Equal(orders, keys)
		})
		if len(orders) < 40 {
			t.Fatalf("%d orders", len(orders))
		}
	})
}

// orchestrator starts one over RabbitMQ that knows the workflow "order".
func orchestrator(t *testing.T, br broker.Broker) *engine.Engine {
	t.Helper()
	st := must(sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "runs.db")}))
	t.Cleanup(func() { _ = st.Close() })
	e := must(engine.New(engine.Config{Store: st, Broker: br}))
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	wf := definitions.Saga("order")
	wf.Step("pay").Do(definitions.NewTask[any, any]("shop", "pay")).Pivot()
	if _, err := e.RegisterWorkflow(t.Context(), wf.MustBuild().JSON()); err != nil {
		t.Fatal(err)
	}
	return e
}

// A relay is killed when the broker has confirmed some rows of a batch and
// none of them was removed; another takes over. Every committed order has its
// run, once; the one that was rolled back has none.
func TestARelayKilledBetweenPublishAndRemoveStartsNoRunTwice(t *testing.T) {
	const orders = 20
	onEach(t, outbox.Options{Poll: 20 * time.Millisecond}, func(t *testing.T, b bench) {
		node := testenv.RabbitMQ(t)
		br := must(rabbit.New(rabbit.Config{URLs: []string{node.URL}}))
		e := orchestrator(t, br)
		for i := range orders {
			if err := b.order(t.Context(), fmt.Sprint("order-", i)); err != nil {
				t.Fatal(err)
			}
		}
		tx := must(b.db.Beginx())
		tx.MustExec(`INSERT INTO orders VALUES ('rolled-back')`)
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childDriver+"="+b.driver, childDSN+"="+b.dsn, childAMQP+"="+node.URL,
			childDialect+"="+strconv.Itoa(int(b.dialect)))
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			t.Fatalf("the child was not killed: %v\n%s", err, &out)
		}
		if n, _, err := b.box.Pending(t.Context()); err != nil || n != orders {
			t.Fatalf("%d rows left, %v", n, err)
		}
		b.relay(t, br)
		b.drained(t)
		runs := func() map[string]int {
			page, err := e.Runs(t.Context(), store.Filter{Workflow: "order", Limit: 1000})
			if err != nil {
				t.Fatal(err)
			}
			runs := map[string]int{}
			for _, r := range page.Runs {
				runs[r.ID]++
			}
			return runs
		}
		eventually(t, "every order has its run", func() bool { return len(runs()) >= orders })
		var ids []string
		if err := b.db.Select(&ids, `SELECT id FROM orders`); err != nil {
			t.Fatal(err)
		}
		got := runs()
		for _, id := range ids {
			if got[id] != 1 {
				t.Errorf("%s has %d runs", id, got[id])
			}
		}
		if len(ids) != orders || len(got) != orders {
			t.Errorf("%d orders, %d runs", len(ids), len(got))
		}
	})
}

// The connection is cut while rows leave: they all arrive.
func TestRowsSurviveTheLossOfTheConnection(t *testing.T) {
	const orders = 200
	onEach(t, outbox.Options{Batch: 20, MaxBackoff: 200 * time.Millisecond}, func(t *testing.T, b bench) {
		node := testenv.RabbitMQ(t)
		got := collect(t, must(rabbit.New(rabbit.Config{URLs: []string{node.URL}})))
		through, cut := proxy(t, node.URL)
		b.relay(t, must(rabbit.New(rabbit.Config{URLs: []string{through}})))
		for i := range orders {
			if i == orders/2 {
				eventually(t, "some have arrived", func() bool { return got.count() > orders/4 })
				cut()
			}
			if err := b.order(t.Context(), fmt.Sprint("order-", i)); err != nil {
				t.Fatal(err)
			}
		}
		b.drained(t)
		for i := range orders {
			eventually(t, "it arrives", func() bool { return len(got.of(fmt.Sprint("order-", i))) > 0 })
		}
	})
}

// proxy returns another address of a broker, and what cuts its connections.
func proxy(t *testing.T, address string) (through string, cut func()) {
	t.Helper()
	u := must(url.Parse(address))
	target := u.Host
	l := must(net.Listen("tcp4", "127.0.0.1:0"))
	t.Cleanup(func() { _ = l.Close() })
	u.Host = l.Addr().String()
	var mu sync.Mutex
	var open []net.Conn
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp4", target)
			if err != nil {
				_ = in.Close()
				continue
			}
			mu.Lock()
			open = append(open, in, out)
			mu.Unlock()
			for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
				go func() {
					_, _ = io.Copy(pair[0], pair[1])
					_, _ = pair[0].Close(), pair[1].Close()
				}()
			}
		}
	}()
	return u.String(), func() {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range open {
			_ = c.Close()
		}
		open = nil
	}
}
