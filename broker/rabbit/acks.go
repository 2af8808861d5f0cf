package rabbit

import (
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// lazyDelay bounds how long a lazy acknowledgement waits for company.
const lazyDelay = time.Second

// What is known of a delivery.
const (
	unsettled uint8 = iota
	acked           // to be acknowledged
	sent            // the broker was told
)

// acker tells the broker of settled deliveries of one channel, from one
// goroutine, with as few frames as their order allows: everything up to the
// first unsettled delivery takes one. Delivery tags of a channel count from 1.
type acker struct {
	ch *amqp.Channel
	// lazy is the number of settled deliveries to gather before the broker is
	// told; 0 tells it at once. Idle ones are told after lazyDelay.
	lazy int

	mu      sync.Mutex
	base    uint64  // the tag of fate[0]: all before it are settled and sent
	fate    []uint8 // of the deliveries from base on
	pending int     // how many are acked
	refused []uint64
	stopped bool

	wake chan struct{} // something is to be sent (capacity 1)
	quit chan struct{}
	done chan struct{}
}

func newAcker(ch *amqp.Channel, lazy int) *acker {
	a := &acker{ch: ch, lazy: lazy, base: 1,
		wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	go a.run()
	return a
}

// settle notes the fate of a delivery; only the first call for it counts.
func (a *acker) settle(tag uint64, ok bool) {
	a.mu.Lock()
	if a.stopped || tag < a.base {
		a.mu.Unlock()
		return
	}
	i := int(tag - a.base)
	for len(a.fate) <= i {
		a.fate = append(a.fate, unsettled)
	}
	if a.fate[i] != unsettled {
		a.mu.Unlock()
		return
	}
	if ok {
		a.fate[i] = acked
		a.pending++
	} else {
		a.fate[i] = sent
		a.refused = append(a.refused, tag)
	}
	due := a.pending > a.lazy || !ok || (a.lazy > 0 && a.pending == 1)
	a.mu.Unlock()
	if due {
		select {
		case a.wake <- struct{}{}:
		default:
		}
	}
}

// orders is what to tell the broker.
type orders struct {
	upTo    uint64   // acknowledge everything up to this one; 0 is none
	single  []uint64 // acknowledge these
	refused []uint64 // give these back
}

// take collects what is to be told.
func (a *acker) take() orders {
	a.mu.Lock()
	defer a.mu.Unlock()
	o := orders{refused: a.refused}
	a.refused = nil
	n := 0
	for n < len(a.fate) && a.fate[n] != unsettled {
		if a.fate[n] == acked {
			// Only a tag that is outstanding may be named, hence the last
			// acked one and not the end of the run.
			o.upTo = a.base + uint64(n)
		}
		n++
	}
	for i, f := range a.fate[n:] {
		if f == acked {
			o.single = append(o.single, a.base+uint64(n+i))
			a.fate[n+i] = sent
		}
	}
	a.base += uint64(n)
	a.fate = a.fate[:copy(a.fate, a.fate[n:])]
	a.pending = 0
	return o
}

func (a *acker) run() {
	defer close(a.done)
	var idle *time.Timer
	var idleC <-chan time.Time
	defer func() {
		if idle != nil {
			idle.Stop()
		}
	}()
	for {
		select {
		case <-a.wake:
			a.mu.Lock()
			waits := a.lazy > 0 && a.pending <= a.lazy && len(a.refused) == 0
			a.mu.Unlock()
			if waits {
				if idle == nil {
					idle = time.NewTimer(lazyDelay)
				} else {
					idle.Reset(lazyDelay)
				}
				idleC = idle.C
				continue
			}
		case <-idleC:
			idleC = nil
		case <-a.quit:
			a.tell(a.take())
			return
		}
		a.tell(a.take())
	}
}

// tell sends the frames. Errors are those of a lost channel, whose deliveries
// the broker takes back by itself. What is given back goes first: a multiple
// acknowledgement takes everything that is still outstanding below it.
func (a *acker) tell(o orders) {
	for _, tag := range o.refused {
		_ = a.ch.Nack(tag, false, true)
	}
	if o.upTo > 0 {
		_ = a.ch.Ack(o.upTo, true)
	}
	for _, tag := range o.single {
		_ = a.ch.Ack(tag, false)
	}
}

// stop sends what is settled and ignores what comes after.
func (a *acker) stop() {
	a.mu.Lock()
	was := a.stopped
	a.stopped = true
	a.mu.Unlock()
	if !was {
		close(a.quit)
	}
	<-a.done
}
