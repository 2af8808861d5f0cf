package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ringmaster-dev/ringmaster/chaos/internal/fleet"
	"github.com/ringmaster-dev/ringmaster/chaos/internal/load"
	"github.com/ringmaster-dev/ringmaster/chaos/internal/plan"
	"github.com/ringmaster-dev/ringmaster/chaos/internal/report"
	"github.com/ringmaster-dev/ringmaster/internal/stage"
)

const (
	// tail is how long the load goes on after the last strike.
	tail = 3 * time.Second
	// patience bounds the wait for throughput after a strike.
	patience = 20 * time.Second
	look     = 500 * time.Millisecond
	slowest  = 10.0 // starts per second
)

// nemesis carries out a plan.
type nemesis struct {
	plan    plan.Plan
	victims map[plan.Role][]*victim
	eyes    *surveyor
	load    *load.Load
	out     *stage.Screen

	mu     sync.Mutex
	faults []report.Fault
	errs   []error
}

// run makes all strikes, one after the other. It keeps the rate of the load such
// that it lasts as long as the plan.
func (n *nemesis) run(ctx context.Context) error {
	for i, s := range n.plan.Strikes {
		n.load.SetRate(max(slowest, float64(n.load.Remaining())/(n.plan.Lasts(i)+tail).Seconds()))
		wait(ctx, s.After)
		var all sync.WaitGroup
		for _, f := range s.Faults {
			all.Go(func() {
				wait(ctx, f.Within)
				if ctx.Err() == nil {
					n.strike(ctx, i, f)
				}
			})
		}
		all.Wait()
		n.mu.Lock()
		err := errors.Join(n.errs...)
		n.mu.Unlock()
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		if i+1 < len(n.plan.Strikes) {
			n.flows(ctx)
		}
	}
	return nil
}

// flows waits until runs end again.
func (n *nemesis) flows(ctx context.Context) {
	_, _, before := n.load.Counts()
	for began := time.Now(); time.Since(began) < patience && ctx.Err() == nil; {
		wait(ctx, look)
		released, _, ended := n.load.Counts()
		if ended-before >= int(slowest*look.Seconds()/2) || ended == released {
			return
		}
		before = ended
	}
}

// strike makes one fault and writes down what it hit.
func (n *nemesis) strike(ctx context.Context, strike int, f plan.Fault) {
	v := n.victims[f.Role][f.Member]
	r := report.Fault{Strike: strike + 1, Role: f.Role, Member: v.name, Kind: f.Kind, For: f.For}
	r.InFlight, r.Busy = v.busy(n.eyes.look(ctx))
	n.out.Say("  %s %s%s: %s", f.Kind, v.name, forSo(f), r.Busy)
	r.Struck = time.Now()
	note, err := v.suffer(ctx, f)
	r.Healed, r.Note = time.Now(), note
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case errors.Is(err, errNoDisk), errors.Is(err, errNoPeers), errors.Is(err, fleet.ErrNotRunning):
		r.Impossible = err.Error()
	case err != nil && ctx.Err() == nil:
		n.errs = append(n.errs, fmt.Errorf("%s %s: %w", f.Kind, v.name, err))
	}
	n.faults = append(n.faults, r)
}

func forSo(f plan.Fault) string {
	if f.For == 0 {
		return ""
	}
	return fmt.Sprintf(" for %v", f.For.Round(time.Millisecond))
}
