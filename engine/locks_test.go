package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// transfer is a saga between two accounts, which it locks for itself; peek is
// one that shares them.
func transfer(name string, shared bool) *definitions.Workflow {
	b := definitions.Saga(name).Service("shop")
	if shared {
		b.LockShared("['account/' + input.from, 'account/' + input.to]")
	} else {
		b.Lock("'account/' + input.from").Lock("'account/' + input.to")
	}
	b.Step("debit").Action("debit").Compensation("refund")
	b.Step("credit").Action("credit").Pivot()
	return b.MustBuild()
}

// audit watches who is at an account, as its database would know it.
type audit struct {
	mu       sync.Mutex
	at       map[string]map[string]bool // account to runs
	overlaps []string
	most     int // runs at one account at a time
	tokens   map[string]uint64
}

type accounts struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// token notes the token under which a run is at an account.
func (a *audit) token(ctx context.Context, in accounts) {
	info := worker.TaskFrom(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, name := range []string{"account/" + in.From, "account/" + in.To} {
		n := info.Token(name)
		if n < a.tokens[name] || n == 0 {
			a.overlaps = append(a.overlaps, fmt.Sprintf("token %d of %s after %d", n, name, a.tokens[name]))
		}
		a.tokens[name] = n
	}
}

func newAudit() *audit { return &audit{at: map[string]map[string]bool{}, tokens: map[string]uint64{}} }

// enter notes that a run is at its accounts, from its first step on; leave, that
// its last step is done.
func (a *audit) enter(run string, in accounts) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, name := range []string{in.From, in.To} {
		if a.at[name] == nil {
			a.at[name] = map[string]bool{}
		}
		a.at[name][run] = true
		if n := len(a.at[name]); n > 1 {
			a.overlaps = append(a.overlaps, fmt.Sprintf("%s at %s beside %d others", run, name, n-1))
		}
		a.most = max(a.most, len(a.at[name]))
	}
}

func (a *audit) leave(run string, in accounts) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.at[in.From], run)
	delete(a.at[in.To], run)
}

// bank is the handlers of a service that is watched.
func (a *audit) bank() handlers {
	return handlers{
		"debit": func(ctx context.Context, data []byte) ([]byte, error) {
			var in accounts
			if err := json.Unmarshal(data, &in); err != nil {
				return nil, err
			}
			a.enter(worker.TaskFrom(ctx).RunID, in)
			a.token(ctx, in)
			return nil, nil
		},
		"credit": func(ctx context.Context, data []byte) ([]byte, error) {
			var in accounts
			if err := json.Unmarshal(data, &in); err != nil {
				return nil, err
			}
			a.token(ctx, in)
			a.leave(worker.TaskFrom(ctx).RunID, in)
			return nil, nil
		},
		"refund": func(ctx context.Context, data []byte) ([]byte, error) { return nil, nil },
	}
}

// transfers starts runs between few accounts, in both directions.
func (w *world) transfers(workflow string, n int) (ids []string) {
	w.t.Helper()
	starts := make([]rest.Start, n)
	for i := range starts {
		in, _ := json.Marshal(accounts{From: string(rune('A' + i%5)), To: string(rune('A' + (i*3+1+i/5)%5))})
		starts[i] = rest.Start{Workflow: workflow, ID: fmt.Sprintf("%s-%d", workflow, i), Input: in}
		ids = append(ids, starts[i].ID)
	}
	for _, o := range w.engine.StartRuns(context.Background(), starts) {
		if o.Error != nil {
			w.t.Fatal(o.Error)
		}
	}
	return ids
}

// free waits until nobody holds a lock: releases come after the runs' ends.
func (w *world) free() {
	w.t.Helper()
	w.eventually("all locks are free", func() bool {
		page, err := w.engine.Locks(context.Background(), rest.LockFilter{})
		return err == nil && len(page.Locks) == 0
	})
}

// TestRunsTakeTurnsAtLocks runs 100 transfers over five accounts over a real
// RabbitMQ: no two are at an account at the same time, and all end.
func TestRunsTakeTurnsAtLocks(t *testing.T) {
	w, a := newWorld(t, nil), newAudit()
	w.broker = rabbitBroker(t, testenv.RabbitMQ(t))
	w.start()
	w.register(transfer("transfer", false))
	w.worker("a", a.bank())
	w.worker("b", a.bank())
	for _, id := range w.transfers("transfer", 100) {
		w.wait(id, "succeeded")
	}
	if len(a.overlaps) > 0 || a.most == 0 {
		t.Errorf("runs overlap: %v", a.overlaps)
	}
	w.free()
}

