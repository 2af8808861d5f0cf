package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/broker/rabbit"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/inbox"
)

// TestRunsSurviveTheLossOfBrokerNodes has orders flow over three RabbitMQ
// nodes, half of them started through the requests queue. The node that the
// orchestrator is connected to is killed, then, when it is back, the one that
// leads the requests queue, and at last one is cut off the network. Every start
// that was acknowledged ends, each effect has happened once, and work goes on
// while a node is away.
func TestRunsSurviveTheLossOfBrokerNodes(t *testing.T) {
	cluster := testenv.RabbitMQCluster(t)
	w, seen := newWorld(t, nil), newWhereabouts()
	w.log = slog.New(seen)
	// A node that is cut off does not say so: heartbeats tell.
	var err error
	if w.broker, err = rabbit.New(rabbit.Config{URLs: cluster.URLs(), Heartbeat: time.Second}); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.register(unhurried())
	s := newInboxShop(t)
	for i := range 6 {
		w.worker(fmt.Sprint("w", i), s.handlers())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*patience)
	defer cancel()
	f := newFlow(w)
	f.begin(ctx, 24)
	f.more(200)
	kill, start := (*testenv.Rabbit).Kill, func(r *testenv.Rabbit) error { return r.Start(ctx) }
	cut, heal := func(r *testenv.Rabbit) error { return r.CutOff(ctx) }, func(r *testenv.Rabbit) error { return cluster.Mend(ctx, r) }
	for _, fault := range []struct {
		name     string
		do, undo func(*testenv.Rabbit) error
		node     func() *testenv.Rabbit
	}{
		{"kill -9 of the orchestrator's node", kill, start, func() *testenv.Rabbit { return nodeAt(t, cluster, seen.of("orchestrator")) }},
		{"kill -9 of the requests' leader", kill, start, func() *testenv.Rabbit { return leader(t, cluster) }},
		{"cut of the orchestrator's node", cut, heal, func() *testenv.Rabbit { return nodeAt(t, cluster, seen.of("orchestrator")) }},
	} {
		node, at := fault.node(), seen.of("orchestrator")
		usual, began := f.rate(f.count()-200), f.count()
		seen.forget()
		if err := fault.do(node); err != nil {
			t.Fatal(err)
		}
		if nodeAt(t, cluster, at) == node {
			w.eventually("the orchestrator is elsewhere", func() bool { return seen.of("orchestrator") != at })
		}
		f.more(300)
		gap, during := f.gap(began), f.rate(f.count()-200)
		away := seen.outages()
		if err := fault.undo(node); err != nil {
			t.Fatal(err)
		}
		if err := cluster.AwaitWhole(ctx); err != nil {
			t.Fatal(err)
		}
		f.more(200)
		t.Logf("%s: no order ended for %v at the longest; %.0f orders/s before, %.0f with two nodes, %.0f with three again; %s",
			fault.name, gap.Round(time.Millisecond), usual, during, f.rate(f.count()-200), away)
	}
	s.audit(t, f.end())
	for queue, nodes := range queues(t, cluster, "members") {
		// Exclusive queues have no members, and come and go with their owners.
		shared := queue == protocol.RequestsQueue("") || queue == protocol.DeadLettersQueue("")
		if n := strings.Count(nodes, "@"); shared && n != len(cluster.Nodes) {
			t.Errorf("queue %s is on %d nodes: %s", queue, n, nodes)
		}
	}
}

// unhurried is order without a bound on attempts: a task can get lost with a
// node more often than its policy allows.
func unhurried() *definitions.Workflow {
	retry := definitions.RetryPolicy{Initial: 10 * time.Millisecond, Max: time.Second, MaxAttempts: definitions.Unlimited}
	b := definitions.Saga("order").Service("shop")
	b.Step("create").Action("create").Compensation("uncreate").Retry(retry)
	b.Step("pay").Action("pay").Compensation("refund").Retry(retry)
	b.Step("deliver").Action("deliver").Pivot().Retry(retry)
	return b.MustBuild()
}

// queues asks the first node that answers for something of every queue.
func queues(t *testing.T, c *testenv.Cluster, what string) map[string]string {
	t.Helper()
	of := map[string]string{}
	var errs []error
	for _, n := range c.Nodes {
		out, err := n.Control(t.Context(), "list_queues", "--no-table-headers", "name", what)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for line := range strings.Lines(out) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "\t")
			of[name] = value
		}
		return of
	}
	t.Fatal(errors.Join(errs...))
	return nil
}

// leader is the node that leads the requests queue.
func leader(t *testing.T, c *testenv.Cluster) *testenv.Rabbit {
	t.Helper()
	name := queues(t, c, "leader")[protocol.RequestsQueue("")]
	for _, n := range c.Nodes {
		if n.Name() == name {
			return n
		}
	}
	t.Fatalf("the requests queue is led by %q", name)
	return nil
}

