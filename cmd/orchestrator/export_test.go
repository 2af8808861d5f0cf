package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store"
)

// approved waits for a signal between two steps.
func approved() *definitions.Workflow {
	b := definitions.Saga("approved").Service("desk")
	b.Step("create").Action("create").Compensation("cancel")
	b.Step("approve").WaitSignal("approval")
	b.Step("deliver").Action("deliver").Compensation("take-back")
	return b.MustBuild()
}

// command runs a command line and returns its exit status and what it printed.
func command(args ...string) (int, string) {
	var out bytes.Buffer
	status := run(args, strings.NewReader(""), &out, &out)
	return status, out.String()
}

// A deployment moves from SQLite to PostgreSQL while runs wait; those go on there,
// each effect once. As long as an orchestrator has the database, nothing is brought
// into it.
func TestADeploymentMovesFromSQLiteToPostgreSQL(t *testing.T) {
	server, err := testenv.StartPostgres(t.Context(), testenv.PostgresConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	broker, dir := testenv.RabbitMQ(t), t.TempDir()
	old, file := filepath.Join(dir, "old.db"), filepath.Join(dir, "all.jsonl")
	node := startDaemon(t, "dev", "--listen", "127.0.0.1:0", "--db", old, "--broker", broker.URL)
	d, c := serveDesk(t, broker.URL), node.client(t)
	for _, wf := range []*definitions.Workflow{orderSaga(), approved()} {
		if _, err := c.Register(t.Context(), wf); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []rest.Start{{Workflow: "order", ID: "done"}, {Workflow: "order", ID: "undone-7"}, {Workflow: "approved", ID: "waits"}} {
		s.Input = json.RawMessage(`{}`)
		if _, err := c.StartRun(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	for id, status := range map[string]string{"done": "succeeded", "undone-7": "compensated"} {
		if r, err := c.Wait(t.Context(), id); err != nil || r.Status != status {
			t.Fatalf("run %s: %s, %v", id, r.Status, err)
		}
	}
	node.end(t)

	if status, text := command("export", "--db", old, "--all", file); status != exitDone {
		t.Fatalf("export: %d\n%s", status, text)
	}
	if status, text := command("import", "--db", server.URL, "--shards", "5", file); status != exitDone || !strings.Contains(text, "3 runs, of which 1 have not ended") {
		t.Fatalf("import: %d\n%s", status, text)
	}
	node = startDaemon(t, "dev", "--listen", "127.0.0.1:0", "--db", server.URL, "--broker", broker.URL)
	c = node.client(t)
	if _, err := c.Signal(t.Context(), "waits", "approval", rest.Signal{}); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Wait(t.Context(), "waits"); err != nil || r.Status != "succeeded" {
		t.Fatalf("the run that waited: %s, %v", r.Status, err)
	}
	for _, effect := range []string{"waits create", "waits deliver", "done pay", "undone-7 refund"} {
		if n := d.effects[effect]; n != 1 {
			t.Errorf("S5: %s was done %d times", effect, n)
		}
	}
	for _, id := range []string{"done", "undone-7"} { // whose shards have their owner then
		started, err := c.StartRun(t.Context(), rest.Start{Workflow: "order", ID: id, Input: json.RawMessage(`{}`)})
		if err != nil || started.Created {
			t.Errorf("S10: a repeated start is answered with %+v, %v", started, err)
		}
	}
	more := filepath.Join(dir, "more.jsonl")
	if status, text := command("export", "--db", server.URL, "--status", "succeeded", more); status != exitDone {
		t.Fatalf("export: %d\n%s", status, text)
	}
	if status, text := command("export", "--db", server.URL, "--status", "succeeded", "--remove", more); status != exitFailed || !strings.Contains(text, "owns the shard: stop the orchestrators") {
		t.Errorf("--remove from a database that is in use: %d\n%s", status, text)
	}
	other := filepath.Join(dir, "other.jsonl")
	if err := os.WriteFile(other, []byte(`{"ringmaster":{"format":1,"kind":"archive","written":"2026-03-04T05:06:07Z"}}
{"tombstone":{"id":"done","status":"aborted","buried":"2026-03-04T05:06:07Z"}}
{"tombstone":{"id":"`+idBeside("done", 5)+`","status":"aborted","buried":"2026-03-04T05:06:07Z"}}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, text := command("import", "--db", server.URL, other); status != exitFailed || !strings.Contains(text, "owns the shard: stop the orchestrators") {
		t.Errorf("import into a database that is in use: %d\n%s", status, text)
	}
	// The API and the database tell the same.
	_, live := command("export", "--api", c.URL())
	_, direct := command("export", "--db", server.URL)
	if a, b := exported(live), exported(direct); len(a) != 3 || !slices.Equal(a, b) {
		t.Errorf("the API exports\n%s\nand the database\n%s", strings.Join(a, "\n"), strings.Join(b, "\n"))
	}
	node.end(t)
}

// idBeside is another id of the same shard.
func idBeside(id string, shards uint32) string {
	for i := 0; ; i++ {
		if other := fmt.Sprint(id, i); store.ShardOf(other, shards) == store.ShardOf(id, shards) {
			return other
		}
	}
}

// exported are the runs of an export.
func exported(text string) []string {
	return slices.DeleteFunc(strings.Split(text, "\n"), func(l string) bool { return !strings.HasPrefix(l, `{"run"`) })
}
