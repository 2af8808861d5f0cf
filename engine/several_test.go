package engine_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/lock"
	lockpg "github.com/ringmaster-dev/ringmaster/lock/postgres"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/store/postgres"
)

// team is several orchestrators over one PostgreSQL database.
type team struct {
	*world
	url, schema string
	shards      uint32
	members     []*member
}

// member is one of them.
type member struct {
	team *team
	*engine.Engine
	store store.Store
	locks *lockpg.Provider
	once  sync.Once
}

func newTeam(t *testing.T, shards uint32) *team {
	t.Helper()
	return &team{world: newWorld(t, nil), url: testenv.Postgres(t), schema: "team_" + strings.ToLower(rand.Text()[:8]), shards: shards}
}

// join starts another orchestrator.
func (tm *team) join(tune func(*engine.Config)) *member {
	tm.t.Helper()
	m, err := tm.tryToJoin(tune)
	if err != nil {
		tm.t.Fatal(err)
	}
	return m
}

// tryToJoin is join where it may be refused.
func (tm *team) tryToJoin(tune func(*engine.Config)) (*member, error) {
	tm.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	st, err := postgres.Open(ctx, postgres.Config{URL: tm.url, Schema: tm.schema, Shards: tm.shards, Conns: 4, Logger: tm.logger()})
	if err != nil {
		tm.t.Fatal(err)
	}
	locks, err := lockpg.New(ctx, lockpg.Config{URL: tm.url, Schema: tm.schema + "_l"})
	if err != nil {
		tm.t.Fatal(err)
	}
	cfg := engine.Config{
		Store: st, Broker: tm.broker, Leases: locks, LeaseTime: time.Second, Node: fmt.Sprintf("node%d", len(tm.members)),
		HeartbeatInterval: 50 * time.Millisecond, RecoveryGrace: 2 * time.Second, Logger: tm.logger(),
	}
	for _, f := range []func(*engine.Config){tm.tune, tune} {
		if f != nil {
			f(&cfg)
		}
	}
	e, err := engine.New(cfg)
	if err != nil {
		tm.t.Fatal(err)
	}
	m := &member{team: tm, Engine: e, store: st, locks: locks}
	tm.members = append(tm.members, m)
	tm.t.Cleanup(m.leave)
	return m, e.Start(ctx)
}

// leave stops an orchestrator.
func (m *member) leave() {
	m.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := m.Stop(ctx); err != nil {
			m.team.t.Error(err)
		}
		if err := errors.Join(m.store.Close(), m.locks.Close()); err != nil {
			m.team.t.Error(err)
		}
	})
}

// spread waits until the members own so many shards.
func (tm *team) spread(want ...int) {
	tm.t.Helper()
	tm.eventually(fmt.Sprint("the shards are spread as ", want), func() bool {
		for i, n := range want {
			if len(tm.members[i].Shards()) != n {
				return false
			}
		}
		return true
	})
}

// idOf is a run's id that is of a shard of a member.
func (m *member) idOf(n int) string {
	for i := 0; ; i++ {
		id := fmt.Sprintf("run-%d-%d", n, i)
		for _, s := range m.Shards() {
			if s == store.ShardOf(id, m.team.shards) {
				return id
			}
		}
	}
}

func TestShardsAreSharedAndHandedOver(t *testing.T) {
	tm := newTeam(t, 12)
	a := tm.join(nil)
	tm.spread(12)
	before := a.Shards()
	tm.join(nil)
	tm.spread(6, 6)
	c := tm.join(nil)
	tm.spread(4, 4, 4)
	// What has stayed is what was there: only the share of who came has moved.
	for _, s := range a.Shards() {
		if !contains(before, s) {
			t.Errorf("shard %d went away and came back", s)
		}
	}
	c.leave()
	tm.spread(6, 6)
	a.leave()
	tm.spread(0, 12)
}

func contains(list []uint32, x uint32) bool {
	for _, y := range list {
		if x == y {
			return true
		}
	}
	return false
}

