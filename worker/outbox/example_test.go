package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/broker/memory"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/outbox"
)

type Order struct {
	Item string `json:"item"`
}

var Ship = definitions.NewTask[Order, string]("shop", "ship")

// A shop takes orders in its own database; each order that commits has a run,
// and one that does not has none.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	dir := must(os.MkdirTemp("", ""))
	defer os.RemoveAll(dir)

	// An orchestrator and a worker, here in the same process.
	broker := must(memory.New(memory.Config{}))
	store := must(sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(dir, "runs.db")}))
	orchestrator := must(engine.New(engine.Config{Store: store, Broker: broker}))
	shop := must(worker.New(worker.Config{Broker: broker, Service: "shop"}))
	shipping := make(chan string, 1)
	worker.Handle(shop, Ship, func(_ context.Context, o Order) (string, error) {
		shipping <- o.Item
		return o.Item + " is on its way", nil
	})
	go shop.Run(ctx)
	must("started", orchestrator.Start(ctx))
	defer orchestrator.Stop(ctx)
	order := definitions.Saga("order").Output("steps.ship.output")
	order.Step("ship").Do(Ship).Pivot()
	must(orchestrator.RegisterWorkflow(ctx, order.MustBuild().JSON()))

	// The application: its database, an outbox in it, and a relay.
	db := sqlx.MustOpen("sqlite3", "file:"+filepath.Join(dir, "shop.db")+"?_journal_mode=WAL&_txlock=immediate")
	defer db.Close()
	db.MustExec(`CREATE TABLE orders (id TEXT PRIMARY KEY, item TEXT NOT NULL)`)
	box := must(outbox.New(ctx, db, outbox.SQLite, outbox.Options{}))
	go outbox.NewRelay(box, broker).Run(ctx)
	take := func(id, item string) error {
		return box.Do(ctx, func(ctx context.Context, tx *sqlx.Tx) error {
			start := rest.Start{Workflow: "order", ID: id, Input: must(json.Marshal(Order{item}))}
			if _, err := box.Start(ctx, tx, start); err != nil {
				return err
			}
			if item == "unicorn" {
				return errors.New("sold out") // rolls back: no order, no run
			}
			_, err := tx.ExecContext(ctx, `INSERT INTO orders VALUES (?, ?)`, id, item)
			return err
		})
	}
	fmt.Println(take("order-1", "unicorn"))
	fmt.Println(take("order-2", "kettle"))

	fmt.Println("shipping the", <-shipping) // so the relay has been there
	run := must(orchestrator.Wait(ctx, "order-2", time.Minute))
	fmt.Println(run.ID, run.Status)
	_, err := orchestrator.Run(ctx, "order-1")
	fmt.Println(err)
	// Output:
	// sold out
	// <nil>
	// shipping the kettle
	// order-2 succeeded
	// id: there is no run "order-1"
}

// An order waits until it is paid. The payment is a row of the shop's own; the
// signal to the order's run leaves when that is committed, and after the start.
func ExampleOutbox_Signal() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	dir := must(os.MkdirTemp("", ""))
	defer os.RemoveAll(dir)

	broker := must(memory.New(memory.Config{}))
	store := must(sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(dir, "runs.db")}))
	orchestrator := must(engine.New(engine.Config{Store: store, Broker: broker}))
	must("started", orchestrator.Start(ctx))
	defer orchestrator.Stop(ctx)
	order := definitions.Saga("order").Output("steps.payment.output")
	order.Step("payment").WaitSignal("paid").Timeout(24 * time.Hour)
	must(orchestrator.RegisterWorkflow(ctx, order.MustBuild().JSON()))

	db := sqlx.MustOpen("sqlite3", "file:"+filepath.Join(dir, "shop.db")+"?_journal_mode=WAL&_txlock=immediate")
	defer db.Close()
	db.MustExec(`CREATE TABLE payments (receipt TEXT PRIMARY KEY)`)
	box := must(outbox.New(ctx, db, outbox.SQLite, outbox.Options{}))
	go outbox.NewRelay(box, broker).Run(ctx)

	fmt.Println(box.Do(ctx, func(ctx context.Context, tx *sqlx.Tx) error {
		_, err := box.Start(ctx, tx, rest.Start{Workflow: "order", ID: "order-1"})
		return err
	}))
	fmt.Println(box.Do(ctx, func(ctx context.Context, tx *sqlx.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO payments VALUES ('r-7')`); err != nil {
			return err
		}
		return box.Signal(ctx, tx, "order-1", "paid", rest.Signal{ID: "r-7", Payload: json.RawMessage(`"receipt r-7"`)})
	}))

	for {
		if run, err := orchestrator.Wait(ctx, "order-1", time.Minute); err == nil {
			fmt.Println(run.Status, string(must(orchestrator.Run(ctx, "order-1")).Output))
			break
		}
		time.Sleep(time.Millisecond) // the relay has not been there yet
	}
	// Output:
	// <nil>
	// <nil>
	// succeeded "receipt r-7"
}

// A shop marks the runs of its orders in the transactions that place them. What
// the check handler of its worker asks finds out which were placed, and keeps
// those from being placed later that were not.
func ExampleMarks() {
	ctx := context.Background()
	dir := must(os.MkdirTemp("", ""))
	defer os.RemoveAll(dir)
	db := sqlx.MustOpen("sqlite3", "file:"+filepath.Join(dir, "shop.db")+"?_journal_mode=WAL&_txlock=immediate")
	defer db.Close()
	db.MustExec(`CREATE TABLE orders (id TEXT PRIMARY KEY)`)
	marks := must(outbox.NewMarks(ctx, db, outbox.SQLite, ""))

	order := definitions.Saga("order").CheckBack(definitions.NewTask[Order, any]("shop", "check"), time.Minute)
	order.Step("ship").Do(Ship).Pivot()
	fmt.Println(order.MustBuild().Len(), "steps")

	place := func(id string) error {
		tx := must(db.Beginx())
		defer tx.Rollback() // of no effect after a commit
		if err := marks.Set(ctx, tx, id); err != nil {
			return err
		}
		tx.MustExecContext(ctx, `INSERT INTO orders VALUES (?)`, id)
		return tx.Commit()
	}
	fmt.Println(place("order-1"))
	for _, id := range []string{"order-1", "order-2"} {
		fmt.Println(must(marks.Committed(ctx, id)))
	}
	fmt.Println(place("order-2")) // too late
	// Output:
	// 3 steps
	// <nil>
	// true
	// false
	// outbox: run order-2: the run has been marked, or given up, already
}