// TestRunsThatShareALockMeet has two runs wait for each other inside a shared
// lock, over a real RabbitMQ; a third, which wants it for itself, comes after.
func TestRunsThatShareALockMeet(t *testing.T) {
	w, a := newWorld(t, nil), newAudit()
	w.broker = rabbitBroker(t, testenv.RabbitMQ(t))
	w.start()
	w.register(transfer("peek", true))
	w.register(transfer("transfer", false))
	var both sync.WaitGroup
	both.Add(2)
	h := a.bank()
	debit := h["debit"]
	h["debit"] = func(ctx context.Context, data []byte) ([]byte, error) {
		out, err := debit(ctx, data)
		if worker.TaskFrom(ctx).Workflow == "peek" {
			both.Done()
			both.Wait()
		}
		return out, err
	}
	w.worker("a", h)
	in := json.RawMessage(`{"from":"A","to":"B"}`)
	first := w.run(rest.Start{Workflow: "peek", Input: in})
	w.eventually("the lock is held", func() bool { return w.lock("account/A") != nil })
	last := w.run(rest.Start{Workflow: "transfer", Input: json.RawMessage(`{"from":"B","to":"C"}`)})
	second := w.run(rest.Start{Workflow: "peek", Input: json.RawMessage(`{"from":"A","to":"A"}`)})
	for _, id := range []string{first, second, last} {
		w.wait(id, "succeeded")
	}
	if a.most != 2 {
		t.Errorf("%d runs were at one account", a.most)
	}
	w.free()
}

// lock is a lock that is held, or nil.
func (w *world) lock(name string) *rest.Lock {
	w.t.Helper()
	page, err := w.engine.Locks(context.Background(), rest.LockFilter{Name: name})
	if err != nil {
		w.t.Fatal(err)
	}
	if len(page.Locks) == 0 {
		return nil
	}
	return &page.Locks[0]
}

// held is a bank whose debit waits until the test says so.
func held(a *audit) (h handlers, goOn func()) {
	gate := make(chan struct{})
	h = a.bank()
	debit := h["debit"]
	h["debit"] = func(ctx context.Context, data []byte) ([]byte, error) {
		out, err := debit(ctx, data)
		<-gate
		return out, err
	}
	return h, sync.OnceFunc(func() { close(gate) })
}

// queue starts runs that want the same lock, each once the one before stands in
// the queue.
func (w *world) queue(ids ...string) {
	w.t.Helper()
	for i, id := range ids {
		w.run(rest.Start{Workflow: "transfer", ID: id, Input: json.RawMessage(`{"from":"A","to":"A"}`)})
		w.eventually(id+" is in the queue", func() bool {
			l := w.lock("account/A")
			return l != nil && len(l.Waiting) == i
		})
	}
}

// TestALockShowsWhoHoldsItAndWhoWaits also cancels a run in the queue, lets
// another's deadline pass there, and refuses one too many.
func TestALockShowsWhoHoldsItAndWhoWaits(t *testing.T) {
	w, a := newWorld(t, func(c *engine.Config) { c.Limits.MaxLockWaiters, c.Limits.MaxLocks = 2, 2 }), newAudit()
	h, goOn := held(a)
	defer goOn()
	w.start()
	w.register(transfer("transfer", false))
	w.worker("a", h)
	w.queue("one", "two", "three")
	l := w.lock("account/A")
	if l.Holders[0].Run != "one" || l.Waiting[0].Run != "two" || l.Waiting[1].Run != "three" || l.WaitingCount != 2 || l.Token == 0 {
		t.Errorf("the lock is %+v", l)
	}
	d, err := w.engine.Run(context.Background(), "three")
	if err != nil || len(d.Waiting) == 0 || !strings.Contains(d.Waiting[0], "lock account/A, which is held by run one") ||
		!strings.Contains(d.Waiting[0], "1 wait before it") || len(d.Locks) != 1 || d.Locks[0].Token != 0 {
		t.Errorf("three waits for %q, %v", d.Waiting, err)
	}
	w.run(rest.Start{Workflow: "transfer", ID: "four", Input: json.RawMessage(`{"from":"A","to":"A"}`)})
	if d := w.wait("four", "compensated"); !strings.Contains(d.Error, "2 runs wait for it") || d.Steps[0].Attempts != 0 {
		t.Errorf("four: %s\n%s", d.Error, w.history("four"))
	}
	if _, err := w.engine.Cancel(context.Background(), "two", rest.Cancel{Reason: "enough"}); err != nil {
		t.Fatal(err)
	}
	if d := w.wait("two", "compensated"); d.Steps[0].Attempts != 0 {
		t.Errorf("two has begun\n%s", w.history("two"))
	}
	soon := time.Now().Add(50 * time.Millisecond)
	w.run(rest.Start{Workflow: "transfer", ID: "late", Input: json.RawMessage(`{"from":"A","to":"A"}`), Deadline: &soon})
	w.wait("late", "compensated")
	goOn()
	first, third := w.wait("one", "succeeded"), w.wait("three", "succeeded")
	if first.Locks[0].Token == 0 || third.Locks[0].Token <= first.Locks[0].Token {
		t.Errorf("token %d after %d", third.Locks[0].Token, first.Locks[0].Token)
	}
	w.free()
}

