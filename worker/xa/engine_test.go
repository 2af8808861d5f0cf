package xa_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/broker/memory"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/xa"
)

type movement struct {
	From   int `json:"from"`
	To     int `json:"to"`
	Amount int `json:"amount"`
}

type balance struct {
	Balance int `json:"balance"`
}

var (
	debit  = xa.NewTasks[movement, balance]("bank", "debit")
	credit = xa.NewTasks[movement, balance]("bank", "credit")
	query  = xa.NewTasks[movement, balance]("bank", "query")
	single = xa.NewTasks[movement, balance]("bank", "single")
)

func participant(b *definitions.TransactionBuilder, name string, tasks xa.Tasks[movement, balance]) {
	b.Participant(name).PrepareTask(tasks.Prepare).CommitTask(tasks.Commit).AbortTask(tasks.Abort).
		Retry(definitions.RetryPolicy{Initial: time.Millisecond, Max: 50 * time.Millisecond, MaxAttempts: 10}).
		PhaseTwoRetry(definitions.RetryPolicy{Initial: time.Millisecond, Max: 50 * time.Millisecond})
}

func transfer() *definitions.Workflow {
	b := definitions.TwoPhase("transfer").Output("{'left': steps.debit.output.balance}")
	participant(b, "debit", debit)
	participant(b, "credit", credit)
	participant(b, "query", query)
	return b.MustBuild()
}

func deposit() *definitions.Workflow {
	b := definitions.TwoPhase("deposit")
	participant(b, "single", single)
	return b.MustBuild()
}

// system is an engine with a real store, an in-process broker, and a worker of
// two banks.
type system struct {
	t      *testing.T
	engine *engine.Engine
	broker broker.Broker
}

func newSystem(t *testing.T) *system {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	mq, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	st, err := sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(t.TempDir(), "ringmaster.db"), Shards: 4})
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.New(engine.Config{Store: st, Broker: mq, Node: "test", HeartbeatInterval: 50 * time.Millisecond, RecoveryGrace: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := errors.Join(e.Stop(ctx), st.Close()); err != nil {
			t.Error(err)
		}
	})
	for _, wf := range []*definitions.Workflow{transfer(), deposit()} {
		if _, err := e.RegisterWorkflow(ctx, wf.JSON()); err != nil {
			t.Fatal(err)
		}
	}
	return &system{t, e, mq}
}

// worker starts a worker for debits and queries at one bank and for credits at
// another.
func (s *system) worker(from, to *xa.Participant) {
	s.run(func(w *worker.Worker) {
		xa.Handle(w, from, debit, func(ctx context.Context, tx *xa.Tx, m movement) (balance, error) {
			return move(ctx, tx, m.From, -m.Amount)
		})
		put := func(ctx context.Context, tx *xa.Tx, m movement) (balance, error) {
			return move(ctx, tx, m.To, m.Amount)
		}
		xa.Handle(w, to, credit, put)
		xa.Handle(w, to, single, put)
		xa.Handle(w, from, query, func(ctx context.Context, tx *xa.Tx, m movement) (b balance, err error) {
			err = tx.GetContext(ctx, &b, `SELECT balance FROM accounts WHERE id = $1`, m.From)
			return b, err
		})
	})
}

// run starts a worker with the handlers that register registers. It ends with
// the test, or when stop is called.
func (s *system) run(register func(*worker.Worker)) (stop func()) {
	w, err := worker.New(worker.Config{
		Broker: s.broker, Name: "w", Service: "bank", HeartbeatInterval: 50 * time.Millisecond, Concurrency: 8,
		SettleTimeout: 20 * time.Second, DrainTimeout: 20 * time.Second,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	register(w)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	})
	s.t.Cleanup(stop)
	return stop
}

func move(ctx context.Context, tx *xa.Tx, account, amount int) (b balance, err error) {
	err = tx.GetContext(ctx, &b, `UPDATE accounts SET balance = balance + $1 WHERE id = $2 RETURNING balance`, amount, account)
	var refused interface{ SQLState() string }
	if errors.As(err, &refused) && refused.SQLState() == "23514" {
		return b, worker.Final("no_cover", err)
	}
	return b, err
}

func (s *system) start(workflow string, m movement) string {
	s.t.Helper()
	input, err := json.Marshal(m)
	if err != nil {
		s.t.Fatal(err)
	}
	run, err := s.engine.StartRun(context.Background(), rest.Start{Workflow: workflow, Input: input})
	if err != nil {
		s.t.Fatal(err)
	}
	return run.ID
}

