package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
)

// system is an orchestrator with a new database, and its workers. Every system
// has a namespace of its own on the broker.
type system struct {
	b         *bench
	name      string
	dir       string
	db        string
	listen    string
	amqpURL   string
	client    *client.Client
	daemon    *child
	members   []*member // other orchestrators
	turn      atomic.Uint64
	workers   []*child
	server    *testenv.PostgresServer // of the database, where it is on one
	daemonPpr string                  // address of its profiles
	workerPpr string                  // of the first worker's
}

// newSystem starts an orchestrator on SQLite and registers the workflows.
func newSystem(ctx context.Context, b *bench, name string) (*system, error) {
	return newSystemOn(ctx, b, name, nil)
}

// newSystemOn does so with a database on a server.
func newSystemOn(ctx context.Context, b *bench, name string, server *testenv.PostgresServer) (*system, error) {
	r, err := b.broker(ctx)
	if err != nil {
		return nil, err
	}
	s := &system{b: b, name: name, dir: filepath.Join(b.dir, name), amqpURL: r.URL, server: server}
	if s.db = filepath.Join(s.dir, "ringmaster.db"); server != nil {
		s.db = server.URL
	}
	if err := os.Mkdir(s.dir, 0o755); err != nil {
		return nil, err
	}
	for _, to := range []*string{&s.listen, &s.daemonPpr, &s.workerPpr} {
		if *to, err = freeAddress(); err != nil {
			return nil, err
		}
	}
	if s.client, err = newClient(s.listen); err != nil {
		return nil, err
	}
	if err := s.startDaemon(ctx); err != nil {
		s.kill()
		return nil, err
	}
	for _, w := range workloads {
		if _, err := s.client.Register(ctx, w.workflow); err != nil {
			s.kill()
			return nil, err
		}
	}
	return s, nil
}

// newClient makes a client that tries nothing twice: a refusal is a failure of the
// measurement.
func newClient(listen string) (*client.Client, error) {
	transport := &http.Transport{MaxIdleConns: 4096, MaxIdleConnsPerHost: 4096, DisableCompression: true}
	return client.New(client.Config{URL: "http://" + listen, HTTPClient: &http.Client{Transport: transport}, RetryFor: -1})
}

// any is the client of the orchestrator whose turn it is.
func (s *system) any() *client.Client {
	if i := s.turn.Add(1) % uint64(len(s.members)+1); i > 0 {
		return s.members[i-1].client
	}
	return s.client
}

// daemons are the processes of all orchestrators.
func (s *system) daemons() []*child {
	all := []*child{s.daemon}
	for _, m := range s.members {
		all = append(all, m.daemon)
	}
	return all
}

// startDaemon starts the orchestrator and waits until it serves.
func (s *system) startDaemon(ctx context.Context) error {
	if err := s.execDaemon(ctx); err != nil {
		return err
	}
	return s.await(ctx, "the orchestrator to serve", time.Minute, func(ctx context.Context) (bool, error) {
		h, err := s.client.Health(ctx)
		return err == nil && h.Status == "ok", nil
	})
}

// execDaemon starts the orchestrator and does not wait.
func (s *system) execDaemon(ctx context.Context) error {
	program, err := s.b.program("orchestrator")
	if err != nil {
		return err
	}
	args := []string{"serve", "--listen", s.listen, "--db", s.db, "--amqp-url", s.amqpURL,
		"--namespace", s.namespace(), "--log-level", "warn"}
	if s.b.o.profile != "" {
		args = append(args, "--pprof-listen", s.daemonPpr)
	}
	s.daemon, err = spawn(ctx, "orchestrator", s.dir, program, false, args...)
	return err
}

// namespace keeps the systems of this and other measurements apart.
func (s *system) namespace() string { return fmt.Sprintf("bench-%d-%s", os.Getpid(), s.name) }

