package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/deliveries"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/flow"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// operate does what a person does who watches for stalled runs, until ctx
// ends.
//
// When the orchestrator is killed, it may be unknown for ever whether an
// attempt that it was about to send has reached a worker. If the next attempt
// is refused, that says nothing of the first. For most steps this does not
// matter: they are compensated, which does nothing where nothing was done. But
// nothing is compensated past a pivot, so there the run stalls and asks.
func (d *day) operate(ctx context.Context, c *client.Client, books *deliveries.Service) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(500 * time.Millisecond):
		}
		for run, err := range c.All(ctx, client.Filter{Workflow: flow.OrderFlow.Name(), Statuses: []string{"stalled"}}) {
			if err == nil {
				err = d.settle(ctx, c, books, run)
			}
			switch {
			case ctx.Err() != nil:
				return nil
			case errors.Is(err, client.ErrUnavailable), errors.Is(err, client.ErrConflict):
				// It was killed just now, or the run has moved on: look again.
			case err != nil:
				return err
			}
		}
	}
}

// settle looks into the books of the deliveries and says what happened.
func (d *day) settle(ctx context.Context, c *client.Client, books *deliveries.Service, run rest.Run) error {
	if run.FailedStep != "deliver" {
		return fmt.Errorf("run %s stalled by step %q (%s), which nobody here can settle", run.ID, run.FailedStep, run.Error)
	}
	parcel, shipped, err := books.Shipment(ctx, run.ID)
	if err != nil {
		return err
	}
	order := rest.Settle{Step: run.FailedStep, By: "demo", Applied: shipped, Reason: "no parcel in the books of the deliveries"}
	if shipped {
		order.Reason = "a parcel is in the books of the deliveries"
		if order.Output, err = json.Marshal(parcel); err != nil {
			return err
		}
	}
	if _, err := c.Resolve(ctx, run.ID, order); err != nil {
		return err
	}
	d.mu.Lock()
	d.settled++
	d.mu.Unlock()
	d.out.Say("  operator: order %s stalled (%s); resolved: %s", run.ID, run.Error, order.Reason)
	return nil
}
