package docstest

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringmaster-dev/ringmaster/api"
	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/broker/memory"
	"github.com/ringmaster-dev/ringmaster/broker/rabbit"
	"github.com/ringmaster-dev/ringmaster/cmd/worker/relay"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store/postgres"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/outbox"
)

// metric is one metric as the page or the code describes it.
type metric struct {
	kind   string // counter, gauge or histogram; empty where that cannot be seen
	labels []string
}

// recorder is a Registerer that notes the descriptors of whatever is
// registered, so that a vector counts before it has children.
type recorder struct {
	*prometheus.Registry
	mu    sync.Mutex
	found map[string]metric
}

func newRecorder() *recorder {
	return &recorder{Registry: prometheus.NewRegistry(), found: map[string]metric{}}
}

func (r *recorder) Register(c prometheus.Collector) error {
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		c.Describe(descs)
	}()
	kind := ""
	switch c.(type) {
	case *prometheus.CounterVec, prometheus.Counter:
		kind = "counter" // a Gauge has a Counter's methods, so it goes after
		if _, ok := c.(prometheus.Gauge); ok {
			kind = "gauge"
		}
	case *prometheus.GaugeVec:
		kind = "gauge"
	case *prometheus.HistogramVec, prometheus.Histogram:
		kind = "histogram"
	}
	for d := range descs {
		r.note(d, kind)
	}
	return r.Registry.Register(c)
}

func (r *recorder) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		if err := r.Register(c); err != nil {
			panic(err)
		}
	}
}

var descPattern = regexp.MustCompile(`^Desc\{fqName: "([^"]+)", help: .*, constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

func (r *recorder) note(d *prometheus.Desc, kind string) {
	m := descPattern.FindStringSubmatch(d.String())
	if m == nil {
		panic("a descriptor that is not understood: " + d.String())
	}
	var labels []string
	for _, l := range strings.Split(m[2]+","+m[3], ",") {
		name, _, _ := strings.Cut(l, "=")
		if name != "" {
			labels = append(labels, name)
		}
	}
	slices.Sort(labels)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.found[m[1]] = metric{kind, labels}
}

// kinds fills in the kinds of metrics that have values by now.
func (r *recorder) kinds(t *testing.T) {
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		m := r.found[f.GetName()]
		m.kind = strings.ToLower(f.GetType().String())
		r.found[f.GetName()] = m
	}
}

var rowPattern = regexp.MustCompile("(?m)^\\| `(ringmaster_[a-z_]+)` \\| ([a-z]+) \\| *([^|]*?) *\\|")

// documented reads the tables of the page.
func documented(t *testing.T, page string) map[string]metric {
	t.Helper()
	found := map[string]metric{}
	for _, m := range rowPattern.FindAllStringSubmatch(page, -1) {
		if _, twice := found[m[1]]; twice {
			t.Errorf("%s is described twice", m[1])
		}
		var labels []string
		for _, l := range strings.Split(m[3], ",") {
			if l = strings.Trim(l, " `"); l != "" {
				labels = append(labels, l)
			}
		}
		slices.Sort(labels)
		found[m[1]] = metric{m[2], labels}
	}
	return found
}

var namePattern = regexp.MustCompile(`ringmaster_[a-z_]+`)

// The page describes every metric that the programs have, with its type and
// labels, and no other.
func TestMetricsPage(t *testing.T) {
	page := read(t, "docs/metrics.md")
	described, real := documented(t, page), registered(t)
	for _, name := range slices.Sorted(maps.Keys(real)) {
		m, ok := described[name]
		switch {
		case !strings.HasPrefix(name, "ringmaster_"):
			t.Errorf("%s: a metric's name begins with ringmaster_", name)
		case !ok:
			t.Errorf("%s (%s, labels %q) is not described", name, real[name].kind, real[name].labels)
		case real[name].kind != "" && m.kind != real[name].kind:
			t.Errorf("%s is a %s, and described as a %s", name, real[name].kind, m.kind)
		case !slices.Equal(m.labels, real[name].labels):
			t.Errorf("%s has the labels %q, and is described with %q", name, real[name].labels, m.labels)
		}
	}
	for _, name := range namePattern.FindAllString(page, -1) {
		for _, suffix := range []string{"_bucket", "_count", "_sum"} {
			if base, ok := strings.CutSuffix(name, suffix); ok && real[base].kind == "histogram" {
				name = base
			}
		}
		if _, ok := real[name]; !ok {
			t.Errorf("the page names %s, which no program has", name)
		}
	}
}

