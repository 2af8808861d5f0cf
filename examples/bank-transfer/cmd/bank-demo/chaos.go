package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/ringmaster-dev/ringmaster/examples/bank-transfer/transfer"
	"github.com/ringmaster-dev/ringmaster/internal/stage"
)

// victim is a process that is killed and started again.
type victim struct {
	name  string
	kill  func() error
	start func(context.Context) error
}

func ours(p *stage.Process) victim {
	return victim{p.Name, p.Kill, func(context.Context) error { return p.Start() }}
}

func victims(d *deployment) []victim {
	s := d.servers
	return []victim{
		ours(d.orchestrator), ours(d.banks[transfer.East]), ours(d.banks[transfer.West]),
		{"RabbitMQ", s.rabbit.Kill, s.rabbit.Start},
		{"PostgreSQL", func() error { s.postgres.Kill(); return nil }, s.postgres.Start},
		{"MariaDB", func() error { s.mariadb.Kill(); return nil }, s.mariadb.Start},
	}
}

// strike is when one process, or two at once, are killed.
type strike struct {
	victims []victim
	after   int           // so many transfers have ended
	delay   time.Duration // and then some time
	down    time.Duration // until they are started again
}

// The limits of what is drawn.
const (
	maxDelay = 200 * time.Millisecond
	maxDown  = time.Second
	pairs    = 4 // one in so many strikes hits two
)

// chaos is who is killed when, drawn from the seed.
type chaos struct {
	strikes []strike
	town    *town
}

func newChaos(o options, among []victim, t *town) *chaos {
	rng := rand.New(rand.NewPCG(o.seed, 1))
	var queue []victim
	for range o.kills {
		queue = append(queue, among...)
	}
	rng.Shuffle(len(queue), func(i, j int) { queue[i], queue[j] = queue[j], queue[i] })
	drawn := func(limit time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(limit))) }
	c := &chaos{town: t}
	for len(queue) > 0 {
		n := 1
		if len(queue) > 1 && queue[0].name != queue[1].name && rng.IntN(pairs) == 0 {
			n = 2
		}
		// The first nine tenths, so that each finds work in flight.
		c.strikes = append(c.strikes, strike{queue[:n], rng.IntN(max(1, o.transfers*9/10)), drawn(maxDelay), drawn(maxDown)})
		queue = queue[n:]
	}
	slices.SortStableFunc(c.strikes, func(a, b strike) int { return a.after - b.after })
	return c
}

// run kills and starts again until all is done, or ctx ends.
func (c *chaos) run(ctx context.Context) error {
	for _, s := range c.strikes {
		if err := errors.Join(c.town.await(ctx, s.after), sleep(ctx, s.delay)); err != nil {
			return err
		}
		for _, v := range s.victims {
			if err := v.kill(); err != nil {
				return err
			}
		}
		c.town.killed(s.victims)
		if err := sleep(ctx, s.down); err != nil {
			return err
		}
		for _, v := range s.victims {
			if err := v.start(ctx); err != nil {
				return fmt.Errorf("start %s again: %w", v.name, err)
			}
		}
		c.town.started(s.victims)
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
