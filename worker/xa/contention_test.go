package xa_test

import (
	"context"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/xa"
)

// The tasks of two banks, each of which takes and gives.
var banks = map[string][2]xa.Tasks[movement, balance]{
	"p": {xa.NewTasks[movement, balance]("bank", "p.debit"), xa.NewTasks[movement, balance]("bank", "p.credit")},
	"m": {xa.NewTasks[movement, balance]("bank", "m.debit"), xa.NewTasks[movement, balance]("bank", "m.credit")},
}

// between is a transfer from one bank to another, which takes named locks of its
// accounts if it is to be orderly.
func between(name, from, to string, orderly bool) *definitions.Workflow {
	b := definitions.TwoPhase(name)
	if orderly {
		b.Lock("'" + from + "/' + string(input.from)").Lock("'" + to + "/' + string(input.to)")
	}
	attempts := 2
	if orderly {
		attempts = 20 // nothing but a pause of the machine ends one
	}
	for i, bank := range []string{from, to} {
		tasks := banks[bank][i]
		b.Participant([]string{"debit", "credit"}[i]).PrepareTask(tasks.Prepare).CommitTask(tasks.Commit).AbortTask(tasks.Abort).
			Retry(definitions.RetryPolicy{Initial: 10 * time.Millisecond, MaxAttempts: attempts})
	}
	return b.MustBuild()
}

// T1, T5: transfers in both directions between the same few accounts of two
// databases, which no database sees as a deadlock. Lock timeouts bring every run
// to a decision; with named locks none of them has to be aborted.
func TestT5OppositeTransfersGetToADecision(t *testing.T) {
	o := xa.Options{LockTimeout: 200 * time.Millisecond}
	pg, my := newBank(t, postgres, o), newBank(t, mariadb, o)
	for _, b := range []*bank{pg, my} {
		b.db.MustExec(`UPDATE accounts SET balance = 1000`)
	}
	s := newSystem(t)
	for _, wf := range []*definitions.Workflow{
		between("there", "p", "m", false), between("back", "m", "p", false),
		between("there-orderly", "p", "m", true), between("back-orderly", "m", "p", true),
	} {
		if _, err := s.engine.RegisterWorkflow(t.Context(), wf.JSON()); err != nil {
			t.Fatal(err)
		}
	}
	s.run(func(w *worker.Worker) {
		for name, b := range map[string]*bank{"p": pg, "m": my} {
			tasks := banks[name]
			xa.Handle(w, b.p, tasks[0], func(ctx context.Context, tx *xa.Tx, m movement) (balance, error) {
				_, err := addTo(m.From, -m.Amount)(ctx, tx)
				return balance{}, err
			})
			xa.Handle(w, b.p, tasks[1], func(ctx context.Context, tx *xa.Tx, m movement) (balance, error) {
				_, err := addTo(m.To, m.Amount)(ctx, tx)
				return balance{}, err
			})
		}
	})
	for _, kind := range []string{"", "-orderly"} {
		const transfers = 8
		var runs []string
		for i := range transfers {
			runs = append(runs, s.start([]string{"there", "back"}[i%2]+kind, movement{1 + i/2%2, 1 + i/4%2, 1}))
		}
		ends := map[string]int{}
		for _, id := range runs {
			d := s.wait(id)
			if ends[d.Status]++; d.Heuristic {
				t.Errorf("run %s has a heuristic outcome", id)
			}
		}
		t.Logf("%q: %v", kind, ends)
		if ends["committed"]+ends["aborted"] != transfers || kind != "" && ends["committed"] != transfers {
			t.Errorf("%q: the runs are %v", kind, ends)
		}
	}
	if n := pg.total() + my.total(); n != 4000 || len(pg.prepared())+len(my.prepared()) != 0 {
		t.Errorf("of 4000 there are %d; in doubt are %v and %v", n, pg.prepared(), my.prepared())
	}
}
