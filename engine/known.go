package engine

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/ringmaster-dev/ringmaster/protocol"
)

const (
	// noteWorkers begins the name under which the store keeps which workers may
	// hold tasks of an orchestrator incarnation, whose id follows.
	noteWorkers = "workers/"
	// reports is how many heartbeats a worker of before must send before what
	// it does not list counts as never received, if it does not say which
	// announcements it has heard: the first may have been written while a task
	// was still on its way to it.
	reports = 2
	// reportGap is how far apart those must be.
	reportGap = 150 * time.Millisecond
	// secondHello is when workers are asked for the second.
	secondHello = 200 * time.Millisecond
	// goneKept is how long a worker that is gone stays in the note: until what
	// its loss means for its runs is durable.
	goneKept = 10 * time.Second
)

// knownWorkers is which workers may hold tasks, by service: kept in the store,
// so that after a restart the engine knows whose reports to wait for before it
// sends recovered tasks again. A worker gets its first task only when it is in
// the note.
type knownWorkers struct {
	now     map[string]string        // worker -> service
	gone    map[string]time.Duration // since when, by the engine's clock
	changed chan struct{}
	// waiting holds the workers of before that have to report, by service.
	waiting map[string]map[string]*report
}

// report is what a worker of before still owes: a heartbeat that was written after
// it had heard who owns the shard now. Whatever the owner before has sent it is in
// there, or will be refused when it comes.
type report struct {
	after uint64 // the number of an announcement, all after which say who owns the shard
	left  int    // heartbeats, of a worker that does not say what it has heard
	last  time.Duration
}

func newKnownWorkers() knownWorkers {
	return knownWorkers{
		now: map[string]string{}, gone: map[string]time.Duration{}, changed: make(chan struct{}, 1),
		waiting: map[string]map[string]*report{},
	}
}

// meet has a worker noted; it is sent tasks once that is durable.
func (d *dispatcher) meet(p *peer) {
	delete(d.known.gone, p.id)
	if d.known.now[p.id] == p.service {
		p.noted = true
		return
	}
	d.known.now[p.id] = p.service
	d.noteChanged()
}

func (d *dispatcher) noteChanged() {
	select {
	case d.known.changed <- struct{}{}:
	default:
	}
}

// noteLoop keeps the note in line with who is there.
func (e *Engine) noteLoop(ctx context.Context) {
	for {
		select {
		case <-e.dispatcher.known.changed:
		case <-ctx.Done():
			return
		}
		_, _ = backoff.Retry(ctx, func() (struct{}, error) { return struct{}{}, e.note(ctx) },
			backoff.WithBackOff(backoff.NewExponentialBackOff()), backoff.WithMaxElapsedTime(0),
			backoff.WithNotify(func(err error, wait time.Duration) {
				e.metrics.storeErrors.Inc()
				e.log.Error("new workers get no tasks until they are noted", "error", err, "again_in", wait)
			}))
	}
}

// noted lets workers take part that are in the note now.
func (d *dispatcher) noted(now map[string]string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	grown := map[string]bool{}
	for _, p := range d.peers {
		if !p.noted && now[p.id] == p.service {
			p.noted, grown[p.service] = true, true
		}
	}
	for service := range grown {
		d.changed(service)
	}
	if len(grown) > 0 {
		d.wakeSender()
	}
}

// dropGone takes workers out of the note that have been gone for long enough.
func (d *dispatcher) dropGone(now time.Duration) {
	for worker, since := range d.known.gone {
		if now-since > goneKept && now > d.limboEnds {
			delete(d.known.gone, worker)
			delete(d.known.now, worker)
			d.noteChanged()
		}
	}
}

// reported counts a worker's heartbeat towards the end of the limbo: once all
// workers of a service have said what they hold, its other recovered tasks
// cannot have reached any of them.
func (d *dispatcher) reported(p *peer, heard map[string]uint64) {
	waiting := d.known.waiting[p.service]
	r := waiting[p.id]
	switch {
	case r == nil:
		return
	case heard != nil:
		if heard[d.eng.id] <= r.after {
			return
		}
	case r.left < reports && p.seen-r.last < reportGap:
		return
	default:
		r.last = p.seen
		if r.left--; r.left > 0 {
			return
		}
	}
	if delete(waiting, p.id); len(waiting) == 0 {
		delete(d.known.waiting, p.service)
		d.release(func(service string) bool { return service == p.service }, false)
	}
}

// releaseUnknown releases the tasks of services that had no worker before.
func (d *dispatcher) releaseUnknown() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.release(func(service string) bool { return len(d.known.waiting[service]) == 0 }, false)
	d.wakeSender()
}

// release takes recovered tasks out of the limbo. They are doubtful if some
// worker that may have one has not reported.
func (d *dispatcher) release(ofService func(string) bool, doubtful bool) {
	var released []*limboTask
	for id, l := range d.limbo {
		if ofService(l.class.key.service) && d.holdings[shardIndex(id.Ref)] == holdingServed {
			released = append(released, l)
			delete(d.limbo, id)
		}
	}
	if len(released) == 0 {
		return
	}
	d.eng.log.Info("recovered tasks are sent again", "tasks", len(released), "doubtful", doubtful)
	var serial []*limboTask
	for _, l := range released {
		l.doubtful = doubtful
		switch {
		case l.cancel:
			d.withdrawn(l.entry)
			d.left(&l.entry)
		case l.expired:
			d.postExpired(l.id, true)
			d.left(&l.entry)
		case l.lease != nil:
			serial = append(serial, l)
		default:
			d.place(l.class, l.entry)
		}
	}
	d.readmit(serial)
	if len(d.limbo) == 0 {
		d.limbo = map[protocol.TaskID]*limboTask{}
	}
}