func nodeAt(t *testing.T, c *testenv.Cluster, hostPort string) *testenv.Rabbit {
	t.Helper()
	for _, n := range c.Nodes {
		if strings.Contains(n.URL, "@"+hostPort+"/") {
			return n
		}
	}
	t.Fatalf("no node is at %q", hostPort)
	return nil
}

// flow is a number of callers that each start an order, wait until it has
// ended, and start the next.
type flow struct {
	w    *world
	quit chan struct{}
	wg   sync.WaitGroup
	conn broker.Conn // for starts by message

	mu    sync.Mutex
	ended []time.Time // in order
	ids   []string    // of acknowledged starts
}

func newFlow(w *world) *flow { return &flow{w: w, quit: make(chan struct{})} }

func (f *flow) begin(ctx context.Context, callers int) {
	conn, err := f.w.broker.Open(ctx, broker.Options{Name: "starter", Logger: f.w.logger()})
	if err != nil {
		f.w.t.Fatal(err)
	}
	f.conn = conn
	ctx, cancel := context.WithCancel(ctx)
	f.w.t.Cleanup(func() {
		cancel()
		f.wg.Wait()
		_ = conn.Close(context.Background())
	})
	for c := range callers {
		f.wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-f.quit:
					return
				default:
				}
				if !f.order(ctx, fmt.Sprintf("order-%d-%d", c, i), i%2 == 0) {
					return
				}
			}
		})
	}
}

// order starts a run and waits for its end.
func (f *flow) order(ctx context.Context, id string, byMessage bool) bool {
	start := rest.Start{Workflow: "order", ID: id, Input: orderInput}
	if byMessage {
		f.request(ctx, start)
	} else if _, err := f.w.engine.StartRun(ctx, start); err != nil {
		f.w.t.Errorf("starting %s: %v", id, err)
		return false
	}
	f.mu.Lock()
	f.ids = append(f.ids, id)
	f.mu.Unlock()
	deadline := time.Now().Add(patience)
	for {
		r, err := f.w.engine.Wait(ctx, id, patience)
		if err == nil && r.Status == "succeeded" {
			break
		}
		// A request may still be in its queue.
		if err == nil || !byMessage || time.Now().After(deadline) || ctx.Err() != nil {
			f.w.t.Errorf("run %s is %q: %v\n%s", id, r.Status, err, f.w.history(id))
			return false
		}
		<-time.After(2 * time.Millisecond)
	}
	f.mu.Lock()
	f.ended = append(f.ended, time.Now())
	f.mu.Unlock()
	return true
}

// request sends a start until the broker says that it has it.
func (f *flow) request(ctx context.Context, s rest.Start) {
	body := fmt.Appendf(nil, `{"workflow":%q,"id":%q,"input":%s}`, s.Workflow, s.ID, s.Input)
	m := protocol.EncodeRequest(protocol.RequestsQueue(""), &protocol.Request{Type: protocol.RequestStart, RunID: s.ID, Body: body})
	for ctx.Err() == nil {
		err := f.conn.PublishConfirmed(ctx, m)
		if err == nil {
			return
		}
		if !errors.Is(err, broker.ErrUnavailable) && !errors.Is(err, broker.ErrUnconfirmed) && !errors.Is(err, broker.ErrRejected) {
			f.w.t.Errorf("requesting %s: %v", s.ID, err)
			return
		}
		<-time.After(5 * time.Millisecond)
	}
}

func (f *flow) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.ended)
}

// more waits until n more orders have ended.
func (f *flow) more(n int) {
	f.w.t.Helper()
	n += f.count()
	f.w.eventually(fmt.Sprint(n, " orders have ended"), func() bool { return f.w.t.Failed() || f.count() >= n })
	if f.w.t.Failed() {
		f.w.t.FailNow()
	}
}

// gap is the longest time in which no order ended, from the n-th on.
func (f *flow) gap(n int) (longest time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for ; n < len(f.ended); n++ {
		longest = max(longest, f.ended[n].Sub(f.ended[n-1]))
	}
	return longest
}

// rate is how many orders ended in a second, from the n-th on.
func (f *flow) rate(n int) float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return float64(len(f.ended)-n) / time.Since(f.ended[n]).Seconds()
}

// end waits for what is under way and returns the ids of all starts that were
// acknowledged.
func (f *flow) end() []string {
	close(f.quit)
	f.wg.Wait()
	return f.ids
}

// inboxShop performs the steps of orders once each, in its own database.
type inboxShop struct {
	db  *sqlx.DB
	box *inbox.Inbox

	mu   sync.Mutex
	most worker.TaskInfo // the one of most attempts
}

func (s *inboxShop) tried(task worker.TaskInfo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if task.Attempt > s.most.Attempt {
		s.most = task
	}
}

