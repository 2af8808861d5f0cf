package main

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/ringmaster-dev/ringmaster/ring"
)

const (
	ringMembers = 100
	ringRounds  = 5
)

// measureRing looks keys up, with hashing them, in a ring of a hundred workers
// of ordinary weight. The best of some rounds counts.
func measureRing(_ context.Context, b *bench) error {
	var members []ring.Member
	for i := range ringMembers {
		members = append(members, ring.Member{Name: fmt.Sprintf("worker-%03d", i), Weight: 100})
	}
	r, err := ring.New(members)
	if err != nil {
		return err
	}
	keys := make([]string, 1<<12)
	for i := range keys {
		keys[i] = uuid.NewString()
	}
	const lookups = 1 << 20
	sum, best := 0, 0.0
	for round := range ringRounds {
		began := time.Now()
		for i := range lookups {
			sum += r.LookupKey(keys[i%len(keys)])
		}
		ns := float64(time.Since(began).Nanoseconds()) / lookups
		if round == 0 || ns < best {
			best = ns
		}
	}
	if sum < 0 {
		return fmt.Errorf("a ring of %d members owns nothing", ringMembers)
	}
	b.report.set("ring.lookup_ns", best, "ns")
	b.say("  %.0f ns with %d workers, %d points", best, ringMembers, r.Points())
	return nil
}
