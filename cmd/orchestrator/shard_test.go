package main

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
)

// Shards lie in two databases. One is moved while orders flow, and each order ends as
// it should, with each effect once.
func TestOrdersOutliveAShardThatIsMoved(t *testing.T) {
	db := testenv.Postgres(t) + "," + testenv.Postgres(t)
	broker := testenv.RabbitMQ(t)
	node := startDaemon(t, "dev", "--listen", "127.0.0.1:0", "--db", db, "--broker", broker.URL, "--shards", "4")
	d, c := serveDesk(t, broker.URL), node.client(t)
	if _, err := c.Register(t.Context(), orderSaga()); err != nil {
		t.Fatal(err)
	}
	shard := func(want string, args ...string) {
		t.Helper()
		var out, problems strings.Builder
		cmd := &cli{in: strings.NewReader(""), out: &out, err: &problems, now: time.Now}
		root := newRoot(cmd)
		root.SetArgs(append([]string{"shard"}, append(args, "--db", db)...))
		if err := root.ExecuteContext(t.Context()); err != nil || !strings.Contains(out.String(), want) {
			t.Fatalf("shard %v: %v %s\n%s\nwant %q", args, err, &problems, &out, want)
		}
	}
	// Dealt out by turns.
	shard(`"shard": 2,`, "list", "-o", "json")
	const orders = 45
	for i := range orders {
		startOrder(t, c, fmt.Sprint("order-", i))
		if i == orders/3 {
			shard("shard 2 is in database 2", "move", "2", "2")
		}
		if i == 2*orders/3 {
			shard("shard 1 is in database 1", "move", "1", "1")
		}
	}
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
	n := 0
	for _, err := range c.All(t.Context(), client.Filter{Limit: 7}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != orders {
		t.Errorf("%d runs are listed, want %d", n, orders)
	}
	node.end(t)
	refused := &cli{in: strings.NewReader(""), out: io.Discard, err: io.Discard, now: time.Now}
	root := newRoot(refused)
	first, second, _ := strings.Cut(db, ",")
	root.SetArgs([]string{"shard", "list", "--db", second + "," + first})
	if err := root.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "databases keep their order") {
		t.Errorf("databases in another order: %v", err)
	}
}
