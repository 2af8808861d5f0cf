package main

import (
	"context"
	"errors"
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
	// What the network around it can do besides; nil: there are only the wires.
	cutOff, isolate, heal func(context.Context) error
	disk                  *disk
	revive                func(context.Context) error // after its disk was full; nil: a supervisor does
	// mend does what whoever runs the deployment must after a fault, and says what
	// that was; nil: nothing.
	mend func(context.Context) (note string, err error)

	// busy is how much work is in flight at it, and which.
	busy func(survey) (int, string)
}

// errNoPeers says why a process cannot be isolated from others of its kind.
var errNoPeers = errors.New("it has no peers")

// suffer makes a fault and ends it. The note says what was out of the ordinary.
// Whatever ctx does, nothing stays frozen or cut.
func (v *victim) suffer(ctx context.Context, f plan.Fault) (note string, err error) {
	note, err = v.undergo(ctx, f)
	if err != nil || v.mend == nil || ctx.Err() != nil {
		return note, err
	}
	return v.mend(ctx)
}

func (v *victim) undergo(ctx context.Context, f plan.Fault) (note string, err error) {
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
		if v.cutOff != nil {
			return "", v.lost(ctx, f.For, v.cutOff)
		}
		return "", v.apart(ctx, f.For, (*link.Link).Cut)
	case plan.Isolate:
		if v.isolate == nil {
			return "", errNoPeers
		}
		return "", v.lost(ctx, f.For, v.isolate)
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

// lost has the network lose what it carries.
func (v *victim) lost(ctx context.Context, d time.Duration, how func(context.Context) error) error {
	if err := how(ctx); err != nil {
		return err
	}
	wait(ctx, d)
	return v.heal(context.WithoutCancel(ctx))
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

// rejoin is how long a node may take to be found split from the others.
const rejoin = time.Second

// mendNode restarts a node of a cluster that stays split from the others, as
// docs/operations.md says.
func mendNode(r *testenv.Rabbit) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		wait(ctx, rejoin)
		if split, err := r.Split(ctx); err != nil || !split { // a node that has stopped by itself rejoins by itself
			return "", nil //nolint:nilerr // so that is no error
		}
		if err := r.Kill(); err != nil {
			return "", err
		}
		return "it stayed split from its peers, and was restarted", r.Start(ctx)
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
