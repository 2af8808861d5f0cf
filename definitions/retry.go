package definitions

import (
	"slices"
	"time"
)

// Unlimited as RetryPolicy.MaxAttempts means that attempts never run out.
const Unlimited = -1

// NoJitter as RetryPolicy.Jitter means exact waits, since zero means the default.
const NoJitter = -1.0

// Defaults of a retry policy.
const (
	DefaultInitial     = 200 * time.Millisecond
	DefaultMax         = time.Minute
	DefaultMultiplier  = 2.0
	DefaultJitter      = 0.2
	DefaultMaxAttempts = 10 // of actions up to and including the pivot; later actions and compensations: Unlimited; child runs: DefaultChildAttempts

	DefaultPrepareAttempts = 3 // of a participant's prepare; commits and aborts: Unlimited
)

// RetryPolicy says how a task is tried again after a retryable failure: after
// Initial, then each time Multiplier times as long, up to Max. The zero value of
// every field means its default.
type RetryPolicy struct {
	Initial    time.Duration // wait before the second attempt; default 200 ms, or Max if that is less
	Max        time.Duration // longest wait; default 1 min, or Initial if that is more
	Multiplier float64       // 1 to 100; default 2
	Jitter     float64       // each wait is varied by up to this fraction of itself, at most 1; default 0.2; NoJitter for none

	// MaxAttempts counts the first attempt too. Default: 10 for actions up to
	// and including the pivot, 3 for prepare, Unlimited for actions after the
	// pivot, for compensations, and for commit and abort; of a step that is a
	// child run 1, wherever it stands.
	MaxAttempts int

	// MaxElapsed bounds the time from the first attempt to the start of the
	// last; default 0: no bound.
	MaxElapsed time.Duration

	// NonRetryable are failure codes that are final although the worker called
	// the failure retryable. At most MaxNonRetryable.
	NonRetryable []string
}

// resolved returns p with defaults in place of zero values.
func (p RetryPolicy) resolved(attempts int) RetryPolicy {
	if p.Initial == 0 {
		p.Initial = DefaultInitial
		if p.Max > 0 {
			p.Initial = min(p.Initial, p.Max)
		}
	}
	if p.Max == 0 {
		p.Max = max(DefaultMax, p.Initial)
	}
	if p.Multiplier == 0 {
		p.Multiplier = DefaultMultiplier
	}
	switch p.Jitter {
	case 0:
		p.Jitter = DefaultJitter
	case NoJitter:
		p.Jitter = 0
	}
	if p.MaxAttempts == 0 {
		p.MaxAttempts = attempts
	}
	// The order of codes means nothing, so there is one.
	p.NonRetryable = slices.Clone(p.NonRetryable)
	slices.Sort(p.NonRetryable)
	p.NonRetryable = slices.Compact(p.NonRetryable)
	return p
}

func (p RetryPolicy) isZero() bool {
	return p.Initial == 0 && p.Max == 0 && p.Multiplier == 0 && p.Jitter == 0 &&
		p.MaxAttempts == 0 && p.MaxElapsed == 0 && len(p.NonRetryable) == 0
}
