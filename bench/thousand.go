package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/broker/rabbit"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/ring"
)

// crowdSize is how many workers the figures "workers.1000" have.
const crowdSize = 1000

// measureWorkers has a thousand workers join a service, and measures what they
// cost by being there, and how long a task takes to one of them and back, next to
// the same with two.
func measureWorkers(ctx context.Context, b *bench) error {
	if err := measureRebuild(b); err != nil {
		return err
	}
	s, err := newSystem(ctx, b, "workers")
	if err != nil {
		return err
	}
	defer s.kill()
	for _, size := range []int{2, crowdSize} {
		if err := measureCrowd(ctx, s, size); err != nil {
			return fmt.Errorf("%d workers: %w", size, err)
		}
	}
	return s.stopDaemon()
}

// measureRebuild makes the ring of a thousand workers again as one of them leaves
// and comes back. The median counts.
func measureRebuild(b *bench) error {
	members := make([]ring.Member, crowdSize)
	for i := range members {
		members[i].Name = fmt.Sprintf("crowd-%04d", i)
	}
	began := time.Now()
	whole, err := ring.New(members)
	if err != nil {
		return err
	}
	anew := time.Since(began)
	var took latencies
	for i := range members {
		began := time.Now()
		less, err := whole.Update(slices.Delete(slices.Clone(members), i, i+1))
		if err != nil {
			return err
		}
		took = append(took, time.Since(began))
		if less.Len() != crowdSize-1 {
			return fmt.Errorf("a ring has %d members", less.Len())
		}
		if i == 100 {
			break
		}
	}
	b.report.set("workers.1000.rebuild_ms", took.quantile(0.5), "ms")
	b.say("  the ring is made anew in %.1f ms, for one change in %.1f ms", ms(anew), took.quantile(0.5))
	return nil
}

// measureCrowd measures a system with so many workers.
func measureCrowd(ctx context.Context, s *system, size int) error {
	r, of := s.b.report, fmt.Sprintf("workers.%d", size)
	before, err := s.idleCost(ctx, s.b.d.crowd)
	if err != nil {
		return err
	}
	args := []string{"crowd", "--amqp-url", s.amqpURL, "--namespace", s.namespace(), fmt.Sprintf("--workers=%d", size)}
	if s.b.o.profile != "" {
		args = append(args, "--pprof-listen", s.workerPpr)
	}
	crowd, err := spawn(ctx, fmt.Sprintf("crowd-%d", size), s.dir, s.b.self, true, args...)
	if err != nil {
		return err
	}
	s.workers = []*child{crowd}
	began := time.Now()
	if err := s.awaitWorkers(ctx, size); err != nil {
		return err
	}
	joined := time.Since(began)
	idle, err := s.idleCost(ctx, s.b.d.crowd)
	if err != nil {
		return err
	}
	beats, err := s.heartbeats(ctx)
	if err != nil {
		return err
	}
	each, err := oneByOne(ctx, s, succeeding, s.b.d.light)
	if err != nil {
		return err
	}
	o, err := s.b.profiled(ctx, s, of, s.b.d.crowd, func(during during) (outcome, error) {
		return saturate(ctx, s, succeeding, s.b.d.warmUp, s.b.d.crowd, during)
	})
	if err != nil {
		return err
	}
	busy, err := s.idleCost(ctx, s.b.d.crowd)
	if err != nil {
		return err
	}
	if size == crowdSize {
		r.set(of+".join_ms", ms(joined), "ms")
		r.set(of+".heartbeat_bytes", beats, "B")
		r.set(of+".heartbeat_cpu_ms_per_s", idle.daemon-before.daemon, "ms")
		r.set(of+".heartbeat_broker_cpu_ms_per_s", idle.broker-before.broker, "ms")
	}
	// A saga of three steps has three tasks one after the other.
	r.set(of+".dispatch.p50_ms", each.quantile(0.5)/steps, "ms")
	r.set(of+".dispatch.p99_ms", each.quantile(0.99)/steps, "ms")
	r.set(of+".per_s", o.perS, "1/s")
	r.set(of+".orchestrator.cpu_s_per_1000", o.daemonCPU, "s")
	s.b.say("  %d workers: there after %.0f ms, heartbeats of %.0f bytes; CPU ms per s: orchestrator %.1f, broker %.1f (without workers %.1f, %.1f; after load %.1f, %.1f)",
		size, ms(joined), beats, idle.daemon, idle.broker, before.daemon, before.broker, busy.daemon, busy.broker)
	s.b.sayOutcome(o)
	return s.stopWorkers(ctx)
}

// cost is CPU time in ms per second.
type cost struct{ daemon, broker float64 }

// idleCost is what a system costs that has nothing to do.
func (s *system) idleCost(ctx context.Context, length time.Duration) (c cost, err error) {
	read := func() (c cost, err error) {
		pid, err := s.b.brokerPID()
		if err != nil {
			return c, err
		}
		d, err1 := cpuSeconds(s.daemon.pid())
		b, err2 := cpuSeconds(pid)
		return cost{d, b}, errors.Join(err1, err2)
	}
	from, err := read()
	if err != nil {
		return c, err
	}
	began := time.Now()
	select {
	case <-time.After(length):
	case <-ctx.Done():
		return c, context.Cause(ctx)
	}
	to, err := read()
	per := time.Since(began).Seconds() / 1000
	return cost{(to.daemon - from.daemon) / per, (to.broker - from.broker) / per}, err
}

// heartbeats is how long the workers' heartbeats are, in bytes on average.
func (s *system) heartbeats(ctx context.Context) (float64, error) {
	b, err := rabbit.New(rabbit.Config{URLs: []string{s.amqpURL}})
	if err != nil {
		return 0, err
	}
	conn, err := b.Open(ctx, broker.Options{Name: "observer"})
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var n, bytes atomic.Int64
	exchange := broker.Exchange{Name: protocol.HeartbeatsExchange(s.namespace()), Kind: broker.Fanout}
	if _, err := conn.Subscribe(ctx, broker.Subscription{
		Queue: s.namespace() + ".observer", Kind: broker.Exclusive, NoAck: true, Bindings: []broker.Binding{{Exchange: exchange}},
		Handler: func(d broker.Delivery) {
			n.Add(1)
			bytes.Add(int64(len(d.Body)))
		},
	}); err != nil {
		return 0, err
	}
	err = s.await(ctx, "heartbeats", time.Minute, func(context.Context) (bool, error) { return n.Load() >= 2, nil })
	select {
	case <-time.After(crowdInterval):
	case <-ctx.Done():
	}
	return float64(bytes.Load()) / float64(max(n.Load(), 1)), err
}
