package inbox_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker/inbox"
)

// The variables that make the test binary a worker which waits to be killed.
const (
	childDriver  = "INBOX_CHILD_DRIVER"
	childDialect = "INBOX_CHILD_DIALECT"
	childDSN     = "INBOX_CHILD_DSN"
)

func TestMain(m *testing.M) {
	if os.Getenv(childDriver) != "" {
		child()
	}
	os.Exit(m.Run())
}

type delivery struct {
	run   string
	phase protocol.Phase
}

// deliveries are an action and a compensation of each run, in any order.
func deliveries(runs int) (all []delivery) {
	for r := range runs {
		all = append(all, delivery{fmt.Sprint("run-", r), action}, delivery{fmt.Sprint("run-", r), compensate})
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

const killedRuns = 60

// child delivers everything again and again, with four goroutines, each in an
// order of its own.
func child() {
	db := sqlx.MustOpen(os.Getenv(childDriver), os.Getenv(childDSN))
	b := bench{db: db, dialect: inbox.Dialect(must(strconv.Atoi(os.Getenv(childDialect))))}
	b.box = must(inbox.New(context.Background(), db, b.dialect, inbox.Options{}))
	for range 4 {
		go func() {
			for {
				for _, d := range deliveries(killedRuns) {
					_, _ = b.box.Do(task(context.Background(), d.run, d.phase, 1, 1), b.apply)
				}
			}
		}()
	}
	select {}
}

// S5, S6: several processes deliver the same tasks at once, in every order, and
// are killed at any point; what they began is rolled back or whole.
func TestS5EffectsHappenOnceThoughProcessesAreKilled(t *testing.T) {
	onEach(t, inbox.Options{}, func(t *testing.T, b bench) {
		kill := func(children []*exec.Cmd) {
			for _, c := range children {
				_ = c.Process.Signal(syscall.SIGKILL)
			}
			for _, c := range children {
				_ = c.Wait()
				if c.ProcessState.Exited() {
					t.Errorf("a process ended by itself\n%s", c.Stderr)
				}
			}
		}
		for round := 1; round <= 2; round++ {
			var children []*exec.Cmd
			for range 3 {
				c := exec.Command(os.Args[0])
				c.Env = append(os.Environ(), childDriver+"="+b.db.DriverName(), childDSN+"="+b.dsn,
					childDialect+"="+strconv.Itoa(int(b.dialect)))
				c.Stderr = &bytes.Buffer{}
				if err := c.Start(); err != nil {
					t.Fatal(err)
				}
				children = append(children, c)
			}
			// They are in the middle of it.
			for b.rows(t) < round*killedRuns/2 {
				time.Sleep(time.Millisecond)
			}
			kill(children)
		}
		for _, d := range deliveries(killedRuns) {
			b.deliver(t, d.run, d.phase)
		}
		nulls := 0
		for r := range killedRuns {
			run := fmt.Sprint("run-", r)
			applied, undone := b.effects(t, run, action), b.effects(t, run, compensate)
			if applied != undone || applied > 1 {
				t.Errorf("%s: action %d times, compensation %d times", run, applied, undone)
			}
			nulls += 1 - applied
		}
		t.Logf("%d of %d runs were compensated before their action", nulls, killedRuns)
	})
}
