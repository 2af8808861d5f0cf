package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ringmaster-dev/ringmaster/client"
)

// inFlight is how many runs the orchestrator is killed with.
const inFlight = 500

// measureRecovery kills the orchestrator with runs in flight whose steps take
// some time, and starts it again at once. The workers live on, as they would.
func measureRecovery(ctx context.Context, b *bench) error {
	s, err := newSystem(ctx, b, "recovery")
	if err != nil {
		return err
	}
	defer s.kill()
	// With a handler for every run, all of them are at a worker when it happens.
	if err := s.startWorkers(ctx, inFlight/b.o.load.workers+1); err != nil {
		return err
	}
	// What is done once, such as a worker's first task, is done before.
	if _, err := (&load{s: s, w: slowly}).batch(ctx, inFlight); err != nil {
		return err
	}
	if err := s.settle(ctx, slowly, inFlight, time.Minute); err != nil {
		return err
	}
	var first, last time.Duration
	for i := range b.d.kills {
		// No run can end before its three steps have taken the least they take.
		// The kills come at different times within that.
		moment := steps * slowMin * time.Duration(i+1) / time.Duration(b.d.kills+1)
		f, l, err := killOnce(ctx, s, moment, int64(i+2)*inFlight)
		if err != nil {
			return err
		}
		b.say("  kill %d: the first run ended %.0f ms after the start, the last %.0f ms", i+1, ms(f), ms(l))
		first, last = max(first, f), max(last, l)
	}
	b.report.set("recovery.resume_ms", ms(first), "ms")
	b.report.set("recovery.all_ms", ms(last), "ms")
	return nil
}

// killOnce returns how long after its new start the orchestrator has ended the
// first and the last of the runs that were in flight. The kill comes so long
// after the request that starts them, but not before its answer. total is how
// many runs there have to be then.
func killOnce(ctx context.Context, s *system, moment time.Duration, total int64) (first, last time.Duration, err error) {
	began := time.Now()
	if _, err := (&load{s: s, w: slowly}).batch(ctx, inFlight); err != nil {
		return 0, 0, err
	}
	select {
	case <-ctx.Done():
		return 0, 0, context.Cause(ctx)
	case <-time.After(time.Until(began.Add(moment))):
	}
	s.daemon.kill()
	s.client.CloseIdleConnections()
	restarted := time.Now()
	if err := s.execDaemon(ctx); err != nil {
		return 0, 0, err
	}
	if err := s.settle(ctx, slowly, total, 2*time.Minute); err != nil {
		return 0, 0, err
	}
	return endsSince(ctx, s, began, restarted)
}

// endsSince returns how long after a moment the first and the last of the runs
// ended that were started since another moment.
func endsSince(ctx context.Context, s *system, started, since time.Time) (first, last time.Duration, err error) {
	all, n := 0, 0
	for run, err := range s.client.All(ctx, client.Filter{Workflow: slowly.name(), Since: started.Truncate(time.Millisecond), Limit: 1000}) {
		if err != nil {
			return 0, 0, err
		}
		all++
		if run.Ended == nil || run.Status != slowly.status {
			return 0, 0, fmt.Errorf("run %s is %s", run.ID, run.Status)
		}
		after := run.Ended.Sub(since)
		if after < 0 {
			continue
		}
		if n++; n == 1 || after < first {
			first = after
		}
		last = max(last, after)
	}
	switch {
	case all != inFlight:
		err = fmt.Errorf("%d runs are listed, and have to be %d", all, inFlight)
	case n < inFlight*9/10:
		err = fmt.Errorf("only %d of %d runs were unfinished at the kill", n, inFlight)
	case first <= 0:
		err = errors.New("a run ended before the orchestrator was started")
	}
	return first, last, err
}
