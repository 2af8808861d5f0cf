package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/store/postgres"
	"github.com/ringmaster-dev/ringmaster/store/storetest"
)

// fault is what befalls a connection at the moment a commit is sent.
type fault int

const (
	none   fault = iota
	before       // it is cut before anything is sent
	half         // it is cut when half is sent
	after        // it is cut when all is sent
	answer       // it is cut when the server has answered
	silent       // all but the end is sent, and the rest when wire.release is closed

)

// wire makes connections that suffer what plan says at each commit.
type wire struct {
	plan    func() fault
	release chan struct{}
	reached chan struct{} // closed at the first silence
	once    sync.Once
}

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &faultyConn{Conn: c, wire: w}, nil
}

type faultyConn struct {
	net.Conn
	wire *wire
}

// commits tells whether a message asks for a commit: it binds the first statement
// of one, or ends a transaction that was begun.
func commits(b []byte) bool {
	return bytes.Contains(b, []byte("\x00guard\x00")) || bytes.Contains(b, []byte("commit\x00"))
}

var errCut = errors.New("the cable was cut")

func (c *faultyConn) Write(b []byte) (int, error) {
	if !commits(b) {
		return c.Conn.Write(b)
	}
	f := c.wire.plan()
	switch f {
	case none:
		return c.Conn.Write(b)
	case before:
		return 0, errors.Join(errCut, c.Close())
	case half:
		n, _ := c.Conn.Write(b[:len(b)/2])
		return n, errors.Join(errCut, c.Close())
	case silent:
		if n, err := c.Conn.Write(b[:len(b)-1]); err != nil {
			return n, err
		}
		c.wire.once.Do(func() { close(c.wire.reached) })
		<-c.wire.release
		n, err := c.Conn.Write(b[len(b)-1:])
		return len(b) - 1 + n, err
	}
	n, err := c.Conn.Write(b)
	if f == answer && err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	return n, errors.Join(errCut, err, c.Close())
}

func TestCommitsWhoseAnswerIsLostAreWrittenOnce(t *testing.T) {
	url := testenv.Postgres(t)
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			d, reg := newSchema(t, url), prometheus.NewRegistry()
			rng := rand.New(rand.NewPCG(seed, 7))
			seen := map[fault]int{}
			kinds := []fault{before, half, after, answer}
			rng.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
			struck := 0
			w := &wire{plan: func() fault {
				if rng.IntN(3) > 0 {
					return none
				}
				f := kinds[struck%len(kinds)]
				struck++
				seen[f]++
				return f
			}}
			cfg := d.config(storetest.ScriptShards)
			cfg.Registerer = reg
			s, err := postgres.OpenTuned(t.Context(), cfg, postgres.Tuning{Dial: w.dial})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			script := storetest.NewScript(seed)
			if err := script.Begin(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			const n = 30
			for range n {
				if err := script.Commit(s); err != nil {
					t.Fatal(err)
				}
			}
			for f := before; f <= answer; f++ {
				if seen[f] == 0 {
					t.Errorf("fault %d never struck", f)
				}
			}
			// What the server had answered was found, not written again.
			if found := counter(t, reg, "ringmaster_store_found_commits_total"); found < float64(seen[answer]) {
				t.Errorf("%v commits were found of %d that had been answered", found, seen[answer])
			}
			storetest.Verify(t, d, seed, n, n)
		})
	}
}

