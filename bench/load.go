package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// pollTimeout bounds one wait for a run to end; a run that takes longer fails
// the measurement.
const pollTimeout = 30 * time.Second

// load puts load on a system and keeps what comes of it.
type load struct {
	s *system
	w workload

	started atomic.Int64 // runs
	measure atomic.Bool  // latencies of runs that start now count

	mu      sync.Mutex
	samples latencies
	err     error // the first
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
}

func (l *load) failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// batch starts n runs with one request and returns their ids.
func (l *load) batch(ctx context.Context, n int) ([]rest.Start, error) {
	starts, err := l.w.starts(n)
	if err != nil {
		return nil, err
	}
	outcomes, err := l.s.any().StartBatch(ctx, starts)
	if err != nil {
		return nil, err
	}
	for _, o := range outcomes {
		if o.Error != nil {
			return nil, fmt.Errorf("a run of a batch was refused: %w", o.Error)
		}
	}
	if len(outcomes) != n {
		return nil, fmt.Errorf("a batch of %d starts got %d answers", n, len(outcomes))
	}
	l.started.Add(int64(n))
	return starts, nil
}

// wait waits until a run has ended, and checks how.
func (l *load) wait(ctx context.Context, id string) error {
	run, err := l.s.any().Poll(ctx, id, pollTimeout)
	if err != nil {
		return err
	}
	if run.Status != l.w.status {
		return fmt.Errorf("run %s is %s after a wait, and has to be %s", id, run.Status, l.w.status)
	}
	return nil
}

// sample waits for a run and, if it counts, keeps the time since began, which
// is what its caller has seen.
func (l *load) sample(ctx context.Context, id string, began time.Time, counts bool) error {
	if err := l.wait(ctx, id); err != nil {
		return err
	}
	took := time.Since(began)
	if counts {
		l.mu.Lock()
		l.samples = append(l.samples, took)
		l.mu.Unlock()
	}
	return nil
}

// lane keeps a batch of runs under way until stopped. It waits for the last of
// the batch, which is about when all have ended, and samples another.
func (l *load) lane(ctx context.Context, size int, stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		began, counts := time.Now(), l.measure.Load()
		runs, err := l.batch(ctx, size)
		if err != nil {
			return err
		}
		sampled := make(chan error, 1)
		go func() { sampled <- l.sample(ctx, runs[rand.IntN(size)].ID, began, counts) }()
		if err := errors.Join(l.wait(ctx, runs[size-1].ID), <-sampled); err != nil {
			return err
		}
	}
}

// snapshot is the state of a measurement at a moment.
type snapshot struct {
	at                            time.Time
	ended                         int64
	daemon, workers, broker, self float64 // CPU seconds
	server                        float64
}

func (l *load) snapshot(ctx context.Context) (n snapshot, err error) {
	c, err := l.s.counts(ctx, l.w)
	if err != nil {
		return n, err
	}
	n.at, n.ended = time.Now(), c.ended
	for _, d := range l.s.daemons() {
		cpu, err := cpuSeconds(d.pid())
		if err != nil {
			return n, err
		}
		n.daemon += cpu
	}
	for _, w := range l.s.workers {
		cpu, err := cpuSeconds(w.pid())
		if err != nil {
			return n, err
		}
		n.workers += cpu
	}
	pid, err := l.s.b.brokerPID()
	if err != nil {
		return n, err
	}
	if n.broker, err = cpuSeconds(pid); err != nil {
		return n, err
	}
	if l.s.server != nil {
		if n.server, err = familySeconds(l.s.server.Processes()); err != nil {
			return n, err
		}
	}
	n.self, err = cpuSeconds(selfPID)
	return n, err
}

// outcome is what came of a load.
type outcome struct {
	perS    float64 // runs that ended, per second
	samples latencies
	// CPU seconds per 1,000 runs; self is this process, which makes the load.
	daemonCPU, workersCPU, brokerCPU, selfCPU float64
	serverCPU                                 float64 // of a database server
}

// window measures between two snapshots, once the load has been on for a
// while. The load goes on until stop is called.
func (l *load) window(ctx context.Context, warmUp, length time.Duration, during during) (o outcome, err error) {
	if err := l.pause(ctx, warmUp); err != nil {
		return o, err
	}
	before, err := l.snapshot(ctx)
	if err != nil {
		return o, err
	}
	l.measure.Store(true)
	during(ctx)
	err = l.pause(ctx, length)
	l.measure.Store(false)
	if err != nil {
		return o, err
	}
	after, err := l.snapshot(ctx)
	if err != nil {
		return o, err
	}
	ended := after.ended - before.ended
	if ended <= 0 {
		return o, fmt.Errorf("no run of %s ended in %v", l.w.name(), length)
	}
	per1000 := func(from, to float64) float64 { return (to - from) * 1000 / float64(ended) }
	return outcome{
		perS:      perSecond(ended, after.at.Sub(before.at)),
		daemonCPU: per1000(before.daemon, after.daemon), workersCPU: per1000(before.workers, after.workers),
		brokerCPU: per1000(before.broker, after.broker), selfCPU: per1000(before.self, after.self),
		serverCPU: per1000(before.server, after.server),
	}, nil
}

