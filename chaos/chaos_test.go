package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/chaos/internal/link"
	"github.com/ringmaster-dev/ringmaster/chaos/internal/plan"
)

func defaults() options {
	return options{
		seed: 7, runs: 100, faults: 10, orchestrators: 3, workers: 6, rabbits: 3, store: "postgres",
		lease: 3 * time.Second, settle: time.Minute, timeout: time.Minute,
	}
}

func TestBadOptionsAreNamed(t *testing.T) {
	for _, tt := range []struct {
		change func(*options)
		want   string
	}{
		{func(*options) {}, ""},
		{func(o *options) { o.runs = 0 }, "--runs: must be from 1"},
		{func(o *options) { o.faults = -1 }, "--faults: must be from 0"},
		{func(o *options) { o.store = "redis" }, `--store: must be postgres or sqlite, is "redis"`},
		{func(o *options) { o.store = "sqlite" }, "--orchestrators: a SQLite file serves one"},
		{func(o *options) { o.orchestrators = 0 }, "--orchestrators: must be from 1"},
		{func(o *options) { o.workers = 2 }, "--workers: must be from 3"},
		{func(o *options) { o.rabbits = 0 }, "--rabbit-nodes: must be 1 or 3"},
		{func(o *options) { o.lease = time.Millisecond }, "--lease-time: must be at least 1s"},
		{func(o *options) { o.settle = 0 }, "must be positive"},
	} {
		o := defaults()
		tt.change(&o)
		if err := o.check(); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want %q", err, tt.want)
		}
	}
}

func TestWhatIsStruckFollowsFromTheStore(t *testing.T) {
	o := defaults()
	if top := o.topology(); top.Members[plan.Postgres] != 1 || !reflect.DeepEqual(top.Disks, []plan.Role{plan.Books, plan.Postgres}) {
		t.Errorf("%+v", top)
	}
	o.store, o.orchestrators = "sqlite", 1
	if top := o.topology(); top.Members[plan.Postgres] != 0 || !reflect.DeepEqual(top.Disks, []plan.Role{plan.Books, plan.Orchestrator}) {
		t.Errorf("%+v", top)
	}
}

func TestMetricsAreSummedOverTheirLabels(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `# HELP ringmaster_tasks_in_flight Tasks at workers.
# TYPE ringmaster_tasks_in_flight gauge
ringmaster_tasks_in_flight{service="orders"} 3
ringmaster_tasks_in_flight{service="a b"} 4
ringmaster_runs_unfinished 1.2e+01
nonsense
`)
	}))
	defer server.Close()
	eyes := &surveyor{addresses: map[string]string{"orchestrator-1": strings.TrimPrefix(server.URL, "http://")}, last: survey{}}
	n, words := busyOrchestrator("orchestrator-1")(eyes.look(t.Context()))
	if n != 12 || words != "7 tasks out, 0 waiting, 12 runs" {
		t.Errorf("%d: %s", n, words)
	}
	server.Close()
	if n, _ := busyOrchestrator("orchestrator-1")(eyes.look(t.Context())); n != 12 {
		t.Errorf("%d of one that does not answer any more", n)
	}
	if n, words := busyServer(nil)(eyes.look(t.Context())); n != 0 || !strings.Contains(words, "nobody") {
		t.Errorf("%d: %s", n, words)
	}
}

// suffering is a victim that writes down what is done to it.
func suffering(t *testing.T) (*victim, *[]string) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	w, err := link.Listen(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	var did []string
	do := func(what string) func() error {
		return func() error { did = append(did, what); return nil }
	}
	return &victim{
		name: "it", kill: do("kill"), pause: do("pause"), resume: do("resume"), wires: []*link.Link{w},
		start:   func(context.Context) error { return do("start")() },
		restart: func(context.Context) (string, error) { return "it ended badly", do("restart")() },
	}, &did
}

func TestFaultsAreMadeAndEnded(t *testing.T) {
	for _, tt := range []struct {
		kind plan.Kind
		want []string
		note string
	}{
		{plan.Kill, []string{"kill", "start"}, ""},
		{plan.Pause, []string{"pause", "resume"}, ""},
		{plan.Restart, []string{"restart"}, "it ended badly"},
		{plan.Cut, nil, ""},
		{plan.Drop, nil, ""},
	} {
		v, did := suffering(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // nothing may stay broken, also when all is over
		note, err := v.suffer(ctx, plan.Fault{Kind: tt.kind, For: time.Hour})
		if err != nil || note != tt.note || !reflect.DeepEqual(*did, tt.want) {
			t.Errorf("%s: %v, %q, %v", tt.kind, *did, note, err)
		}
	}
	v, did := suffering(t)
	v.cutOff = func(context.Context) error { *did = append(*did, "cut off"); return nil }
	v.isolate = func(context.Context) error { *did = append(*did, "isolate"); return nil }
	v.heal = func(ctx context.Context) error { *did = append(*did, "heal"); return ctx.Err() }
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, kind := range []plan.Kind{plan.Cut, plan.Isolate} {
		if _, err := v.suffer(ctx, plan.Fault{Kind: kind, For: time.Hour}); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if want := []string{"cut off", "heal", "isolate", "heal"}; !reflect.DeepEqual(*did, want) {
		t.Errorf("%v, want %v", *did, want)
	}
	if _, err := v.suffer(t.Context(), plan.Fault{Kind: "flood"}); err == nil {
		t.Error("an unknown fault was made")
	}
}

// A disk of its own takes root; elsewhere it says so and is a directory.
func TestADiskIsFullUntilItIsCleared(t *testing.T) {
	d, err := newDisk(filepath.Join(t.TempDir(), "disk"), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close(false)
	write := func(name string) error { return os.WriteFile(d.under(name), make([]byte, 64<<10), 0o644) }
	if err := write("before"); err != nil {
		t.Fatal(err)
	}
	if err := d.fill(); !d.made {
		if !errors.Is(err, errNoDisk) {
			t.Errorf("filling what is not there: %v", err)
		}
		return
	} else if err != nil {
		t.Fatal(err)
	}
	if err := write("during"); err == nil {
		t.Error("a full disk took something")
	}
	if err := d.clear(); err != nil {
		t.Fatal(err)
	}
	if err := write("after"); err != nil {
		t.Error(err)
	}
	if err := d.close(true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(d.dir+"-kept", "after")); err != nil {
		t.Errorf("what was to be kept is gone: %v", err)
	}
}