func (s *system) wait(id string) rest.RunDetail {
	s.t.Helper()
	if _, err := s.engine.Wait(context.Background(), id, patience); err != nil {
		s.t.Fatal(err)
	}
	d, err := s.engine.Run(context.Background(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

// decision is what was decided of a run.
func (s *system) decision(ctx context.Context, run string) (xa.Decision, error) {
	d, err := s.engine.Run(ctx, run)
	switch {
	case err != nil:
		return xa.Undecided, err
	case d.Decision == "committed":
		return xa.Committed, nil
	case d.Decision == "aborted":
		return xa.Aborted, nil
	}
	return xa.Undecided, nil
}

func (b *bank) total() (n int) {
	b.t.Helper()
	if err := b.db.Get(&n, `SELECT sum(balance) FROM accounts`); err != nil {
		b.t.Fatal(err)
	}
	return n
}

// T1, T4, T11: money moves between two databases or does not, and a participant
// that only reads is there for free.
func TestMoneyMovesBetweenTwoDatabasesOrNotAtAll(t *testing.T) {
	from, to := newBank(t, postgres, xa.Options{}), newBank(t, postgres, xa.Options{})
	s := newSystem(t)
	s.worker(from.p, to.p)
	d := s.wait(s.start("transfer", movement{1, 2, 30}))
	if d.Status != "committed" || string(d.Output) != `{"left":70}` {
		t.Errorf("the run is %s with output %s: %s", d.Status, d.Output, d.Error)
	}
	if from.balance(1) != 70 || to.balance(2) != 30 {
		t.Errorf("the balances are %d and %d", from.balance(1), to.balance(2))
	}
	d = s.wait(s.start("transfer", movement{1, 2, 71}))
	if d.Status != "aborted" || d.FailedStep != "debit" {
		t.Errorf("without cover the run is %s, and %q failed", d.Status, d.FailedStep)
	}
	if d = s.wait(s.start("deposit", movement{To: 2, Amount: 5})); d.Status != "committed" {
		t.Errorf("the deposit is %s: %s", d.Status, d.Error)
	}
	if from.total() != 70 || to.total() != 135 || to.balance(2) != 35 {
		t.Errorf("the totals are %d and %d", from.total(), to.total())
	}
	for _, b := range []*bank{from, to} {
		if gids := b.prepared(); len(gids) != 0 {
			t.Errorf("in doubt are %v", gids)
		}
	}
}

// T1, T5: many transfers among few accounts, with a database that crashes in the
// middle of them, and with somebody who recovers all the while: every run ends,
// and the money is all there.
func TestT5TransfersSurviveCrashesOfTheDatabase(t *testing.T) {
	from := bankAt(t, postgres, private(t, nil).URL, 0, xa.Options{LockTimeout: 50 * time.Millisecond})
	to := newBank(t, postgres, xa.Options{LockTimeout: 50 * time.Millisecond})
	for _, b := range []*bank{from, to} {
		b.db.MustExec(`INSERT INTO accounts SELECT id, 10 FROM generate_series(10, 19) AS id`)
	}
	s := newSystem(t)
	s.worker(from.p, to.p)
	ctx, cancel := context.WithCancel(t.Context())
	recovering := make(chan xa.Recovered)
	go func() {
		var all xa.Recovered
		for ctx.Err() == nil {
			// It fails while the database is down.
			done, _ := from.p.Recover(ctx, s.decision)
			all.Committed, all.Aborted = all.Committed+done.Committed, all.Aborted+done.Aborted
			time.Sleep(time.Millisecond)
		}
		recovering <- all
	}()
	rng := rand.New(rand.NewPCG(1, 2))
	var runs []string
	moved := 0
	amounts := map[string]int{}
	for i := range 30 {
		m := movement{From: 10 + rng.IntN(10), To: 10 + rng.IntN(10), Amount: 1 + rng.IntN(8)}
		id := s.start("transfer", m)
		runs, amounts[id] = append(runs, id), m.Amount
		if i == 10 || i == 20 {
			crash(t, from.db)
		}
	}
	statuses := map[string]int{}
	for _, id := range runs {
		d := s.wait(id)
		if statuses[d.Status]++; d.Heuristic {
			t.Errorf("run %s has a heuristic outcome", id)
		}
		if d.Status == "committed" {
			moved += amounts[id]
		}
	}
	cancel()
	t.Logf("%v, %d moved, recovered %+v", statuses, moved, <-recovering)
	if statuses["committed"]+statuses["aborted"] != len(runs) {
		t.Errorf("the runs are %v", statuses)
	}
	if from.total() != 200-moved || to.total() != 200+moved {
		t.Errorf("of 400 there are %d and %d, and %d were moved", from.total(), to.total(), moved)
	}
	for _, b := range []*bank{from, to} {
		if gids := b.prepared(); len(gids) != 0 {
			t.Error(fmt.Sprint("in doubt are ", gids))
		}
	}
}

// T8: a branch whose run the orchestrator does not know is rolled back, and its
// prepare does not come back.
func TestT8ABranchOfAnUnknownRunIsRolledBack(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		b := newBank(t, k, xa.Options{RecoverEvery: 20 * time.Millisecond})
		answered(t, b.prepare("nobody", 1, add(-10)), succeeded, "", "")
		newSystem(t).worker(b.p, b.p)
		eventually(t, "the branch is rolled back", func() bool { return len(b.prepared()) == 0 })
		answered(t, b.prepare("nobody", 2, add(-10)), failed, xa.CodeSuspended, "")
		b.expect(100, 0)
	})
}

// T5: whoever is in doubt, and is told by no task, asks: at the worker's start,
// and then until there is a decision.
func TestT5AWorkerAsksForTheDecisionOfBranchesInDoubt(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		decided := make(chan xa.Decision)
		b := newBank(t, k, xa.Options{
			RecoverEvery: 20 * time.Millisecond,
			Decide: func(ctx context.Context, run string) (xa.Decision, error) {
				switch run {
				case "lost":
					return xa.Committed, nil
				case "later":
					select {
					case d := <-decided:
						return d, nil
					case <-ctx.Done():
					}
				}
				return xa.Undecided, ctx.Err()
			},
		})
		answered(t, b.prepare("lost", 1, add(-10)), succeeded, "", "")
		newSystem(t).worker(b.p, b.p)
		eventually(t, "the branch of before is committed", func() bool { return len(b.prepared()) == 0 })
		b.expect(90, 0)
		answered(t, b.prepare("later", 1, add(-10)), succeeded, "", "")
		decided <- xa.Undecided
		decided <- xa.Aborted
		eventually(t, "the branch is rolled back", func() bool { return len(b.prepared()) == 0 })
		answered(t, b.abort("later"), succeeded, "", "")
		b.expect(90, 0)
	})
}
