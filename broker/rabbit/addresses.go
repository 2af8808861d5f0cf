package rabbit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/ringmaster-dev/ringmaster/broker"
)

// maxRefusals is how often in a row each node must refuse the first connection
// for it to be given up. Once is not enough: a node that goes away in the
// middle of the handshake looks like one that refuses the credentials.
const maxRefusals = 2

// address is one node of the cluster and what is known of it.
type address struct {
	url      string
	pause    *backoff.ExponentialBackOff
	due      time.Time // not tried before
	refusals int       // in a row
	err      error     // of the last attempt
}

// addresses are the nodes of a cluster in the order in which one Conn prefers
// them: the first is its home. Each Conn shuffles for itself, so that many of
// them spread over the nodes, and those of a lost node over the others.
//
// Each node has a pause of its own. One that does not answer is thus asked
// less and less often, while another is still asked at once.
type addresses []*address

func newAddresses(cfg Config) addresses {
	as := make(addresses, len(cfg.URLs))
	for i, j := range rand.Perm(len(as)) {
		as[i] = &address{url: cfg.URLs[j], pause: newPause(cfg)}
	}
	return as
}

func newPause(cfg Config) *backoff.ExponentialBackOff {
	p := &backoff.ExponentialBackOff{
		InitialInterval: cfg.MinBackoff, MaxInterval: cfg.MaxBackoff, Multiplier: 2, RandomizationFactor: 0.5,
	}
	p.Reset()
	return p
}

// failed has a node wait for its turn.
func (a *address) failed(now time.Time, err error) {
	a.err, a.due = err, now.Add(a.pause.NextBackOff())
	if permanent(err) {
		a.refusals++
	} else {
		a.refusals = 0
	}
}

// ended notes the end of a session. One that did not last is no reason to
// hurry.
func (a *address) ended(now time.Time, lasted time.Duration) {
	if lasted > a.pause.MaxInterval {
		a.pause.Reset()
	}
	a.refusals, a.due = 0, now.Add(a.pause.NextBackOff())
}

// due are the nodes that may be asked now, in order, and how long it is until
// the first may be if there is none.
func (as addresses) due(now time.Time) (ready addresses, wait time.Duration) {
	for _, a := range as {
		left := a.due.Sub(now)
		switch {
		case left <= 0:
			ready = append(ready, a)
		case wait == 0 || left < wait:
			wait = left
		}
	}
	if len(ready) > 0 {
		wait = 0
	}
	return ready, wait
}

// refused reports whether every node has refused for good.
func (as addresses) refused() bool {
	for _, a := range as {
		if a.refusals < maxRefusals {
			return false
		}
	}
	return true
}

// reason joins what the nodes answered last. What another attempt may change
// goes before what it will not.
func (as addresses) reason() error {
	var all, transient []error
	for _, a := range as {
		if a.err == nil {
			continue
		}
		all = append(all, a.err)
		if !permanent(a.err) {
			transient = append(transient, a.err)
		}
	}
	if len(transient) > 0 {
		return fmt.Errorf("%w: %w", broker.ErrUnavailable, errors.Join(transient...))
	}
	return errors.Join(all...)
}
