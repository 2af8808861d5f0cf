package xa_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/xa"
)

// The variables that make the test binary a worker which waits to be killed.
const (
	childDSN  = "XA_CHILD_DSN"
	childKind = "XA_CHILD_KIND"
)

// point is where a run stands when something is killed.
type point struct {
	name              string
	prepared, applied bool // what the database has by then
	answered          bool // the vote
	decision          string
}

// points are all between the beginning of a prepare and the end of phase two.
var points = []point{
	{name: "in the handler, then committed", decision: "commit"},
	{name: "in the handler, then aborted", decision: "abort"},
	{name: "prepared without a vote, then committed", prepared: true, decision: "commit"},
	{name: "prepared without a vote, then aborted", prepared: true, decision: "abort"},
	{name: "voted, then committed", prepared: true, answered: true, decision: "commit"},
	{name: "voted, then aborted", prepared: true, answered: true, decision: "abort"},
	{name: "while the commit is noted", applied: true, answered: true, decision: "commit"},
	{name: "while the abort is noted", answered: true, decision: "abort"},
	{name: "committed", applied: true, answered: true, decision: "commit"},
	{name: "aborted", answered: true, decision: "abort"},
}

// account is the row that a point's run changes.
func account(i int) int { return 100 + i }

// child brings a run to each point, says so, and waits. What it cannot see (a
// vote that waits to be written) its parent sees in the database.
func child() {
	k := kinds[slices.IndexFunc(kinds, func(k kind) bool { return k.name == os.Getenv(childKind) })]
	db := sqlx.MustOpen(k.driver, os.Getenv(childDSN))
	p, err := xa.New(context.Background(), db, k.dialect, xa.Options{})
	if err != nil {
		panic(err)
	}
	var started sync.WaitGroup
	for i, pt := range points {
		started.Add(1)
		go func() {
			w := &walker{db: db, p: p, point: pt, account: account(i), there: sync.OnceFunc(started.Done)}
			w.walk()
		}()
	}
	started.Wait()
	fmt.Println("there")
	select {}
}

// walker takes a run to its point.
type walker struct {
	db      *sqlx.DB
	p       *xa.Participant
	point   point
	account int
	there   func()
}

func (w *walker) walk() {
	_, err := w.p.Prepare(task(context.Background(), w.point.name, protocol.PhasePrepare, 1), func(ctx context.Context, tx *xa.Tx) ([]byte, error) {
		out, err := addTo(w.account, -10)(ctx, tx)
		switch {
		case strings.HasPrefix(w.point.name, "in the handler"):
			w.there()
			select {}
		case strings.HasPrefix(w.point.name, "prepared without"):
			w.block()
			w.there()
		}
		return out, err
	})
	if strings.HasPrefix(w.point.name, "while") {
		w.block()
		w.there()
	}
	if err == nil && strings.Contains(w.point.name, "while the commit") || w.point.name == "committed" {
		_, err = w.p.Commit(task(context.Background(), w.point.name, protocol.PhaseCommit, 1), nil)
	}
	if err == nil && strings.Contains(w.point.name, "while the abort") || w.point.name == "aborted" {
		err = w.p.Abort(task(context.Background(), w.point.name, protocol.PhaseAbort, 1))
	}
	if err != nil { // with the database, perhaps
		fmt.Println(w.point.name, err)
	}
	w.there()
}

// block keeps the run's vote from being written.
func (w *walker) block() {
	tx := w.db.MustBegin()
	var state string
	if err := tx.Get(&state, tx.Rebind(`SELECT state FROM ringmaster_xa_votes WHERE gid = ? FOR UPDATE`), w.p.GID(w.point.name, "debit")); err != nil {
		panic(err)
	}
}

// addTo changes an account and answers with the attempt.
func addTo(account, amount int) xa.Func {
	return func(ctx context.Context, tx *xa.Tx) ([]byte, error) {
		if _, err := tx.ExecContext(ctx, tx.Rebind(`UPDATE accounts SET balance = balance + ? WHERE id = ?`), amount, account); err != nil {
			return nil, err
		}
		return fmt.Appendf(nil, `{"attempt":%d}`, worker.TaskFrom(ctx).Attempt), nil
	}
}

// startChild starts a worker and returns when its runs are at their points.
func startChild(b *bank, dsn string) (kill func()) {
	b.t.Helper()
	for i := range points {
		b.db.MustExec(b.db.Rebind(`INSERT INTO accounts VALUES (?, 100)`), account(i))
	}
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), childDSN+"="+dsn, childKind+"="+b.name)
	out, err := c.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		b.t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = c.Process.Signal(syscall.SIGKILL)
		_ = c.Wait()
	})
	b.t.Cleanup(kill)
	lines := bufio.NewScanner(out)
	if lines.Scan(); lines.Text() != "there" {
		b.t.Fatalf("the worker says %q", lines.Text())
	}
	eventually(b.t, "all runs are at their points", func() bool {
		prepared := b.prepared()
		for _, pt := range points {
			gid := b.p.GID(pt.name, "debit")
			if slices.Contains(prepared, gid) != pt.prepared || b.applied(gid) != pt.applied {
				return false
			}
		}
		return true
	})
	return kill
}