func TestLocksComeInPages(t *testing.T) {
	w, a := newWorld(t, nil), newAudit()
	h, goOn := held(a)
	defer goOn()
	w.start()
	w.register(transfer("transfer", false))
	w.worker("a", h)
	for _, name := range []string{"C", "A", "B"} {
		w.run(rest.Start{Workflow: "transfer", Input: fmt.Appendf(nil, `{"from":%q,"to":%q}`, name, name)})
		w.eventually("the lock is held", func() bool { return w.lock("account/"+name) != nil })
	}
	var names []string
	for f := (rest.LockFilter{Limit: 2}); ; {
		page, err := w.engine.Locks(context.Background(), f)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range page.Locks {
			names = append(names, l.Name)
		}
		if f.Cursor = page.Next; f.Cursor == "" {
			break
		}
	}
	if got := strings.Join(names, " "); got != "account/A account/B account/C" {
		t.Errorf("listed %s", got)
	}
}

func TestAStartThatWantsTooManyLocksIsRefused(t *testing.T) {
	w := newWorld(t, func(c *engine.Config) { c.Limits.MaxLocks = 1 })
	w.start()
	w.register(transfer("transfer", false))
	_, err := w.engine.StartRun(context.Background(), rest.Start{Workflow: "transfer", ID: "x", Input: json.RawMessage(`{"from":"A","to":"B"}`)})
	if p := engine.Problem(err); p.Code != "too_many_locks" || p.Status != 422 {
		t.Errorf("answered with %+v", p)
	}
	_, err = w.engine.StartRun(context.Background(), rest.Start{Workflow: "transfer", ID: "x", Input: json.RawMessage(`{"from":"A"}`)})
	if p := engine.Problem(err); p.Code != "start_rejected" || !strings.Contains(p.Detail, "input.to") {
		t.Errorf("answered with %+v", p)
	}
}

// TestLocksSurviveTheOrchestrator kills the orchestrator while one run holds a
// lock and others wait: they hold and wait after, in the same order.
func TestLocksSurviveTheOrchestrator(t *testing.T) {
	w, a := newWorld(t, nil), newAudit()
	h, goOn := held(a)
	defer goOn()
	c := &crashing{left: 1 << 30}
	w.wrap = func(s store.Store) store.Store { c.Store = s; return c }
	e := w.start()
	w.register(transfer("transfer", false))
	w.worker("a", h)
	w.queue("one", "two", "three")
	before := w.lock("account/A")
	c.mu.Lock()
	c.dead = true
	c.mu.Unlock()
	// Whatever is decided now is lost.
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-e.Done(); cancel() }()
	_, _ = e.Cancel(ctx, "one", rest.Cancel{Reason: "in vain"})
	<-e.Done()
	w.stop()
	w.wrap = nil
	w.start()
	if after := w.lock("account/A"); after.Token != before.Token || after.Holders[0].Run != "one" || len(after.Waiting) != 2 || after.Waiting[0].Run != "two" {
		t.Errorf("the lock is %+v, and was %+v", after, before)
	}
	goOn()
	last := before.Token
	for i, id := range []string{"one", "two", "three"} {
		d := w.wait(id, "succeeded")
		if i > 0 && d.Locks[0].Token <= last {
			t.Errorf("token %d of %s after %d", d.Locks[0].Token, id, last)
		}
		last = d.Locks[0].Token
	}
	if len(a.overlaps) > 0 {
		t.Errorf("runs overlap: %v", a.overlaps)
	}
	w.free()
}

// TestCrashAroundLocks kills the engine at each commit of two runs that want the
// same two locks, before and after the commit is on disk.
func TestCrashAroundLocks(t *testing.T) {
	for _, after := range []bool{false, true} {
		for at := 1; at <= 10; at++ {
			t.Run(fmt.Sprintf("after=%v/commit=%d", after, at), func(t *testing.T) {
				t.Parallel()
				w, a := newWorld(t, nil), newAudit()
				w.worker("a", a.bank())
				w.start()
				w.register(transfer("transfer", false))
				w.stop()
				in := json.RawMessage(`{"from":"A","to":"B"}`)
				other := rest.Start{Workflow: "transfer", ID: "two", Input: in}
				w.alongside = func(ctx context.Context, e *engine.Engine) { _, _ = e.StartRun(ctx, other) }
				w.crashAt(at, after, rest.Start{Workflow: "transfer", ID: "one", Input: in})
				w.run(other)
				w.wait("one", "succeeded")
				w.wait("two", "succeeded")
				if len(a.overlaps) > 0 {
					t.Errorf("runs overlap: %v\n%s\n%s", a.overlaps, w.history("one"), w.history("two"))
				}
				w.free()
			})
		}
	}
}