// registered runs a saga with everything that has metrics and returns them.
func registered(t *testing.T) map[string]metric {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r := newRecorder()
	b, err := memory.New(memory.Config{})
	check(t, err)
	store, err := sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(t.TempDir(), "test.db"), Registerer: r})
	check(t, err)
	e, err := engine.New(engine.Config{Store: store, Broker: b, RecoveryGrace: -1, Registerer: r})
	check(t, err)
	check(t, e.Start(ctx))
	stopWorker := startWorker(ctx, t, b, r)
	runSaga(ctx, t, e, r)

	relay.New(1, "docstest", relay.Options{Registerer: r}).Close()
	openRabbit(ctx, t, r)
	db, err := sqlx.Open("sqlite3", filepath.Join(t.TempDir(), "app.db"))
	check(t, err)
	box, err := outbox.New(ctx, db, outbox.SQLite, outbox.Options{})
	check(t, err)
	r.MustRegister(box.Collector())
	r.kinds(t)
	check(t, db.Close())
	stopWorker()
	check(t, e.Stop(ctx))
	check(t, store.Close())
	// It registers its metrics before it finds that nobody listens.
	if _, err := postgres.Open(ctx, postgres.Config{URL: "postgres://127.0.0.1:1/x", Registerer: r}); err == nil {
		t.Error("a database listens on port 1")
	}
	return r.found
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func startWorker(ctx context.Context, t *testing.T, b broker.Broker, r prometheus.Registerer) (stop func()) {
	t.Helper()
	w, err := worker.New(worker.Config{Broker: b, Name: "w", Service: "s", Registerer: r})
	check(t, err)
	w.HandleFunc("do", func(context.Context, []byte) ([]byte, error) { return nil, nil })
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	return func() {
		cancel()
		check(t, <-ended)
	}
}

// runSaga runs one to its end, and asks the API for it.
func runSaga(ctx context.Context, t *testing.T, e *engine.Engine, r *recorder) {
	t.Helper()
	saga := definitions.Saga("docs").Service("s")
	saga.Step("one").Action("do").Pivot()
	_, err := e.RegisterWorkflow(ctx, saga.MustBuild().JSON())
	check(t, err)
	_, err = e.StartRun(ctx, rest.Start{Workflow: "docs", ID: "one"})
	check(t, err)
	run, err := e.Wait(ctx, "one", time.Minute)
	check(t, err)
	if run.Status != "succeeded" {
		t.Fatalf("the run is %s", run.Status)
	}
	answer := httptest.NewRecorder()
	request := httptest.NewRequestWithContext(ctx, http.MethodGet, "/api/v1/runs/one", nil)
	api.New(api.Config{Service: e, Registerer: r}).ServeHTTP(answer, request)
	if answer.Code != http.StatusOK {
		t.Fatal(answer)
	}
}

// openRabbit has the port to RabbitMQ register its metrics, which it does
// before it finds that nobody listens.
func openRabbit(ctx context.Context, t *testing.T, r prometheus.Registerer) {
	t.Helper()
	b, err := rabbit.New(rabbit.Config{URLs: []string{"amqp://127.0.0.1:1/"}})
	check(t, err)
	ctx, cancel := context.WithCancelCause(ctx)
	cancel(fmt.Errorf("there is no broker at that address"))
	if conn, err := b.Open(ctx, broker.Options{Name: "docstest", Registerer: r}); err == nil {
		_ = conn.Close(ctx)
		t.Fatal("a broker listens on port 1")
	}
}