func (b *bank) applied(gid string) (is bool) {
	b.t.Helper()
	if err := b.db.Get(&is, b.db.Rebind(`SELECT EXISTS (SELECT 1 FROM ringmaster_xa WHERE gid = ?)`), gid); err != nil {
		b.t.Fatal(err)
	}
	return is
}

// insist asks as an orchestrator does: until the answer is neither unknown nor
// to be tried again.
func insist(t *testing.T, what string, ask func(attempt uint32) protocol.Result) {
	t.Helper()
	attempt := uint32(1)
	var r protocol.Result
	eventually(t, what, func() bool {
		attempt++
		r = ask(attempt)
		return r.Outcome == succeeded || r.Outcome == failed && !r.Retryable
	})
	answered(t, r, succeeded, "", "")
}

// settle brings the runs to their ends, and checks that each has the one that
// was decided, whatever was killed on the way.
func (b *bank) settle() {
	b.t.Helper()
	for i, pt := range points {
		if !pt.answered && pt.decision == "commit" {
			insist(b.t, pt.name+": prepare", func(attempt uint32) protocol.Result {
				return b.prepare(pt.name, attempt, addTo(account(i), -10))
			})
		}
		want := 100
		if pt.decision == "commit" {
			want = 90
			insist(b.t, pt.name+": commit", func(uint32) protocol.Result { return b.commit(pt.name) })
		} else {
			insist(b.t, pt.name+": abort", func(uint32) protocol.Result { return b.abort(pt.name) })
			answered(b.t, b.prepare(pt.name, 9, addTo(account(i), -10)), failed, xa.CodeSuspended, "")
		}
		if n := b.balance(account(i)); n != want {
			b.t.Errorf("%s: the balance is %d, not %d", pt.name, n, want)
		}
	}
	if gids := b.prepared(); len(gids) != 0 {
		b.t.Errorf("in doubt are %v", gids)
	}
}

// T1, T5, T7: a worker is killed at every point between prepare and the end of
// phase two.
func TestT7AWorkerIsKilledAtEveryPoint(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		dsn := k.dsn(t)
		b := bankAt(t, k, dsn, 0, xa.Options{})
		startChild(b, dsn)()
		b.settle()
	})
}

// server is a database server that can be killed.
type server interface {
	Kill()
	Start(context.Context) error
}

func (b *bank) crash(s server) {
	b.t.Helper()
	s.Kill()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	if err := s.Start(ctx); err != nil {
		b.t.Fatal(err)
	}
	eventually(b.t, "the server answers", func() bool { return b.db.Ping() == nil })
}

// T1, T5, T7: the database is killed at every point, and its worker a moment
// after it; then the database alone, when all is over.
func TestT7TheDatabaseIsKilledAtEveryPoint(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		s, dsn := privateServer(t, k)
		b := bankAt(t, k, dsn, 0, xa.Options{})
		kill := startChild(b, dsn)
		inDoubt := b.prepared()
		b.crash(s)
		kill()
		// MariaDB does not wait for the disk when it rolls back: what was rolled back
		// right before the crash may be prepared again.
		now := b.prepared()
		for _, gid := range inDoubt {
			if !slices.Contains(now, gid) {
				t.Errorf("before the crash %s was prepared, and now only %v", gid, now)
			}
		}
		b.expectUnvoted()
		b.settle()
		b.crash(s)
		b.settle()
	})
}

// expectUnvoted checks that a branch whose vote was not written has none and is
// done anew: nobody was answered.
func (b *bank) expectUnvoted() {
	b.t.Helper()
	branches, err := b.p.InDoubt(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	for _, br := range branches {
		if br.Voted && strings.HasPrefix(br.Run, "prepared without") {
			b.t.Errorf("in doubt is %+v", br)
		}
	}
	for i, pt := range points {
		if strings.HasPrefix(pt.name, "prepared without") && pt.decision == "commit" {
			r := b.prepare(pt.name, 7, addTo(account(i), -10))
			answered(b.t, r, succeeded, "", `{"attempt":7}`)
		}
	}
}

// privateServer starts a server of some kind, and returns the address of a
// database that nobody else uses.
func privateServer(t *testing.T, k kind) (server, string) {
	t.Helper()
	if k.dialect == xa.Postgres {
		s := private(t, nil)
		return s, s.URL
	}
	s := privateMariaDB(t)
	db := sqlx.MustOpen("mysql", s.DSN("mysql"))
	defer db.Close()
	db.MustExec(`CREATE DATABASE bank`)
	return s, s.DSN("bank")
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// crash kills a backend of PostgreSQL and waits until the server is back: the
// postmaster starts all again, and replays its log.
func crash(t *testing.T, db *sqlx.DB) {
	t.Helper()
	var pid int
	var before, now time.Time
	if err := db.QueryRow(`SELECT pg_backend_pid(), stats_reset FROM pg_stat_bgwriter`).Scan(&pid, &before); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server is back", func() bool { // a crash resets its statistics
		return db.Get(&now, `SELECT stats_reset FROM pg_stat_bgwriter`) == nil && now.After(before)
	})
}
