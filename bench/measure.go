package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mattn/go-sqlite3"
)

var selfPID = os.Getpid()

// shared is the system that the phases with ordinary load share, with its
// workers.
func (b *bench) shared(ctx context.Context) (*system, error) {
	if b.sys != nil {
		return b.sys, nil
	}
	s, err := newSystem(ctx, b, "load")
	if err != nil {
		return nil, err
	}
	b.sys = s
	return s, s.startWorkers(ctx, b.o.load.concurrency)
}

func measureLight(ctx context.Context, b *bench) error {
	s, err := b.shared(ctx)
	if err != nil {
		return err
	}
	each, err := oneByOne(ctx, s, succeeding, b.d.light)
	if err != nil {
		return err
	}
	b.report.set("saga.light.p50_ms", each.quantile(0.5), "ms")
	b.report.set("saga.light.p99_ms", each.quantile(0.99), "ms")
	b.say("  %d runs: p50 %.2f ms, p99 %.2f ms", len(each), each.quantile(0.5), each.quantile(0.99))
	return nil
}

func measureSaturated(ctx context.Context, b *bench) error {
	s, err := b.shared(ctx)
	if err != nil {
		return err
	}
	o, err := b.profiled(ctx, s, "saturated", b.d.saturated, func(during during) (outcome, error) {
		return saturate(ctx, s, succeeding, b.d.warmUp, b.d.saturated, during)
	})
	if err != nil {
		return err
	}
	r := b.report
	r.set("saga.per_s", o.perS, "1/s")
	r.setRatio("saga")
	r.set("saga.saturated.p50_ms", o.samples.quantile(0.5), "ms")
	r.set("saga.saturated.p99_ms", o.samples.quantile(0.99), "ms")
	r.set("orchestrator.cpu_s_per_1000", o.daemonCPU, "s")
	r.set("workers.cpu_s_per_1000", o.workersCPU, "s")
	r.set("broker.cpu_s_per_1000", o.brokerCPU, "s")
	r.set("load.cpu_s_per_1000", o.selfCPU, "s")
	b.sayOutcome(o)
	return nil
}

func (b *bench) sayOutcome(o outcome) {
	b.say("  %.0f runs/s, p50 %.1f ms, p99 %.1f ms (%d samples); CPU s per 1,000: orchestrator %.3f, workers %.3f, broker %.3f, load %.3f",
		o.perS, o.samples.quantile(0.5), o.samples.quantile(0.99), len(o.samples), o.daemonCPU, o.workersCPU, o.brokerCPU, o.selfCPU)
}

func measureLoad80(ctx context.Context, b *bench) error {
	rate := b.o.rate
	if rate == 0 {
		reached, ok := b.report.get("saga.per_s")
		if !ok {
			return errors.New("it needs the phase saturated before it, or --rate")
		}
		rate = 0.8 * reached
	}
	s, err := b.shared(ctx)
	if err != nil {
		return err
	}
	o, err := b.profiled(ctx, s, "load80", b.d.load80, func(during during) (outcome, error) {
		return offer(ctx, s, succeeding, rate, b.d.warmUp, b.d.load80, during)
	})
	if err != nil {
		return err
	}
	b.report.set("saga.load80.per_s", o.perS, "1/s")
	b.report.set("saga.load80.p50_ms", o.samples.quantile(0.5), "ms")
	b.report.set("saga.load80.p99_ms", o.samples.quantile(0.99), "ms")
	b.report.set("orchestrator.load80.cpu_s_per_1000", o.daemonCPU, "s")
	b.sayOutcome(o)
	return nil
}

// measureHistory looks at the size of the database of the phases before, whose
// runs are all alike, while nobody has it open.
func measureHistory(ctx context.Context, b *bench) error {
	s, err := b.shared(ctx)
	if err != nil {
		return err
	}
	c, err := s.counts(ctx, succeeding)
	if err != nil {
		return err
	}
	if c.ended < 1_000 {
		if _, err := saturate(ctx, s, succeeding, 0, time.Second, nothing); err != nil {
			return err
		}
		if c, err = s.counts(ctx, succeeding); err != nil {
			return err
		}
	}
	if err := s.stopDaemon(); err != nil {
		return err
	}
	size, err := checkpointed(s.db)
	if err != nil {
		return err
	}
	each := float64(size)/float64(c.ended) - float64(payloadBytes())
	b.report.set("history.bytes_per_run", each, "B")
	b.say("  %d runs in %.1f MB: %.0f bytes each beyond %d of payload", c.ended, float64(size)/1e6, each, payloadBytes())
	if err := s.startDaemon(ctx); err != nil {
		return err
	}
	return s.awaitWorkers(ctx, b.o.load.workers)
}

// checkpointed moves what is left in the log of a database into its file, and
// returns the size of that.
func checkpointed(path string) (int64, error) {
	c, err := (&sqlite3.SQLiteDriver{}).Open("file:" + path + "?mode=rw")
	if err != nil {
		return 0, err
	}
	_, err = c.(*sqlite3.SQLiteConn).Exec("PRAGMA wal_checkpoint(TRUNCATE)", nil)
	if err := errors.Join(err, c.Close()); err != nil {
		return 0, fmt.Errorf("checkpoint %s: %w", path, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func measureTCC(ctx context.Context, b *bench) error {
	return measureTransaction(ctx, b, "tcc", booking)
}

func measureTwoPhase(ctx context.Context, b *bench) error {
	return measureTransaction(ctx, b, "twophase", transfer)
}

// measureTransaction saturates the system with a TCC or a two-phase commit.
func measureTransaction(ctx context.Context, b *bench, name string, w workload) error {
	s, err := b.shared(ctx)
	if err != nil {
		return err
	}
	o, err := b.profiled(ctx, s, name, b.d.transactions, func(during during) (outcome, error) {
		return saturate(ctx, s, w, b.d.warmUp, b.d.transactions, during)
	})
	if err != nil {
		return err
	}
	r := b.report
	r.set(name+".per_s", o.perS, "1/s")
	r.setRatio(name)
	r.set(name+".saturated.p50_ms", o.samples.quantile(0.5), "ms")
	r.set(name+".saturated.p99_ms", o.samples.quantile(0.99), "ms")
	r.set("orchestrator."+name+".cpu_s_per_1000", o.daemonCPU, "s")
	b.sayOutcome(o)
	return nil
}

// measureFailing is the last phase on the shared system, and ends it.
func measureFailing(ctx context.Context, b *bench) error {
	s, err := b.shared(ctx)
	if err != nil {
		return err
	}
	o, err := saturate(ctx, s, failing, b.d.warmUp, b.d.failing, nothing)
	if err != nil {
		return err
	}
	b.report.set("saga.failing.per_s", o.perS, "1/s")
	b.report.set("saga.failing.p99_ms", o.samples.quantile(0.99), "ms")
	b.sayOutcome(o)
	b.sys = nil
	if err := s.close(ctx); err != nil {
		s.kill()
		return err
	}
	return nil
}
