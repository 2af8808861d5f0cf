package main

import (
	"encoding/json"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
)

// diagnose runs doctor and returns its findings by check.
func diagnose(t *testing.T, args ...string) map[string]finding {
	t.Helper()
	var out strings.Builder
	c := &cli{in: strings.NewReader(""), out: &out, err: io.Discard, now: time.Now}
	root := newRoot(c)
	root.SetArgs(append([]string{"doctor", "-o", "json", "--api", "http://127.0.0.1:1"}, args...))
	_ = root.ExecuteContext(t.Context()) // the diagnosis says what failed
	var d diagnosis
	if err := json.Unmarshal([]byte(out.String()), &d); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	found := map[string]finding{}
	for _, f := range d.Findings {
		found[f.Check] = f
	}
	return found
}

// Of a deployment on many machines, doctor looks at each node of the broker, at
// the server of the database and at what keeps the leases.
func TestDoctorLooksAtEveryPartOfADeployment(t *testing.T) {
	db, node := testenv.Postgres(t), testenv.RabbitMQ(t).URL
	nobody := "amqp://guest:secret@127.0.0.1:1/"
	found := diagnose(t, "--db", db, "--amqp-url", node+","+nobody)
	for check, want := range map[string][2]string{
		"store":  {"ok", "does not exist yet"},
		"server": {"ok", "settings are sound"},
		"leases": {"ok", "made at the first start"},
		"broker": {"warn", "1 of 2 nodes answer"},
	} {
		if f := found[check]; f.Result != want[0] || !strings.Contains(f.Found, want[1]) {
			t.Errorf("%s: %+v, want %q", check, f, want)
		}
	}
	if text := found["broker"].Found; !strings.Contains(text, "127.0.0.1:1 does not answer") || strings.Contains(text, "secret") {
		t.Error(text)
	}
	if f := diagnose(t, "--db", db, "--amqp-url", nobody+","+nobody)["broker"]; f.Result != "fail" {
		t.Errorf("no node answers: %+v", f)
	}

	d := newDrill(t, db)
	d.start() // makes what is kept in the database
	found = diagnose(t, "--db", db)
	for check, want := range map[string]string{"store": "is sound", "leases": "grants leases"} {
		if f := found[check]; f.Result != "ok" || !strings.Contains(f.Found, want) {
			t.Errorf("%s: %+v, want %q", check, f, want)
		}
	}
	if f := diagnose(t, "--db", db, "--leases", "etcd://127.0.0.1:1")["leases"]; f.Result != "fail" || f.Advice == "" {
		t.Errorf("nobody keeps leases: %+v", f)
	}
	if out, err := exec.CommandContext(t.Context(), "orchestrator", "doctor", "--db", db, "--leases", "etcd://127.0.0.1:1", "--api", d.client.URL()).CombinedOutput(); err == nil {
		t.Errorf("exit status 0:\n%s", out)
	}
}

func TestDoctorNamesSettingsOfAServerThatLoseData(t *testing.T) {
	server, err := testenv.StartPostgres(t.Context(), testenv.PostgresConfig{Settings: map[string]string{"full_page_writes": "off"}})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if f := diagnose(t, "--db", server.URL)["server"]; f.Result != "warn" || !strings.Contains(f.Found, "full_page_writes is off") {
		t.Errorf("%+v", f)
	}
}