func TestEveryCallWorksAtAnyOrchestrator(t *testing.T) {
	tm := newTeam(t, 4)
	ctx, l := context.Background(), newLedger()
	a, b := tm.join(nil), tm.join(nil)
	tm.spread(2, 2)
	if _, err := a.RegisterWorkflow(ctx, order().JSON()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.RegisterWorkflow(ctx, stalling().JSON()); err != nil {
		t.Fatal(err)
	}
	h := shop(l)
	h["stall"], h["unstall"] = decline("never"), decline("no")
	tm.workerOn(tm.broker, "w", h)

	far := b.idOf(1) // asked for at a
	for _, created := range []bool{true, false} {
		started, err := a.StartRun(ctx, rest.Start{Workflow: "order", ID: far, Input: orderInput})
		if err != nil || started.Created != created {
			t.Fatalf("start: %+v, %v", started, err)
		}
	}
	if _, err := a.StartRun(ctx, rest.Start{Workflow: "order", ID: far, Input: []byte(`{"total":13}`)}); kindOf(err) != engine.KindConflict {
		t.Errorf("a start with another input: %v", err)
	}
	if _, err := a.StartRun(ctx, rest.Start{Workflow: "none", ID: b.idOf(2)}); kindOf(err) != engine.KindNotFound {
		t.Errorf("a start of an unknown workflow: %v", err)
	}
	if r, err := a.Wait(ctx, far, patience); err != nil || r.Status != "succeeded" {
		t.Errorf("wait: %+v, %v", r, err)
	}
	if d, err := a.Run(ctx, far); err != nil || d.Status != "succeeded" || len(d.Steps) != 3 {
		t.Errorf("run: %+v, %v", d, err)
	}
	if _, err := a.Run(ctx, "none"); kindOf(err) != engine.KindNotFound {
		t.Errorf("an unknown run: %v", err)
	}

	var batch []rest.Start
	for i := range 20 {
		batch = append(batch, rest.Start{Workflow: "order", ID: fmt.Sprint("batch-", i), Input: orderInput})
	}
	batch = append(batch, rest.Start{Workflow: "order", Input: orderInput}, rest.Start{Workflow: "none", ID: "x"})
	for i, o := range b.StartRuns(ctx, batch) {
		if i == len(batch)-1 {
			if o.Error == nil || o.Error.Status != 404 {
				t.Errorf("an unknown workflow in a batch: %+v", o)
			}
			continue
		}
		if o.Error != nil {
			t.Fatalf("start %d of a batch: %+v", i, o.Error)
		}
		if r, err := a.Wait(ctx, o.Run.ID, patience); err != nil || r.Status != "succeeded" {
			t.Errorf("%s: %+v, %v", o.Run.ID, r, err)
		}
	}

	stalled := b.idOf(3)
	if _, err := a.StartRun(ctx, rest.Start{Workflow: "stalling", ID: stalled}); err != nil {
		t.Fatal(err)
	}
	if r, err := a.Wait(ctx, stalled, patience); err != nil || r.Status != "stalled" {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := a.Skip(ctx, stalled, rest.Settle{}); kindOf(err) != engine.KindInvalid {
		t.Errorf("a skip without a reason: %v", err)
	}
	if r, err := a.Skip(ctx, stalled, rest.Settle{Reason: "a test"}); err != nil || r.Status != "compensated" {
		t.Errorf("skip: %+v, %v", r, err)
	}
	if _, err := a.Cancel(ctx, stalled, rest.Cancel{}); kindOf(err) != engine.KindConflict {
		t.Errorf("a cancel of an ended run: %v", err)
	}
	if _, err := a.Decision(ctx, far); kindOf(err) != engine.KindConflict {
		t.Errorf("the decision of a saga: %v", err)
	}
	other := definitions.Saga("order").Service("shop")
	other.Step("create").Action("create").NoCompensation("another version")
	if _, err := b.RegisterWorkflow(ctx, other.MustBuild().JSON()); err != nil {
		t.Fatal(err)
	}
	n := 100
	tm.eventually("the version that was registered at one is used at the other", func() bool {
		n++
		started, err := a.StartRun(ctx, rest.Start{Workflow: "order", ID: a.idOf(n), Input: orderInput})
		return err == nil && started.Version == other.MustBuild().Version()
	})
	if d, err := a.Decision(ctx, b.idOf(4)); err != nil || d.Decision != "aborted" {
		t.Errorf("the decision of an unknown run: %+v, %v", d, err)
	}
	if s, err := a.Stats(ctx); err != nil || s.Runs["order"]["succeeded"] < 22 {
		t.Errorf("stats: %+v, %v", s, err)
	}
}

func kindOf(err error) engine.Kind {
	var own *engine.Error
	if errors.As(err, &own) {
		return own.Kind
	}
	return 0
}

// stalling is a saga whose compensation gives up at once.
func stalling() *definitions.Workflow {
	b := definitions.Saga("stalling").Service("shop")
	b.Step("create").Action("create").Compensation("unstall").CompensationRetry(definitions.RetryPolicy{MaxAttempts: 1})
	b.Step("fail").Action("stall").NoCompensation("a test")
	return b.MustBuild()
}

// Runs flow while orchestrators come and go; each effect happens once, and nothing
// is at a lock, or at a key, beside another.
func TestRunsGoOnWhileShardsMove(t *testing.T) {
	l, k, a := newLedger(), newLedger(), newAudit()
	s := &turns{at: map[string]string{}, tokens: map[string]uint64{}}
	for name, c := range map[string]struct {
		workflows []*definitions.Workflow
		handlers  handlers
		input     func(n int) []byte
		runs      int
		check     func(t *testing.T, w *world, id string)
		faults    *[]string
	}{
		"plain": {
			workflows: []*definitions.Workflow{order()}, handlers: shop(l), runs: 400,
			input: func(int) []byte { return orderInput },
			check: func(t *testing.T, w *world, id string) {
				w.effectsOf(l, id, "/create/action/1 1", "/pay/action/1 1", "/deliver/action/1 1")
			},
		},
		"children": {
			workflows: []*definitions.Workflow{purchase(), settlement()}, handlers: bank(k), runs: 100,
			input: func(int) []byte { return []byte(`{"total":3}`) },
			check: func(t *testing.T, w *world, id string) { w.effectsOf(k, id, whenBought...) },
		},
		"locks": {
			workflows: []*definitions.Workflow{transfer("locks", false)}, handlers: a.bank(), runs: 100, faults: &a.overlaps,
			input: func(n int) []byte {
				in, _ := json.Marshal(accounts{From: string(rune('A' + n%5)), To: string(rune('A' + (n*3+1+n/5)%5))})
				return in
			},
		},
		"serial": {
			workflows: []*definitions.Workflow{serial()}, handlers: s.handlers(), runs: 200, faults: &s.faults,
			input: func(n int) []byte { return fmt.Appendf(nil, `{"customer":"c-%d"}`, n%7) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			tm := newTeam(t, 8)
			last := tm.moving(c.handlers, c.workflows, c.runs, c.input)
			tm.engine, tm.store = last.Engine, last.store
			defer func() { tm.engine = nil }()
			for n := range c.runs {
				id := fmt.Sprint("r", n)
				tm.wait(id, "succeeded")
				if c.check != nil {
					c.check(t, tm.world, id)
				}
			}
			if c.faults != nil && len(*c.faults) > 0 {
				t.Errorf("%d faults: %v", len(*c.faults), *c.faults)
			}
		})
	}
}

// moving starts runs, at any orchestrator, while orchestrators come and go. It
// returns one that stays.
func (tm *team) moving(h handlers, workflows []*definitions.Workflow, runs int, input func(int) []byte) *member {
	tm.t.Helper()
	ctx := context.Background()
	first := tm.join(nil)
	for _, wf := range workflows {
		if _, err := first.RegisterWorkflow(ctx, wf.JSON()); err != nil {
			tm.t.Fatal(err)
		}
	}
	for i := range 3 {
		tm.workerOn(tm.broker, fmt.Sprint("w", i), h)
	}
	var started sync.WaitGroup
	present := make(chan *member, 1)
	present <- first
	at := func() *member { m := <-present; present <- m; return m }
	for i := range 4 {
		started.Go(func() {
			for n := i; n < runs; n += 4 {
				s := rest.Start{Workflow: workflows[0].Name(), ID: fmt.Sprint("r", n), Input: input(n)}
				_, err := at().StartRun(ctx, s)
				for k := kindOf(err); k == engine.KindUnavailable || k == engine.KindOverloaded; k = kindOf(err) {
					_, err = at().StartRun(ctx, s)
				}
				if err != nil {
					tm.t.Errorf("start %s: %v", s.ID, err)
					return
				}
			}
		})
	}
	show := func(m *member) { <-present; present <- m }
	second := tm.join(nil)
	show(second)
	third := tm.join(nil)
	show(third)
	first.leave()
	fourth := tm.join(nil)
	show(fourth)
	second.leave()
	started.Wait()
	third.leave()
	return fourth
}

// A shard that another has acquired is dropped, without a word of what was decided
// on it being written, and the rest goes on.
func TestAShardWithAnotherOwnerIsDropped(t *testing.T) {
	tm := newTeam(t, 4)
	ctx, l := context.Background(), newLedger()
	a := tm.join(nil)
	tm.spread(4)
	if _, err := a.RegisterWorkflow(ctx, order().JSON()); err != nil {
		t.Fatal(err)
	}
	_, before, err := a.store.Owner(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	epoch, _, err := a.store.Acquire(ctx, 0, "somebody")
	if err != nil || epoch <= before {
		t.Fatalf("epoch %d after %d, %v", epoch, before, err)
	}
	id := ""
	for n := 0; store.ShardOf(id, tm.shards) != 0 || id == ""; n++ {
		id = fmt.Sprint("taken-", n)
	}
	if _, err := a.StartRun(ctx, rest.Start{Workflow: "order", ID: id, Input: orderInput}); kindOf(err) != engine.KindUnavailable {
		t.Errorf("a start whose part was void: %v", err)
	}
	// Its lease is still this one's to have.
	tm.eventually("the shard is owned again", func() bool {
		owner, now, err := a.store.Owner(ctx, 0)
		return err == nil && now > epoch && strings.HasPrefix(owner, "node0-") && len(a.Shards()) == 4
	})
	tm.workerOn(tm.broker, "w", shop(l))
	tm.engine, tm.store = a.Engine, a.store
	defer func() { tm.engine = nil }()
	tm.run(rest.Start{Workflow: "order", ID: id, Input: orderInput})
	tm.wait(id, "succeeded")
	tm.effectsOf(l, id, "/create/action/1 1", "/pay/action/1 1", "/deliver/action/1 1")
}

// fickle is a lock provider whose sessions can be ended.
type fickle struct {
	lock.Provider
	mu       sync.Mutex
	sessions []*fickleSession
}

type fickleSession struct {
	lock.Session
	lost chan struct{}
}

func (f *fickle) Open(ctx context.Context, c lock.SessionConfig) (lock.Session, error) {
	s, err := f.Provider.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	own := &fickleSession{Session: s, lost: make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sessions = append(f.sessions, own)
	return own, nil
}

func (s *fickleSession) Lost() <-chan struct{} { return s.lost }

// An orchestrator that has lost its session drops everything, and takes its part
// again under another.
func TestALostSessionCostsTimeAlone(t *testing.T) {
	tm := newTeam(t, 4)
	ctx, l := context.Background(), newLedger()
	f := &fickle{}
	a := tm.join(func(c *engine.Config) { f.Provider, c.Leases = c.Leases, f })
	tm.spread(4)
	if _, err := a.RegisterWorkflow(ctx, order().JSON()); err != nil {
		t.Fatal(err)
	}
	tm.engine, tm.store = a.Engine, a.store
	defer func() { tm.engine = nil }()
	h := shop(l)
	paying, goOn := make(chan struct{}), make(chan struct{})
	h["pay"] = func(ctx context.Context, in []byte) ([]byte, error) {
		close(paying)
		<-goOn
		return ok(l, `{"amount":12}`)(ctx, in)
	}
	tm.workerOn(tm.broker, "w", h)
	tm.run(rest.Start{Workflow: "order", ID: "o", Input: orderInput})
	<-paying
	close(f.sessions[0].lost)
	tm.eventually("another session is open, and all shards are owned", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.sessions) == 2 && len(a.Shards()) == 4
	})
	close(goOn)
	tm.wait("o", "succeeded")
	tm.effectsOf(l, "o", "/create/action/1 1", "/pay/action/1 1", "/deliver/action/1 1")
}

// cuttable is a broker whose connections can be cut, for good.
type cuttable struct {
	broker.Broker
	mu    sync.Mutex
	state func(broker.State)
	cut   bool
}

type cutConn struct {
	broker.Conn
	of *cuttable
}

func (c *cuttable) Open(ctx context.Context, o broker.Options) (broker.Conn, error) {
	c.state = o.OnState
	conn, err := c.Broker.Open(ctx, o)
	return &cutConn{conn, c}, err
}

func (c *cuttable) set(cut bool) {
	c.mu.Lock()
	c.cut = cut
	c.mu.Unlock()
	if cut {
		c.state(broker.StateDisconnected)
	} else {
		c.state(broker.StateConnected)
	}
}

func (c *cutConn) Publish(ctx context.Context, msgs ...broker.Message) error {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if c.of.cut {
		return broker.ErrUnavailable
	}
	return c.Conn.Publish(ctx, msgs...)
}

// An orchestrator whose broker is away hands its shards to one that may do better,
// and takes its part again when it is back.
func TestShardsLeaveAnOrchestratorThatHasNoBroker(t *testing.T) {
	tm := newTeam(t, 4)
	tm.join(nil)
	c := &cuttable{Broker: tm.broker}
	tm.join(func(cfg *engine.Config) { cfg.Broker, cfg.ReconnectGrace = c, 200*time.Millisecond })
	tm.spread(2, 2)
	c.set(true)
	tm.spread(4, 0)
	c.set(false)
	tm.spread(2, 2)
}
