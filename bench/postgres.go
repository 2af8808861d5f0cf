package main

import (
	"context"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
)

// measurePostgres has sagas with all state in PostgreSQL, whose commits are as
// durable as they are by default, which is wholly.
func measurePostgres(ctx context.Context, b *bench) error {
	b.say("  starting a private PostgreSQL")
	server, err := testenv.StartPostgres(ctx, testenv.PostgresConfig{})
	if err != nil {
		return err
	}
	defer server.Close()
	s, err := newSystemOn(ctx, b, "postgres-store", server)
	if err != nil {
		return err
	}
	defer s.kill()
	if err := s.startWorkers(ctx, b.o.load.concurrency); err != nil {
		return err
	}
	each, err := oneByOne(ctx, s, succeeding, b.d.light)
	if err != nil {
		return err
	}
	o, err := b.profiled(ctx, s, "postgres", b.d.saturated, func(during during) (outcome, error) {
		return saturate(ctx, s, succeeding, b.d.warmUp, b.d.saturated, during)
	})
	if err != nil {
		return err
	}
	r := b.report
	r.set("saga.postgres.light.p50_ms", each.quantile(0.5), "ms")
	r.set("saga.postgres.light.p99_ms", each.quantile(0.99), "ms")
	r.set("saga.postgres.per_s", o.perS, "1/s")
	r.set("saga.postgres.saturated.p50_ms", o.samples.quantile(0.5), "ms")
	r.set("saga.postgres.saturated.p99_ms", o.samples.quantile(0.99), "ms")
	r.set("saga.postgres.cpu", o.serverCPU, "s per 1000")
	r.set("orchestrator.postgres.cpu_s_per_1000", o.daemonCPU, "s")
	b.say("  one at a time: p50 %.2f ms, p99 %.2f ms", each.quantile(0.5), each.quantile(0.99))
	b.sayOutcome(o)
	b.say("  PostgreSQL: %.3f CPU s per 1,000", o.serverCPU)
	return s.close(ctx)
}