// pause lets time pass while the load is on, unless that fails.
func (l *load) pause(ctx context.Context, d time.Duration) error {
	for end := time.Now().Add(d); ; {
		left := time.Until(end)
		if left <= 0 {
			return l.failed()
		}
		if err := errors.Join(l.failed(), l.s.alive()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(min(left, 100*time.Millisecond)):
		}
	}
}

// saturate keeps a bounded number of runs under way and measures, then lets
// them end and checks every one.
func saturate(ctx context.Context, s *system, w workload, warmUp, length time.Duration, during during) (outcome, error) {
	before, err := s.counts(ctx, w)
	if err != nil {
		return outcome{}, err
	}
	l := &load{s: s, w: w}
	stop := make(chan struct{})
	var lanes sync.WaitGroup
	shape := s.b.o.load
	if w.lanes > 0 {
		shape.lanes, shape.batch = w.lanes, w.batch
	}
	for range shape.lanes {
		lanes.Go(func() {
			if err := l.lane(ctx, shape.batch, stop); err != nil {
				l.fail(err)
			}
		})
	}
	o, err := l.window(ctx, warmUp, length, during)
	close(stop)
	lanes.Wait()
	o.samples = l.samples
	if err := errors.Join(err, l.failed()); err != nil {
		return o, err
	}
	return o, s.settle(ctx, w, before.ended+l.started.Load(), time.Minute)
}

// offer starts runs at a fixed rate, whether or not the system keeps up.
// Latencies count from when a run was due, so that a late start is part of
// them.
func offer(ctx context.Context, s *system, w workload, rate float64, warmUp, length time.Duration, during during) (outcome, error) {
	const (
		tick    = 5 * time.Millisecond
		behind  = 1024 // requests under way at which the system has lost
		sampled = 2    // of so many batches, one is waited for
	)
	before, err := s.counts(ctx, w)
	if err != nil {
		return outcome{}, err
	}
	l := &load{s: s, w: w}
	stop := make(chan struct{})
	var work sync.WaitGroup
	room := make(chan struct{}, behind)
	work.Go(func() {
		owed := 0.0
		for n, due := 0, time.Now(); ; n, due = n+1, due.Add(tick) {
			select {
			case <-stop:
				return
			case <-time.After(time.Until(due)):
			}
			owed += rate * tick.Seconds()
			size := int(owed)
			owed -= float64(size)
			if size == 0 {
				continue
			}
			select {
			case room <- struct{}{}:
			default:
				l.fail(fmt.Errorf("at %.0f runs/s, %d requests are under way: the system does not keep up", rate, behind))
				return
			}
			work.Go(func() {
				defer func() { <-room }()
				counts := l.measure.Load()
				runs, err := l.batch(ctx, size)
				if err == nil && n%sampled == 0 {
					err = l.sample(ctx, runs[rand.IntN(size)].ID, due, counts)
				}
				if err != nil {
					l.fail(err)
				}
			})
		}
	})
	o, err := l.window(ctx, warmUp, length, during)
	close(stop)
	work.Wait()
	o.samples = l.samples
	if err := errors.Join(err, l.failed()); err != nil {
		return o, err
	}
	return o, s.settle(ctx, w, before.ended+l.started.Load(), time.Minute)
}

// during is called when a measurement begins and must not wait.
type during func(context.Context)

func nothing(context.Context) {}

// oneByOne starts a run, waits for it, and starts the next. The first tenth of
// them does not count.
func oneByOne(ctx context.Context, s *system, w workload, n int) (latencies, error) {
	before, err := s.counts(ctx, w)
	if err != nil {
		return nil, err
	}
	l := &load{s: s, w: w}
	warmUp := n / 10
	for i := range warmUp + n {
		start, err := w.start()
		if err != nil {
			return nil, err
		}
		began := time.Now()
		if _, err := s.client.StartRun(ctx, start); err != nil {
			return nil, err
		}
		l.started.Add(1)
		if err := l.sample(ctx, start.ID, began, i >= warmUp); err != nil {
			return nil, err
		}
	}
	return l.samples, s.settle(ctx, w, before.ended+l.started.Load(), time.Minute)
}

// startOneByOne starts n runs with a request for each, over so many
// connections, and returns how many per second became durable.
func startOneByOne(ctx context.Context, c *client.Client, w workload, n, connections int) (float64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var work sync.WaitGroup
	began := time.Now()
	for range connections {
		work.Go(func() {
			for next.Add(1) <= int64(n) {
				start, err := w.start()
				if err == nil {
					_, err = c.StartRun(ctx, start)
				}
				if err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	work.Wait()
	took := time.Since(began)
	return perSecond(int64(n), took), context.Cause(ctx)
}
