package main

import (
	"context"
	"fmt"
	"time"

	"github.com/ringmaster-dev/ringmaster/chaos/internal/fleet"
	"github.com/ringmaster-dev/ringmaster/chaos/internal/link"
	"github.com/ringmaster-dev/ringmaster/chaos/internal/plan"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
)

// victim is what faults are made at. What it cannot suffer is nil.
type victim struct {
	name    string
	kill    func() error
	start   func(context.Context) error
	pause   func() error
	resume  func() error
	restart func(context.Context) (note string, err error)
	wires   []*link.Link // all that joins it to the others
	disk    *disk
	revive  func(context.Context) error // after its disk was full; nil: a supervisor does

	// busy is how much work is in flight at it, and which.
	busy func(survey) (int, string)
}

// suffer makes a fault and ends it. The note says what was out of the ordinary.
// Whatever ctx does, nothing stays frozen or cut.
func (v *victim) suffer(ctx context.Context, f plan.Fault) (note string, err error) {
	switch f.Kind {
	case plan.Kill:
		if err := v.kill(); err != nil {
			return "", err
		}
		wait(ctx, f.For)
		return "", v.start(ctx)
	case plan.Pause:
		if err := v.pause(); err != nil {
			return "", err
		}
		wait(ctx, f.For)
		return "", v.resume()
	case plan.Cut:
		return "", v.apart(ctx, f.For, (*link.Link).Cut)
	case plan.Drop:
		return "", v.apart(ctx, f.For, (*link.Link).Drop)
	case plan.Restart:
		return v.restart(ctx)
	case plan.Fill:
		return "", v.full(ctx, f.For)
	}
	return "", fmt.Errorf("no such fault: %v", f)
}

func (v *victim) apart(ctx context.Context, d time.Duration, how func(*link.Link)) error {
	for _, w := range v.wires {
		how(w)
	}
	wait(ctx, d)
	for _, w := range v.wires {
		w.Mend()
	}
	return nil
}

func (v *victim) full(ctx context.Context, d time.Duration) error {
	if err := v.disk.fill(); err != nil {
		return err
	}
	wait(ctx, d)
	if err := v.disk.clear(); err != nil || v.revive == nil {
		return err
	}
	return v.revive(ctx)
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// ofMember is a process of ours.
func ofMember(m *fleet.Member) victim {
	return victim{
		name: m.Name, kill: m.Kill, pause: m.Pause, resume: m.Resume,
		start:   func(context.Context) error { return m.Start() },
		restart: func(context.Context) (string, error) { return m.Restart() },
	}
}

// ofRabbit is a node of the broker.
func ofRabbit(name string, r *testenv.Rabbit) victim {
	return victim{
		name: name, kill: r.Kill, start: r.Start, pause: r.Pause, resume: r.Resume,
		restart: func(ctx context.Context) (string, error) { return "", r.Restart(ctx) },
	}
}

// ofPostgres is the server of the store.
func ofPostgres(s *testenv.PostgresServer) victim {
	return victim{
		name: string(plan.Postgres), start: s.Start, pause: s.Pause, resume: s.Resume,
		kill: func() error { s.Kill(); return nil },
		restart: func(ctx context.Context) (string, error) {
			if err := s.Stop(ctx); err != nil {
				return "", err
			}
			return "", s.Start(ctx)
		},
		// A server that cannot write its log ends, and its supervisor starts it
		// again once there is room.
		revive: func(ctx context.Context) error {
			wait(ctx, time.Second)
			if s.Running() {
				return nil
			}
			return s.Start(ctx)
		},
	}
}
