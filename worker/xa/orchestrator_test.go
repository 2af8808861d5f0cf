package xa_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker/rabbit"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/xa"
)

// The variables that make the test binary an orchestrator which waits to be
// killed.
const (
	orchestratorAMQP = "XA_ORCHESTRATOR_AMQP"
	orchestratorFile = "XA_ORCHESTRATOR_FILE"
	orchestratorRun  = "XA_ORCHESTRATOR_RUN"
)

// orchestrator starts the run, unless it is there, and says how it ended.
func orchestrator() {
	ctx := context.Background()
	check := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	mq, err := rabbit.New(rabbit.Config{URLs: []string{os.Getenv(orchestratorAMQP)}})
	check(err)
	st, err := sqlite.Open(ctx, sqlite.Config{Path: os.Getenv(orchestratorFile), Shards: 4})
	check(err)
	e, err := engine.New(engine.Config{Store: st, Broker: mq, Node: "test", HeartbeatInterval: 50 * time.Millisecond, RecoveryGrace: 300 * time.Millisecond})
	check(err)
	check(e.Start(ctx))
	_, err = e.RegisterWorkflow(ctx, between("there", "p", "m", false).JSON())
	check(err)
	input, err := json.Marshal(movement{1, 1, 10})
	check(err)
	id := os.Getenv(orchestratorRun)
	_, err = e.StartRun(ctx, rest.Start{ID: id, Workflow: "there", Input: input})
	check(err)
	d, err := e.Wait(ctx, id, patience)
	check(err)
	fmt.Println(d.Status)
	select {}
}

// T1, T5, T6: the orchestrator is killed while votes are given, when all are
// there, and when the first participant has committed; over real RabbitMQ, with
// workers that live on. Both databases have the same end, and it is the run's.
func TestT5TheOrchestratorIsKilledBetweenPrepareAndCommit(t *testing.T) {
	node := testenv.RabbitMQ(t)
	pg, my := newBank(t, postgres, xa.Options{}), newBank(t, mariadb, xa.Options{})
	mq, err := rabbit.New(rabbit.Config{URLs: []string{node.URL}})
	if err != nil {
		t.Fatal(err)
	}
	inside, leave := make(chan struct{}, 1), make(chan struct{}, 1)
	s := &system{t: t, broker: mq}
	stop := s.run(func(w *worker.Worker) {
		xa.Handle(w, pg.p, banks["p"][0], func(ctx context.Context, tx *xa.Tx, m movement) (balance, error) {
			_, err := addTo(m.From, -m.Amount)(ctx, tx)
			return balance{}, err
		})
		xa.Handle(w, my.p, banks["m"][1], func(ctx context.Context, tx *xa.Tx, m movement) (balance, error) {
			inside <- struct{}{}
			<-leave
			_, err := addTo(m.To, m.Amount)(ctx, tx)
			return balance{}, err
		})
	})
	start := orchestrators(t, node.URL)
	for i, point := range []func(run string){
		func(string) { <-inside },
		func(string) {
			<-inside
			leave <- struct{}{}
			eventually(t, "all have voted", func() bool { return len(my.prepared())+my.balance(1) > 100 })
		},
		func(run string) {
			<-inside
			leave <- struct{}{}
			eventually(t, "one has committed", func() bool {
				return pg.applied(pg.p.GID(run, "debit")) || my.applied(my.p.GID(run, "credit"))
			})
		},
	} {
		run := fmt.Sprint("killed-", i)
		_, kill := start(run)
		point(run)
		kill()
		if i == 0 {
			leave <- struct{}{}
		}
		says, kill := start(run)
		ended := make(chan string, 1)
		go func() { ended <- says() }()
		for status := ""; status == ""; {
			select {
			case status = <-ended:
				if status != "committed" {
					t.Errorf("%s ended as %q", run, status)
				}
			case <-inside: // asked again
				leave <- struct{}{}
			}
		}
		if i == 2 {
			stop() // it leaves only when its results are known to be durable
		}
		kill()
		if b, c := pg.balance(1), my.balance(1); b+c != 200 || b != 100-10*(i+1) || len(pg.prepared())+len(my.prepared()) != 0 {
			t.Errorf("%s: the balances are %d and %d; in doubt are %v and %v", run, b, c, pg.prepared(), my.prepared())
		}
	}
}

// orchestrators returns what starts an orchestrator for a run: always the same,
// on the same file.
func orchestrators(t *testing.T, amqp string) func(run string) (says func() string, kill func()) {
	file := filepath.Join(t.TempDir(), "ringmaster.db")
	return func(run string) (func() string, func()) {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), orchestratorAMQP+"="+amqp, orchestratorFile+"="+file, orchestratorRun+"="+run)
		c.Stderr = os.Stderr
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		kill := func() {
			_ = c.Process.Signal(syscall.SIGKILL)
			_ = c.Wait()
		}
		t.Cleanup(kill)
		lines := bufio.NewScanner(out)
		return func() string { lines.Scan(); return lines.Text() }, kill
	}
}
