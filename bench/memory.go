package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	startsAtATime   = 64 // connections that start one run a request
	batchesAtATime  = 4  // of starts, to get to the larger number
	memoryBatchSize = 500
)

// measureMemory stops the workers and lets runs gather that nobody carries
// out. Before that, the daemon works at full load for a while, so that what it
// keeps up to a bound, such as SQLite's page cache, is full in both figures,
// and the difference between them is what unfinished runs take.
func measureMemory(ctx context.Context, b *bench) (err error) {
	s, err := newSystem(ctx, b, "memory")
	if err != nil {
		return err
	}
	defer s.kill()
	if err := s.startWorkers(ctx, b.o.load.concurrency); err != nil {
		return err
	}
	if _, err := saturate(ctx, s, succeeding, 0, b.d.warmUp, nothing); err != nil {
		return err
	}
	if err := s.stopWorkers(ctx); err != nil {
		return err
	}
	perS, err := startOneByOne(ctx, s.client, succeeding, b.d.unloaded, startsAtATime)
	if err != nil {
		return err
	}
	b.report.set("start.http_per_s", perS, "1/s")
	b.say("  %.0f starts/s, one a request, over %d connections", perS, startsAtATime)
	if err := b.recordRSS(ctx, s, "10k", b.d.unloaded); err != nil {
		return err
	}
	began := time.Now()
	if err := startBatches(ctx, &load{s: s, w: succeeding}, b.d.loaded-b.d.unloaded); err != nil {
		return err
	}
	perS = perSecond(int64(b.d.loaded-b.d.unloaded), time.Since(began))
	b.report.set("start.batch_per_s", perS, "1/s")
	b.say("  %.0f starts/s in batches of %d", perS, memoryBatchSize)
	return b.recordRSS(ctx, s, "100k", b.d.loaded)
}

// startBatches starts n runs.
func startBatches(ctx context.Context, l *load, n int) error {
	g, ctx := errgroup.WithContext(ctx)
	var taken atomic.Int64
	for range batchesAtATime {
		g.Go(func() error {
			for {
				end := taken.Add(memoryBatchSize)
				size := min(memoryBatchSize, int64(n)-end+memoryBatchSize)
				if size <= 0 {
					return nil
				}
				if _, err := l.batch(ctx, int(size)); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

// recordRSS records the memory of the orchestrator once it has settled, and
// checks that the runs are all there.
func (b *bench) recordRSS(ctx context.Context, s *system, name string, runs int) error {
	mb, took, err := settledRSS(ctx, s, b.d.settle)
	if err != nil {
		return err
	}
	c, err := s.counts(ctx, succeeding)
	if err != nil {
		return err
	}
	if c.underWay != int64(runs) || len(c.wrong) > 0 {
		return fmt.Errorf("%d runs are under way, and have to be %d; otherwise %v", c.underWay, runs, c.wrong)
	}
	if b.o.profile != "" {
		file := b.profileFile("orchestrator-heap-" + name)
		if err := fetch(ctx, "http://"+s.daemonPpr+"/debug/pprof/heap?gc=1", file); err != nil {
			return err
		}
	}
	b.report.set("orchestrator.rss_mb."+name, mb, "MB")
	b.say("  %d unfinished runs: %.1f MB, settled after %v", runs, mb, took.Round(time.Second))
	return nil
}

// settledRSS waits, up to a limit, until memory has not moved by more than 1 %
// for some seconds.
func settledRSS(ctx context.Context, s *system, limit time.Duration) (mb float64, took time.Duration, err error) {
	const still = 4 * time.Second
	began := time.Now()
	since, at := began, 0.0
	for {
		if mb, err = rssMB(s.daemon.pid()); err != nil {
			return 0, 0, errors.Join(err, s.alive())
		}
		if mb < 0.99*at || mb > 1.01*at {
			since, at = time.Now(), mb
		}
		if time.Since(since) >= still || time.Since(began) >= limit {
			return mb, time.Since(began), nil
		}
		select {
		case <-ctx.Done():
			return 0, 0, context.Cause(ctx)
		case <-time.After(250 * time.Millisecond):
		}
	}
}
