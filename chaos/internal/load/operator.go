package load

import (
	"context"
	"errors"
	"time"

	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// lookEvery is how often the operator looks for stalled runs.
const lookEvery = time.Second

// Operator settles runs that stall by design. These are runs whose delivery may
// have happened, for all that anybody knows, while the last attempt was refused
// (nothing is undone past a pivot), and those of which a step after it failed for
// as long as its policy says. Any other stalled run is a finding.
type Operator struct {
	load    *Load
	settled map[string]int
}

// NewOperator returns the operator of the runs of a load.
func NewOperator(l *Load) *Operator { return &Operator{l, map[string]int{}} }

// Run looks for stalled runs until ctx ends.
func (o *Operator) Run(ctx context.Context) {
	for sleep(ctx, lookEvery) {
		c := o.load.any()
		for run, err := range c.All(ctx, client.Filter{Statuses: []string{"stalled"}}) {
			if err != nil {
				break // it is down, or cut off: look again
			}
			o.settle(ctx, c, run.ID)
		}
	}
}

// Settled is how many orders it has given. It is for when Run has returned.
func (o *Operator) Settled() (n int) {
	for _, times := range o.settled {
		n += times
	}
	return n
}

func (o *Operator) settle(ctx context.Context, c *client.Client, id string) {
	run, err := c.Get(ctx, id)
	if err != nil {
		return
	}
	for _, s := range run.Steps {
		if s.State != "stalled" {
			continue
		}
		order := rest.Settle{Step: s.Name, By: "chaos"}
		switch {
		case s.Name == "deliver" && s.Code == "no_carrier":
			// Nobody ever delivers there, so no attempt can have done it.
			order.Reason = "nobody delivers to that country"
			_, err = c.Resolve(ctx, id, order)
		case s.Name == "deliver", s.Name == "notify":
			// The books would tell only what has happened so far; another
			// attempt is answered from the inbox if one has been carried out.
			order.Reason = "the services are back"
			_, err = c.Retry(ctx, id, order)
		default:
			o.load.find("%s is stalled by step %s (%s: %s), which does not stall by design", id, s.Name, s.Code, s.Error)
			return
		}
		switch {
		case err == nil:
			o.settled[id]++
		case errors.Is(err, client.ErrConflict), errors.Is(err, client.ErrUnavailable), errors.Is(err, client.ErrOverloaded), ctx.Err() != nil:
			// It has moved on, or the orchestrator is away: look again.
		default:
			o.load.find("settling step %s of %s is refused: %v", s.Name, id, err)
		}
	}
}