func newInboxShop(t *testing.T) *inboxShop {
	db := sqlx.MustOpen("sqlite3", "file:"+filepath.Join(t.TempDir(), "shop.db")+"?_journal_mode=WAL&_busy_timeout=60000&_txlock=immediate")
	t.Cleanup(func() { _ = db.Close() })
	db.SetMaxOpenConns(1)
	db.MustExec(`CREATE TABLE effects (run TEXT, step TEXT)`)
	box, err := inbox.New(t.Context(), db, inbox.SQLite, inbox.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return &inboxShop{db: db, box: box}
}

func (s *inboxShop) handlers() handlers {
	h := handlers{}
	for typ, output := range map[string]string{"create": `{"id":7}`, "pay": `{"amount":12}`, "deliver": `{}`, "uncreate": `null`, "refund": `null`} {
		h[typ] = func(ctx context.Context, _ []byte) ([]byte, error) {
			s.tried(worker.TaskFrom(ctx))
			return s.box.Do(ctx, func(ctx context.Context, tx *sqlx.Tx) ([]byte, error) {
				_, err := tx.ExecContext(ctx, `INSERT INTO effects VALUES (?, ?)`, worker.TaskFrom(ctx).RunID, typ)
				return []byte(output), err
			})
		}
	}
	return h
}

// audit checks that each order was created, paid and delivered once.
func (s *inboxShop) audit(t *testing.T, ids []string) {
	t.Helper()
	var rows []struct {
		Run, Step string
		N         int
	}
	if err := s.db.Select(&rows, `SELECT run, step, count(*) AS n FROM effects GROUP BY run, step`); err != nil {
		t.Fatal(err)
	}
	done := map[string]int{}
	for _, r := range rows {
		if done[r.Run]++; r.N != 1 || r.Step == "uncreate" || r.Step == "refund" {
			t.Errorf("%s of %s happened %d times", r.Step, r.Run, r.N)
		}
	}
	for _, id := range ids {
		if done[id] != 3 {
			t.Errorf("%s has had %d effects, want 3", id, done[id])
		}
	}
	if len(done) != len(ids) {
		t.Errorf("%d orders had effects, %d were acknowledged", len(done), len(ids))
	}
	t.Logf("%d orders, each effect once; at most %d attempts of a task", len(ids), s.most.Attempt)
}

// whereabouts learns from the log to which node each Conn is connected, and how
// long they were without one.
type whereabouts struct {
	mu   sync.Mutex
	at   map[string]string          // node by Conn
	lost map[string]time.Time       // by Conn
	away map[string][]time.Duration // by kind of Conn
}

func newWhereabouts() *whereabouts {
	return &whereabouts{at: map[string]string{}, lost: map[string]time.Time{}, away: map[string][]time.Duration{}}
}

func (w *whereabouts) Enabled(context.Context, slog.Level) bool { return true }
func (w *whereabouts) WithGroup(string) slog.Handler            { return w }
func (w *whereabouts) WithAttrs(attrs []slog.Attr) slog.Handler { return located{w, attrs} }

// Handle implements slog.Handler for records that name no Conn.
func (w *whereabouts) Handle(context.Context, slog.Record) error { return nil }

// located is a logger that says of which Conn and node it speaks.
type located struct {
	*whereabouts
	attrs []slog.Attr
}

func (l located) WithAttrs(attrs []slog.Attr) slog.Handler {
	return located{l.whereabouts, append(slices.Clone(l.attrs), attrs...)}
}

func (l located) Handle(_ context.Context, r slog.Record) error {
	var conn, node string
	for _, a := range l.attrs {
		switch a.Key {
		case "conn":
			conn = a.Value.String()
		case "node":
			node = a.Value.String()
		}
	}
	kind, _, _ := strings.Cut(conn, " ")
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case strings.HasPrefix(r.Message, "connected to the broker"):
		l.at[conn] = node
		if since, ok := l.lost[conn]; ok {
			l.away[kind] = append(l.away[kind], r.Time.Sub(since))
			delete(l.lost, conn)
		}
	case strings.HasPrefix(r.Message, "lost the connection"):
		l.lost[conn] = r.Time
	}
	return nil
}

// of returns the node that a Conn, named by the beginning of its name, is
// connected to.
func (w *whereabouts) of(prefix string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for conn, node := range w.at {
		if strings.HasPrefix(conn, prefix) {
			return node
		}
	}
	return ""
}

// forget begins to count outages anew.
func (w *whereabouts) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.away)
}

// outages tells how long Conns were without a node.
func (w *whereabouts) outages() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for kind, ds := range w.away {
		all = append(all, fmt.Sprintf("%d %s without a node for up to %v", len(ds), kind, slices.Max(ds).Round(time.Millisecond)))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
