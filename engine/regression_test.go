package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store"
)

// puppet is a worker that does what a test says.
type puppet struct {
	t     *testing.T
	conn  broker.Conn
	hb    protocol.Heartbeat
	mu    sync.Mutex
	tasks chan protocol.Task
	seq   uint64
	most  int // tasks in one message
}

func newPuppet(t *testing.T, b broker.Broker, name string, credit int) *puppet {
	t.Helper()
	ctx := context.Background()
	conn, err := b.Open(ctx, broker.Options{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(ctx) })
	p := &puppet{t: t, conn: conn, tasks: make(chan protocol.Task, 1000)}
	queue := make(chan string, 1)
	if _, err := conn.Subscribe(ctx, broker.Subscription{
		Queue: protocol.WorkerQueue("", name), Kind: broker.Exclusive, NoAck: true,
		OnDeclared: func(q string) { queue <- q },
		Handler: func(d broker.Delivery) {
			ts, _, _, _ := protocol.DecodeTasks(&d.Message)
			p.mu.Lock()
			defer p.mu.Unlock()
			p.most = max(p.most, len(ts))
			for _, task := range ts {
				p.hb.Received = map[string]uint64{task.Owner: task.Seq}
				p.hb.Running = append(p.hb.Running, protocol.Held{TaskID: task.TaskID, Shard: task.Shard})
				p.tasks <- task
			}
		},
	}); err != nil {
		t.Fatal(err)
	}
	p.hb = protocol.Heartbeat{
		Worker: name, Name: name, Queue: <-queue, Service: "shop", TaskTypes: []string{"pay"}, Capacity: 1,
		Credit: credit, Weight: 100, IntervalMS: 50, Capabilities: []string{"batch"},
	}
	return p
}

func (p *puppet) beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hb.Sequence++
	m := protocol.EncodeHeartbeat(protocol.HeartbeatsExchange(""), &p.hb)
	if err := p.conn.Publish(context.Background(), m); err != nil {
		p.t.Error(err)
	}
}

// beating beats until the returned function is called.
func (p *puppet) beating() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			p.beat()
			pause(20 * time.Millisecond)
		}
	})
	return func() { cancel(); wg.Wait() }
}

func (p *puppet) answer(task protocol.Task, o protocol.Outcome, payload string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hb.Running = nil
	p.seq++
	r := protocol.Result{
		TaskID: task.TaskID, RunID: task.RunID, StepName: task.StepName, Shard: task.Shard, Worker: p.hb.Worker,
		Seq: p.seq, Outcome: o, Payload: []byte(payload),
	}
	if err := p.conn.Publish(context.Background(), protocol.EncodeResult(protocol.Version, protocol.ResultsExchange(""), &r)); err != nil {
		p.t.Error(err)
	}
}

func payOnly(tune func(*definitions.StepBuilder)) *definitions.Workflow {
	b := definitions.Saga("one").Service("shop")
	s := b.Step("pay").Action("pay").NoCompensation("a test")
	if tune != nil {
		tune(s)
	}
	return b.MustBuild()
}

// lossy is a broker whose connections can lose what is published, as one that
// breaks does: Publish returns nil and nothing arrives.
type lossy struct {
	broker.Broker
	lose atomic.Pointer[func(*broker.Message) bool]
}

func (l *lossy) Open(ctx context.Context, o broker.Options) (broker.Conn, error) {
	c, err := l.Broker.Open(ctx, o)
	return &lossyConn{c, l}, err
}

type lossyConn struct {
	broker.Conn
	l *lossy
}