func counter(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// opened opens a store on a new schema, with a workflow and one acquired shard.
func opened(t *testing.T, d schema, tune postgres.Tuning, change ...func(*postgres.Config)) (*postgres.Store, uint64) {
	t.Helper()
	cfg := d.config(4)
	for _, c := range change {
		c(&cfg)
	}
	s, err := postgres.OpenTuned(t.Context(), cfg, tune)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if _, _, err := s.PutWorkflow(t.Context(), store.WorkflowInfo{Name: "w", Version: "1"}, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	epoch, _, err := s.Acquire(t.Context(), 1, "first")
	if err != nil {
		t.Fatal(err)
	}
	return s, epoch
}

// creates is a part that creates a run.
func creates(epoch uint64, n int64) store.Part {
	now := time.Now()
	r := store.Run{Ref: store.RefBase(1) + n, ID: fmt.Sprint("run ", n), Shard: 1, Workflow: "w", Version: "1",
		Status: store.StatusRunning, Created: now, Updated: now}
	return store.Part{Shard: 1, Epoch: epoch, Create: []store.Run{r}, Append: []store.Record{{Ref: r.Ref, Seq: 1, Data: []byte("x")}}}
}

// The parts that are left out are the same ones when the commit of the others is
// found.
func TestACommitWithRefusedPartsIsFound(t *testing.T) {
	var plan atomic.Int32
	w := &wire{plan: func() fault { return fault(plan.Load()) }}
	s, epoch := opened(t, newSchema(t, testenv.Postgres(t)), postgres.Tuning{Dial: w.dial})
	n := 0
	w.plan = func() fault {
		// The first attempt fails on the stale epoch; then comes the careful one.
		if n++; n == 2 {
			return answer
		}
		return none
	}
	errs, err := s.Commit([]store.Part{creates(epoch-1, 1), creates(epoch, 2)})
	if err != nil {
		t.Fatal(err)
	}
	if len(errs) != 2 || !errors.Is(errs[0], store.ErrStaleEpoch) || errs[1] != nil {
		t.Errorf("errors are %v", errs)
	}
	counts, err := s.Counts(t.Context())
	if err != nil || counts["w"][store.StatusRunning] != 1 {
		t.Errorf("counts are %v, %v", counts, err)
	}
	if n != 2 {
		t.Errorf("commits were sent %d times, want 2", n)
	}
}

// S13: an owner that stops in the middle of sending a commit does not hold its
// shard, and what it sends when it goes on is refused.
func TestAShardIsTakenFromAnOwnerThatIsSilentInTheMiddleOfACommit(t *testing.T) {
	d := newSchema(t, testenv.Postgres(t))
	var armed atomic.Bool
	w := &wire{release: make(chan struct{}), reached: make(chan struct{})}
	w.plan = func() fault {
		if armed.CompareAndSwap(true, false) {
			return silent
		}
		return none
	}
	s, epoch := opened(t, d, postgres.Tuning{Dial: w.dial})
	armed.Store(true)
	type outcome struct {
		errs []error
		err  error
	}
	done := make(chan outcome, 1)
	go func() {
		errs, err := s.Commit([]store.Part{creates(epoch, 1)})
		done <- outcome{errs, err}
	}()
	<-w.reached
	other, err := d.Open(t.Context(), 4)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	next, last, err := other.Acquire(t.Context(), 1, "second")
	if err != nil || next <= epoch || last != store.RefBase(1) {
		t.Fatalf("epoch %d after %d, last number %d, %v", next, epoch, last, err)
	}
	close(w.release)
	o := <-done
	if o.err != nil || len(o.errs) != 1 || !errors.Is(o.errs[0], store.ErrStaleEpoch) {
		t.Errorf("the commit of the first owner: %v, %v", o.errs, o.err)
	}
	if errs, err := other.Commit([]store.Part{creates(next, 1)}); errs != nil || err != nil {
		t.Errorf("the commit of the second owner: %v, %v", errs, err)
	}
}

func TestAFullDiskIsWaitedFor(t *testing.T) {
	d := newSchema(t, testenv.Postgres(t))
	s, epoch := opened(t, d, postgres.Tuning{})
	// The numbers of a sequence are not given back with the transaction.
	d.exec(t, "CREATE SEQUENCE attempts", `CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF nextval('attempts') < 3 THEN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END IF; RETURN NEW; END $$`,
		"CREATE TRIGGER full_disk BEFORE INSERT ON runs FOR EACH ROW EXECUTE FUNCTION full_disk()")
	if errs, err := s.Commit([]store.Part{creates(epoch, 1)}); errs != nil || err != nil {
		t.Fatal(errs, err)
	}
	if _, err := s.Run(t.Context(), "run 1"); err != nil {
		t.Error(err)
	}
}

func TestAStoreGivesUpWhenItsPatienceEnds(t *testing.T) {
	var down atomic.Bool
	w := &wire{plan: func() fault {
		if down.Load() {
			return before
		}
		return none
	}}
	s, epoch := opened(t, newSchema(t, testenv.Postgres(t)), postgres.Tuning{Dial: w.dial}, func(c *postgres.Config) { c.Patience = 300 * time.Millisecond })
	down.Store(true)
	_, err := s.Commit([]store.Part{creates(epoch, 1)})
	if err == nil || !strings.Contains(err.Error(), "given up after 300ms") {
		t.Errorf("error is %v", err)
	}
	down.Store(false)
	if _, err := s.Commit([]store.Part{creates(epoch, 1)}); err == nil {
		t.Error("a store took a commit after one had failed")
	}
	if err := s.Check(t.Context()); err == nil {
		t.Error("a store is sound after a commit has failed")
	}
	if err := s.SetNote(t.Context(), "n", []byte("v")); err == nil {
		t.Error("a store kept a note after a commit had failed")
	}
	if _, err := s.List(t.Context(), store.Filter{}); err != nil {
		t.Errorf("reading after a failed commit: %v", err)
	}
}

// The server is killed and started again amid commits; sessions are ended, too. Nothing that
// was acknowledged is lost, nothing is written twice, and prepared statements are there.
func TestCommitsOutliveTheServer(t *testing.T) {
	server, err := testenv.StartPostgres(t.Context(), testenv.PostgresConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	d := schema{server.URL, "outlives"}
	s, err := d.Open(t.Context(), storetest.ScriptShards)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const seed = 31
	script := storetest.NewScript(seed)
	if err := script.Begin(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	const n = 300
	committed, ended := make(chan int, n), make(chan error, 1)
	go func() {
		for i := range n {
			if err := script.Commit(s); err != nil {
				ended <- err
				return
			}
			committed <- i + 1
		}
		ended <- nil
	}()
	for at := range committed {
		switch {
		case at == n:
			close(committed)
		case at == 60 || at == 200:
			server.Kill()
			if err := server.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		case at%50 == 0:
			d.exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'ringmaster%'")
		}
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	storetest.Verify(t, d, seed, n, n)
	if _, err := s.List(t.Context(), store.Filter{}); err != nil {
		t.Errorf("reading by connections of before: %v", err)
	}
}
