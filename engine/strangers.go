package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

const (
	// strangerKept is how long after its last word a stranger counts as there.
	strangerKept = 10 * time.Second
	// maxStrangers is how many are told apart; that there are more is one fault
	// like any other.
	maxStrangers = 1_000
	// stateIncompatible is the state of such a worker in lists.
	stateIncompatible = "incompatible"
)

// strangers are workers and orchestrators that speak no protocol version of ours.
// Nothing is sent to them but the reason.
type strangers struct {
	eng *Engine

	mu    sync.Mutex
	known map[string]*stranger // by incarnation
	heard chan error           // the first orchestrator among them
}

// stranger is one of them.
type stranger struct {
	worker protocol.Heartbeat // who it is, if it is a worker
	queue  string             // that was told
	fault  *protocol.VersionError
	seen   time.Duration // by the engine's clock
}

func newStrangers(e *Engine) *strangers {
	return &strangers{eng: e, known: map[string]*stranger{}, heard: make(chan error, 1)}
}

// worker takes in the heartbeat of a worker that speaks other versions.
func (x *strangers) worker(hb *protocol.Heartbeat, fault *protocol.VersionError) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if hb.Leaving {
		delete(x.known, fault.Sender)
		return
	}
	s := x.meet(fault, "worker")
	if s == nil {
		return
	}
	s.worker = *hb
	if hb.Queue != "" && hb.Queue != s.queue {
		s.queue = hb.Queue
		x.eng.dispatcher.tellRefused(hb.Queue, fault)
	}
}

// orchestrator takes in the announcement of an orchestrator that speaks other
// versions.
func (x *strangers) orchestrator(a *protocol.Announcement, fault *protocol.VersionError) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if a.Leaving {
		delete(x.known, fault.Sender)
		return
	}
	x.meet(fault, "orchestrator")
	select {
	case x.heard <- fault:
	default:
	}
}

// admitted waits for what the orchestrators that are there say, as they do when one
// says hello. Its error names one that speaks other versions: then this one does
// not take part.
func (x *strangers) admitted(ctx context.Context) error {
	wait := time.NewTimer(x.eng.cfg.HeartbeatInterval)
	defer wait.Stop()
	select {
	case err := <-x.heard:
		return fmt.Errorf("join the orchestrators of namespace %s, which are upgraded one version at a time: %w", x.eng.cfg.Namespace, err)
	case <-wait.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// meet notes that a stranger was heard of; nil if there are too many.
func (x *strangers) meet(fault *protocol.VersionError, side string) *stranger {
	s := x.known[fault.Sender]
	if s == nil {
		if len(x.known) == maxStrangers {
			return nil
		}
		s = &stranger{}
		x.known[fault.Sender] = s
		x.eng.metrics.incompatible.WithLabelValues(side).Inc()
		x.eng.log.Error("a peer speaks no protocol version of this orchestrator: it is left alone",
			side, fault.Sender, "speaks", fault.Theirs.String(), "here", fault.Ours.String())
	}
	s.fault, s.seen = fault, x.eng.clock.since()
	return s
}

// sweep forgets those that have said nothing for a while.
func (x *strangers) sweep() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, s := range x.known {
		if x.eng.clock.since()-s.seen > strangerKept {
			delete(x.known, id)
		}
	}
}

// each calls f with those that are there, in the order of their incarnations.
func (x *strangers) each(f func(*stranger)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(x.known)) {
		f(x.known[id])
	}
}

// workers lists the strangers among the workers.
func (x *strangers) workers() (list []rest.Worker) {
	now := x.eng.clock.since()
	x.each(func(s *stranger) {
		if s.fault.Kind == protocol.KindHeartbeat {
			list = append(list, rest.Worker{
				ID: s.worker.Worker, Name: s.worker.Name, Service: s.worker.Service, TaskTypes: []string{}, Release: s.worker.Release,
				State: stateIncompatible, Protocol: s.fault.Theirs.String(), Problem: s.fault.Error(),
				LastSeen: x.eng.clock.now().Add(s.seen - now),
			})
		}
	})
	return list
}

// ofService says in words which workers of a service would take tasks if they
// spoke our language; empty if none would.
func (x *strangers) ofService(service string) string {
	var b strings.Builder
	x.each(func(s *stranger) {
		if s.fault.Kind == protocol.KindHeartbeat && s.worker.Service == service {
			fmt.Fprintf(&b, "; worker %s speaks protocol version %v, this orchestrator %v", s.worker.Name, s.fault.Theirs, s.fault.Ours)
		}
	})
	return b.String()
}

// fault is an orchestrator that speaks other versions, and is there.
func (x *strangers) fault() (err error) {
	x.each(func(s *stranger) {
		if s.fault.Kind == protocol.KindAnnouncement && err == nil {
			err = s.fault
		}
	})
	return err
}

// tellRefused tells a worker why it gets no tasks, in a version that it speaks.
func (d *dispatcher) tellRefused(queue string, fault *protocol.VersionError) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.notices = append(d.notices, parcel{queue: queue, version: fault.Theirs.Min, refused: fault.Error()})
	d.wakeSender()
}