// startWorkers starts the workers and waits until the orchestrator has them
// all.
func (s *system) startWorkers(ctx context.Context, concurrency int) error {
	l := s.b.o.load
	for i := range l.workers {
		name := fmt.Sprintf("worker-%d", i+1)
		args := []string{"worker", "--amqp-url", s.amqpURL, "--namespace", s.namespace(), "--name", name,
			fmt.Sprintf("--concurrency=%d", concurrency), fmt.Sprintf("--prefetch=%d", l.prefetch)}
		if i == 0 && s.b.o.profile != "" {
			args = append(args, "--pprof-listen", s.workerPpr)
		}
		w, err := spawn(ctx, name, s.dir, s.b.self, false, args...)
		if err != nil {
			return err
		}
		s.workers = append(s.workers, w)
	}
	return s.awaitWorkers(ctx, l.workers)
}

// stopWorkers has all workers drain and leave.
func (s *system) stopWorkers(ctx context.Context) error {
	var errs []error
	for _, w := range s.workers {
		errs = append(errs, w.stop())
	}
	s.workers = nil
	return errors.Join(append(errs, s.awaitWorkers(ctx, 0))...)
}

func (s *system) awaitWorkers(ctx context.Context, n int) error {
	return s.await(ctx, fmt.Sprintf("%d workers", n), time.Minute, func(ctx context.Context) (bool, error) {
		workers, err := s.client.Workers(ctx)
		ready := 0
		for _, w := range workers {
			if w.State == "ready" {
				ready++
			}
		}
		return err == nil && ready == n, err
	})
}

// stopDaemon ends the orchestrator in the regular way.
func (s *system) stopDaemon() error {
	s.client.CloseIdleConnections()
	var errs []error
	for _, m := range s.members {
		m.client.CloseIdleConnections()
	}
	for _, d := range s.daemons() {
		errs = append(errs, d.stop())
	}
	s.members = nil
	return errors.Join(errs...)
}

// close ends all parts in the regular way.
func (s *system) close(ctx context.Context) error {
	return errors.Join(s.stopWorkers(ctx), s.stopDaemon())
}

// kill ends whatever runs.
func (s *system) kill() {
	for _, c := range append(s.daemons(), s.workers...) {
		if c != nil {
			c.kill()
		}
	}
	s.workers = nil
}

// alive is an error once a part has ended by itself.
func (s *system) alive() error {
	var errs []error
	for _, w := range append(s.daemons(), s.workers...) {
		errs = append(errs, w.alive())
	}
	return errors.Join(errs...)
}

// await asks until the answer is yes.
func (s *system) await(ctx context.Context, what string, limit time.Duration, done func(context.Context) (bool, error)) error {
	const pause = 20 * time.Millisecond
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no %s after %v", what, limit))
	defer cancel()
	for {
		ok, err := done(ctx)
		if ok {
			return nil
		}
		if err := s.alive(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx)), err)
		case <-time.After(pause):
		}
	}
}

// counts are the numbers of runs of a workload.
type counts struct {
	ended    int64 // as they have to
	underWay int64
	wrong    map[string]int64 // that are neither, by status
}

func (s *system) counts(ctx context.Context, w workload) (counts, error) {
	stats, err := s.client.Stats(ctx)
	if err != nil {
		return counts{}, err
	}
	c := counts{wrong: map[string]int64{}}
	for status, n := range stats.Runs[w.name()] {
		switch {
		case n == 0:
		case status == w.status:
			c.ended += n
		case client.Ended(status) || status == "stalled":
			c.wrong[status] += n
		default:
			c.underWay += n
		}
	}
	return c, nil
}

// settle waits until every run of a workload has ended and checks that each
// ended as it had to, and that none was lost or made up.
func (s *system) settle(ctx context.Context, w workload, started int64, limit time.Duration) error {
	var last counts
	err := s.await(ctx, "end of every run of "+w.name(), limit, func(ctx context.Context) (bool, error) {
		c, err := s.counts(ctx, w)
		if err != nil {
			return false, err
		}
		last = c
		return c.underWay == 0 && c.ended >= started || len(c.wrong) > 0, nil
	})
	if err == nil && len(last.wrong) == 0 && last.ended == started {
		return nil
	}
	return errors.Join(err, fmt.Errorf("%s: %d runs were started; %d are %s, %d under way, and otherwise %v",
		w.name(), started, last.ended, w.status, last.underWay, last.wrong))
}