func (c *lossyConn) Publish(ctx context.Context, msgs ...broker.Message) error {
	f := c.l.lose.Load()
	for _, m := range msgs {
		if f != nil && (*f)(&m) {
			continue
		}
		if err := c.Conn.Publish(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

func TestTaskLostWithTheOrchestratorsConnectionIsSentAgain(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	lb := &lossy{Broker: w.broker}
	w.tune = func(c *engine.Config) { c.Broker = lb }
	w.start()
	w.register(order())
	w.worker("a", shop(l))
	w.wait(w.run(rest.Start{Workflow: "order", Input: orderInput}), "succeeded")
	var once sync.Once
	lost := make(chan struct{})
	f := func(m *broker.Message) (gone bool) {
		if m.Type == string(protocol.KindTask) {
			once.Do(func() { gone = true; close(lost) })
		}
		return gone
	}
	lb.lose.Store(&f)
	id := w.run(rest.Start{Workflow: "order", Input: orderInput})
	<-lost
	r, err := w.engine.Wait(context.Background(), id, 5*time.Second) // 100 heartbeat intervals
	if err != nil || r.Status != "succeeded" {
		d, _ := w.engine.Run(context.Background(), id)
		t.Errorf("100 intervals later the run is %s %q, %v", r.Status, d.Waiting, err)
	}
}

func TestTaskThatWaitedLongerThanItsLifetimeIsStillDone(t *testing.T) {
	w, l := newWorld(t, func(c *engine.Config) { c.TaskLifetime = 200 * time.Millisecond }), newLedger()
	w.start()
	w.register(order())
	id := w.run(rest.Start{Workflow: "order", Input: orderInput})
	pause(400 * time.Millisecond) // no worker yet
	w.worker("a", shop(l))
	r, err := w.engine.Wait(context.Background(), id, 10*time.Second)
	if err != nil || r.Status != "succeeded" {
		t.Errorf("run %s (%s), %v\n%s", r.Status, r.Error, err, w.history(id))
	}
}

// slow is a store in which some calls wait.
type slow struct {
	store.Store
	lookup  chan struct{} // nil: no wait
	entered chan struct{}
	commit  atomic.Pointer[func([]store.Part)]
	loads   atomic.Int64
	load    func(refs []int64) error
	broken  func(u []store.Unfinished)
}

func (s *slow) Lookup(ctx context.Context, ids []string) ([]store.Run, error) {
	if s.lookup != nil {
		select {
		case s.entered <- struct{}{}:
		default:
		}
		<-s.lookup
	}
	return s.Store.Lookup(ctx, ids)
}

func (s *slow) Load(ctx context.Context, refs []int64) ([]store.Unfinished, error) {
	if len(refs) > 0 {
		s.loads.Add(1)
	}
	if s.load != nil {
		if err := s.load(refs); err != nil {
			return nil, err
		}
	}
	return s.Store.Load(ctx, refs)
}

func (s *slow) Unfinished(ctx context.Context, shard uint32, after int64, wake time.Time, limit int) ([]store.Unfinished, error) {
	u, err := s.Store.Unfinished(ctx, shard, after, wake, limit)
	if s.broken != nil {
		s.broken(u)
	}
	return u, err
}

func (s *slow) Commit(parts []store.Part) ([]error, error) {
	if f := s.commit.Load(); f != nil {
		(*f)(parts)
	}
	return s.Store.Commit(parts)
}

func request(t *testing.T, b broker.Broker, reqs ...*protocol.Request) {
	t.Helper()
	c, err := b.Open(context.Background(), broker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	for _, r := range reqs {
		if err := c.PublishConfirmed(context.Background(), protocol.EncodeRequest(protocol.RequestsQueue(""), r)); err != nil {
			t.Fatal(err)
		}
	}
}

func letters(t *testing.T, b broker.Broker) chan string {
	t.Helper()
	c, err := b.Open(context.Background(), broker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	out := make(chan string, 10000)
	if _, err := c.Subscribe(context.Background(), broker.Subscription{
		Queue: protocol.DeadLettersQueue(""), Kind: broker.Shared,
		Handler: func(d broker.Delivery) { d.Settle(true); out <- fmt.Sprint(d.Headers[protocol.HeaderReason]) },
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestStopDoesNotWaitForRequestsThatNobodyWillAnswer(t *testing.T) {
	w := newWorld(t, nil)
	s := &slow{}
	w.wrap = func(st store.Store) store.Store { s.Store = st; return s }
	e := w.start()
	w.register(order())
	s.lookup, s.entered = make(chan struct{}), make(chan struct{}, 1)
	request(t, w.broker, &protocol.Request{Type: protocol.RequestStart, Body: []byte(`{"workflow":"order","id":"x","input":{"total":1}}`)})
	<-s.entered
	done := make(chan struct{})
	began := time.Now()
	go func() { _ = e.Stop(context.Background()); close(done) }()
	pause(300 * time.Millisecond) // the shards are gone by now
	close(s.lookup)
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("10 s later the engine still stops")
		<-done
	}
	t.Log("stopping took", time.Since(began))
}

func TestRequestsOfOneSenderAreCarriedOutInOrder(t *testing.T) {
	w := newWorld(t, nil)
	w.start()
	dead := letters(t, w.broker)
	request(t, w.broker,
		&protocol.Request{Type: protocol.RequestRegister, Body: order().JSON()},
		&protocol.Request{Type: protocol.RequestStart, Body: []byte(`{"workflow":"order","id":"x","input":{"total":1}}`)},
		&protocol.Request{Type: protocol.RequestCancel, RunID: "x", Body: []byte(`{}`)},
	)
	pause(time.Second)
	for {
		select {
		case reason := <-dead:
			t.Errorf("dead letter: %s", reason)
			continue
		default:
		}
		break
	}
	if d, err := w.engine.Run(context.Background(), "x"); err != nil || d.Status != "compensated" {
		t.Errorf("run: %s %v", d.Status, err)
	}
}

func TestCancelRequestMayHaveNoBody(t *testing.T) {
	w := newWorld(t, nil)
	w.start()
	w.register(order())
	w.run(rest.Start{Workflow: "order", ID: "x", Input: orderInput})
	dead := letters(t, w.broker)
	request(t, w.broker, &protocol.Request{Type: protocol.RequestCancel, RunID: "x"})
	select {
	case reason := <-dead: // the decoder lets it pass
		t.Errorf("dead letter: %s", reason)
	case <-time.After(time.Second):
	}
}

func TestRequestsPutBackAtALimitDoNotSpin(t *testing.T) {
	w := newWorld(t, nil)
	s := &slow{}
	var deliveries atomic.Int64
	cb := &countingBroker{Broker: w.broker, n: &deliveries}
	w.wrap = func(st store.Store) store.Store { s.Store = st; return s }
	w.tune = func(c *engine.Config) { c.Limits.MaxUnfinished = 1; c.Broker = cb }
	w.start()
	w.register(order())
	w.run(rest.Start{Workflow: "order", Input: orderInput})
	request(t, w.broker, &protocol.Request{Type: protocol.RequestStart, Body: []byte(`{"workflow":"order","id":"x","input":{"total":1}}`)})
	pause(time.Second)
	if n := deliveries.Load(); n > 20 {
		t.Errorf("one request that has to wait was delivered %d times in a second", n)
	}
}

type countingBroker struct {
	broker.Broker
	n *atomic.Int64
}

func (b *countingBroker) Open(ctx context.Context, o broker.Options) (broker.Conn, error) {
	c, err := b.Broker.Open(ctx, o)
	return &countingConn{c, b.n}, err
}

type countingConn struct {
	broker.Conn
	n *atomic.Int64
}

func (c *countingConn) Subscribe(ctx context.Context, s broker.Subscription) (broker.Consumer, error) {
	if s.Kind == broker.Shared {
		h := s.Handler
		s.Handler = func(d broker.Delivery) { c.n.Add(1); h(d) }
	}
	return c.Conn.Subscribe(ctx, s)
}

func TestEndedRunLeavesNoTaskBehind(t *testing.T) {
	w := newWorld(t, nil)
	w.start()
	w.register(payOnly(func(s *definitions.StepBuilder) {
		s.Retry(definitions.RetryPolicy{Initial: time.Millisecond, Max: time.Millisecond, MaxAttempts: 5})
	}))
	a := newPuppet(t, w.broker, "a", 1)
	stop := a.beating()
	id := w.run(rest.Start{Workflow: "one"})
	task := <-a.tasks
	pause(100 * time.Millisecond)
	stop() // a is paused: it counts as dead, and the next attempt waits for a worker
	w.eventually("the second attempt is scheduled", func() bool {
		d, err := w.engine.Run(context.Background(), id)
		return err == nil && d.Steps[0].Attempts == 2
	})
	a.answer(task, protocol.OutcomeSucceeded, "null") // a wakes up: its success counts
	w.wait(id, "succeeded")
	b := newPuppet(t, w.broker, "b", 10)
	defer b.beating()()
	select {
	case again := <-b.tasks:
		t.Errorf("attempt %d was sent after the run had succeeded", again.Attempt)
	case <-time.After(time.Second):
	}
}

func TestAnswerThatIsNotJSONIsNotTakenForSuccess(t *testing.T) {
	w := newWorld(t, nil)
	w.start()
	w.register(payOnly(nil))
	a := newPuppet(t, w.broker, "a", 1)
	defer a.beating()()
	id := w.run(rest.Start{Workflow: "one"})
	a.answer(<-a.tasks, protocol.OutcomeSucceeded, "<html>")
	if _, err := w.engine.Wait(context.Background(), id, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	d, err := w.engine.Run(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := json.Marshal(d); err != nil {
		t.Errorf("the %s run cannot be shown any more: %v", d.Status, err)
	}
}

func TestAnswerBeyondThePayloadLimitIsRefused(t *testing.T) {
	w := newWorld(t, func(c *engine.Config) { c.Limits.MaxPayloadBytes = 100 })
	w.start()
	w.register(payOnly(nil))
	a := newPuppet(t, w.broker, "a", 1)
	defer a.beating()()
	id := w.run(rest.Start{Workflow: "one"})
	a.answer(<-a.tasks, protocol.OutcomeSucceeded, `"`+string(make([]byte, 0))+fmt.Sprintf("%0500d", 1)+`"`)
	r, err := w.engine.Wait(context.Background(), id, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if d, _ := w.engine.Run(context.Background(), id); r.Status == "succeeded" && len(d.Steps[0].Output) > 100 {
		t.Errorf("an output of %d bytes was taken; the limit is 100", len(d.Steps[0].Output))
	}
}

func TestAlarmsOfEndedRunsReadNothing(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	s := &slow{}
	w.wrap = func(st store.Store) store.Store { s.Store = st; return s }
	w.start()
	w.register(payOnly(func(s *definitions.StepBuilder) { s.QueueTimeout(time.Second) }))
	w.worker("a", handlers{"pay": ok(l, "null")})
	const n = 200
	for i := range n {
		w.run(rest.Start{Workflow: "one", ID: fmt.Sprint(i)})
	}
	for i := range n {
		w.wait(fmt.Sprint(i), "succeeded")
	}
	before := s.loads.Load()
	pause(2 * time.Second)
	if got := s.loads.Load() - before; got > n/10 {
		t.Errorf("%d runs that ended long ago were read one by one: %d reads on the shards' goroutines", n, got)
	}
}

func TestFailedReadDoesNotEndTheEngine(t *testing.T) {
	w := newWorld(t, func(c *engine.Config) { c.Limits.MaxResidentRuns = 4 })
	s := &slow{}
	w.wrap = func(st store.Store) store.Store { s.Store = st; return s }
	e := w.start()
	w.register(order())
	for i := range 40 {
		w.run(rest.Start{Workflow: "order", ID: fmt.Sprint(i), Input: orderInput})
	}
	var failed atomic.Bool
	s.load = func([]int64) error {
		if failed.CompareAndSwap(false, true) {
			return errors.New("interrupted") // once: a disk hiccup, out of file handles
		}
		return nil
	}
	for i := range 40 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, _ = e.Cancel(ctx, fmt.Sprint(i), rest.Cancel{})
		cancel()
	}
	select {
	case <-e.Done():
		t.Errorf("the engine has failed: %v", e.Err())
	default:
	}
}

func TestOneUnreadableRunDoesNotKeepTheDaemonDown(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	w.start()
	w.register(order())
	w.run(rest.Start{Workflow: "order", ID: "bad", Input: orderInput})
	w.run(rest.Start{Workflow: "order", ID: "good", Input: orderInput})
	w.stop()
	s := &slow{broken: func(us []store.Unfinished) {
		for i := range us {
			if us[i].Run.ID == "bad" {
				us[i].History[0].Data = []byte{9}
			}
		}
	}}
	w.wrap = func(st store.Store) store.Store { s.Store = st; return s }
	w.worker("a", shop(l))
	w.start()
	w.wait("good", "succeeded")
}

func TestRetryWithOtherInputGetsItsOwnKey(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	e := w.start()
	b := definitions.Saga("keyed").Service("shop").RoutingKey("input.customer")
	b.Step("pay").Action("pay").NoCompensation("a test")
	w.register(b.MustBuild())
	w.worker("a", handlers{"pay": decline("no")})
	_ = l
	id := w.run(rest.Start{Workflow: "keyed", Input: json.RawMessage(`{"customer":"c1"}`)})
	w.wait(id, "compensated")
	r, err := e.Retry(context.Background(), id, rest.Settle{Input: json.RawMessage(`{"customer":"c2"}`)})
	if err != nil || r.Key != "c2" {
		t.Errorf("the run for customer c2 has key %q, %v", r.Key, err)
	}
}

func TestRoutingKeyThatNoWorkerCanReadIsRefused(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	e := w.start()
	b := definitions.Saga("keyed").Service("shop").RoutingKey("input.customer")
	b.Step("pay").Action("pay").NoCompensation("a test")
	w.register(b.MustBuild())
	w.worker("a", handlers{"pay": ok(l, "null")})
	s, err := e.StartRun(context.Background(), rest.Start{Workflow: "keyed", Input: json.RawMessage(`{"customer":"a\nb"}`)})
	if err != nil {
		return // a clear answer
	}
	r, err := e.Wait(context.Background(), s.ID, 5*time.Second)
	if err != nil || r.Status != "succeeded" {
		d, _ := e.Run(context.Background(), s.ID)
		t.Errorf("100 heartbeat intervals later: %s %v, %v", r.Status, d.Waiting, err)
	}
}

// pause lets time pass where what is tested is that nothing happens, or that
// time itself has an effect.
func pause(d time.Duration) { <-time.After(d) }
