package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/audit"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/deliveries"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/flow"
	"github.com/ringmaster-dev/ringmaster/internal/stage"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// day is the shop's day: shoppers who place its orders, each waiting for the
// end of one before placing the next.
type day struct {
	orders   []flow.Order
	shoppers int
	out      *stage.Screen

	began time.Time

	mu           sync.Mutex
	acknowledged []flow.Order
	ended        int
	statuses     map[string]int // ended runs by status
	retries      int            // attempts beyond the first
	settled      int            // stalled runs that the operator settled
	took         []time.Duration
	milestones   []milestone
}

// milestone is a number of ended orders that somebody waits for.
type milestone struct {
	ended   int
	reached chan struct{}
}

// after returns a channel that is closed once that part of the orders ended.
func (d *day) after(part float64) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := milestone{ended: int(part * float64(len(d.orders))), reached: make(chan struct{})}
	d.milestones = append(d.milestones, m)
	return m.reached
}

// run places all orders and returns when all have ended.
func (d *day) run(ctx context.Context, c *client.Client, books *deliveries.Service) error {
	d.began = time.Now()
	d.statuses = map[string]int{}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var aside sync.WaitGroup
	aside.Go(func() { d.out.Follow(ctx, d.progress) })
	aside.Go(func() {
		if err := d.operate(ctx, c, books); err != nil {
			stop(fmt.Errorf("operator: %w", err))
		}
	})
	err := d.placeAll(ctx, c)
	stop(nil)
	aside.Wait()
	return err
}

func (d *day) placeAll(ctx context.Context, c *client.Client) error {
	queue := make(chan flow.Order)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(queue)
		for _, o := range d.orders {
			select {
			case queue <- o:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	for range d.shoppers {
		group.Go(func() error {
			for o := range queue {
				if err := d.shop(ctx, c, o); err != nil {
					return fmt.Errorf("order %s: %w", o.ID, err)
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// shop places one order and waits for its end. The order's id is the run's, so
// that the client can repeat the start when its answer was lost.
func (d *day) shop(ctx context.Context, c *client.Client, o flow.Order) error {
	begin := time.Now()
	run, err := client.Start(ctx, c, flow.OrderFlow, o, client.ID(o.ID), client.Tag("country", o.Address.Country))
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.acknowledged = append(d.acknowledged, o)
	d.mu.Unlock()

	result, err := run.Wait(ctx)
	if err != nil && !errors.Is(err, client.ErrNotSucceeded) { // an order that was undone has ended too
		return err
	}
	d.count(result.Run, time.Since(begin))
	return nil
}

func (d *day) count(run rest.RunDetail, took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended++
	d.statuses[run.Status]++
	d.took = append(d.took, took)
	for _, s := range run.Steps {
		d.retries += max(s.Attempts-1, 0) + max(s.CompensationAttempts-1, 0)
	}
	for _, m := range d.milestones {
		if m.ended == d.ended {
			close(m.reached)
		}
	}
}

// progress is the live report.
func (d *day) progress() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	elapsed := time.Since(d.began)
	return fmt.Sprintf("%5.1fs  %d orders: %d acknowledged, %d delivered, %d undone, %d in flight, %d retries, %.0f/s",
		elapsed.Seconds(), len(d.orders), len(d.acknowledged), d.statuses["succeeded"], d.statuses["compensated"],
		len(d.acknowledged)-d.ended, d.retries, float64(d.ended)/elapsed.Seconds())
}

// summary says how long the orders took.
func (d *day) summary() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	slices.Sort(d.took)
	at := func(part float64) time.Duration {
		if len(d.took) == 0 {
			return 0
		}
		return d.took[int(part*float64(len(d.took)-1))].Round(100 * time.Microsecond)
	}
	return fmt.Sprintf("speed    median %v, 99 of 100 within %v, longest %v; %d attempts were repeated, %d stalled runs settled",
		at(0.5), at(0.99), at(1), d.retries, d.settled)
}

// statusesOf asks the orchestrator how every run stands.
func statusesOf(ctx context.Context, c *client.Client) (map[string]string, error) {
	statuses := map[string]string{}
	for run, err := range c.All(ctx, client.Filter{Workflow: flow.OrderFlow.Name(), Limit: 1000}) {
		if err != nil {
			return nil, err
		}
		statuses[run.ID] = run.Status
	}
	return statuses, nil
}

// audit checks the books of the day and prints the report.
func (d *day) audit(ctx context.Context, books audit.Books, statuses map[string]string) error {
	d.out.Say("\n%s", d.summary())
	report, err := audit.Run(ctx, books, d.acknowledged, statuses)
	if report != nil {
		if _, err := report.WriteTo(d.out); err != nil {
			return err
		}
	}
	if err == nil && len(d.acknowledged) != len(d.orders) {
		return fmt.Errorf("%d of %d orders were acknowledged", len(d.acknowledged), len(d.orders))
	}
	return err
}
