package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
)

// member is another orchestrator of a system, which shares its database.
type member struct {
	listen string
	client *client.Client
	daemon *child
}

// join starts another orchestrator, and waits until all own their part.
func (s *system) join(ctx context.Context) error {
	listen, err := freeAddress()
	if err != nil {
		return err
	}
	m := &member{listen: listen}
	if m.client, err = newClient(listen); err != nil {
		return err
	}
	program, err := s.b.program("orchestrator")
	if err != nil {
		return err
	}
	name := fmt.Sprintf("orchestrator-%d", len(s.members)+2)
	m.daemon, err = spawn(ctx, name, s.dir, program, false, "serve", "--listen", listen, "--db", s.db, "--amqp-url", s.amqpURL,
		"--namespace", s.namespace(), "--log-level", "warn", "--node", name)
	if err != nil {
		return err
	}
	s.members = append(s.members, m)
	return s.await(ctx, "shards that are shared", time.Minute, func(ctx context.Context) (bool, error) {
		mine, err := shardsOwned(ctx, s.listen)
		if err != nil {
			return false, err
		}
		theirs, err := shardsOwned(ctx, listen)
		return err == nil && mine == theirs && mine > 0, nil
	})
}

// shardsOwned is how many shards an orchestrator says it owns.
func shardsOwned(ctx context.Context, listen string) (n int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+listen+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _, _ = io.Copy(io.Discard, resp.Body); resp.Body.Close() }()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "ringmaster_shards_owned "); ok {
			_, err := fmt.Sscan(value, &n)
			return n, err
		}
	}
	return 0, fmt.Errorf("%s does not say how many shards it owns", listen)
}

// measureSeveral has two orchestrators share one PostgreSQL, on the same cores as
// one had before, and then kills one of them.
func measureSeveral(ctx context.Context, b *bench) error {
	server, err := testenv.StartPostgres(ctx, testenv.PostgresConfig{})
	if err != nil {
		return err
	}
	defer server.Close()
	s, err := newSystemOn(ctx, b, "two", server)
	if err != nil {
		return err
	}
	defer s.kill()
	if err := s.join(ctx); err != nil {
		return err
	}
	// With a handler for every run, all can be at a worker when it happens.
	if err := s.startWorkers(ctx, max(b.o.load.concurrency, inFlight/b.o.load.workers+1)); err != nil {
		return err
	}
	o, err := saturate(ctx, s, succeeding, b.d.warmUp, b.d.saturated, nothing)
	if err != nil {
		return err
	}
	b.report.set("saga.two.per_s", o.perS, "1/s")
	b.report.set("saga.two.cpu_s_per_1000", o.daemonCPU, "s")
	b.sayOutcome(o)
	took, ended, err := takeOver(ctx, s)
	if err != nil {
		return err
	}
	b.report.set("takeover.ms", ms(took), "ms")
	b.report.set("takeover.all_ended_ms", ms(ended), "ms")
	b.say("  an orchestrator was killed: the other owned its shards %.0f ms later, and its %d runs in flight had ended after %.0f ms", ms(took), inFlight, ms(ended))
	return s.close(ctx)
}

// takeOver kills one of two orchestrators with runs in flight, and returns how
// long after that the other owns all shards, and all runs have ended.
func takeOver(ctx context.Context, s *system) (took, ended time.Duration, err error) {
	mine, err := shardsOwned(ctx, s.listen)
	if err != nil {
		return 0, 0, err
	}
	if _, err := (&load{s: s, w: slowly}).batch(ctx, inFlight); err != nil {
		return 0, 0, err
	}
	victim := s.members[len(s.members)-1]
	s.members = s.members[:len(s.members)-1]
	victim.daemon.kill()
	victim.client.CloseIdleConnections()
	killed := time.Now()
	err = s.await(ctx, "takeover", time.Minute, func(ctx context.Context) (bool, error) {
		n, err := shardsOwned(ctx, s.listen)
		return err == nil && n == 2*mine, err
	})
	if err != nil {
		return 0, 0, err
	}
	took = time.Since(killed)
	if err := s.settle(ctx, slowly, inFlight, 2*time.Minute); err != nil {
		return 0, 0, err
	}
	return took, time.Since(killed), nil
}
