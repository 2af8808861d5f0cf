package worker

import (
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/ringmaster-dev/ringmaster/protocol"
)

// heardFor is how long after its last announcement an orchestrator counts as
// there.
const heardFor = 10 * time.Second

// strangers are orchestrators that speak no protocol version of this worker's.
// They send it nothing, and it sends nothing to them. Worker.mu guards them.
type strangers struct {
	known    map[string]*stranger // by incarnation
	familiar time.Time            // when one was heard whose language is understood
}

type stranger struct {
	fault error
	seen  time.Time
}

// Err says why no tasks can come: every orchestrator that is heard of speaks only
// protocol versions that this worker does not, so that one side must be upgraded.
// The error wraps [protocol.ErrVersion] and names the versions of both. It is nil
// otherwise, also where no orchestrator is heard of. The worker goes on, and
// serves orchestrators of other versions as soon as they come. Safe for concurrent
// use.
func (w *Worker) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if now.Sub(w.strangers.familiar) < heardFor {
		return nil
	}
	for _, id := range slices.Sorted(maps.Keys(w.strangers.known)) {
		if s := w.strangers.known[id]; now.Sub(s.seen) < heardFor {
			return s.fault
		}
	}
	return nil
}

// estranged takes in the announcement of an orchestrator that speaks other
// versions.
func (w *Worker) estranged(a *protocol.Announcement, fault *protocol.VersionError) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for id, s := range w.strangers.known {
		if now.Sub(s.seen) > heardFor {
			delete(w.strangers.known, id)
		}
	}
	if a.Leaving {
		delete(w.strangers.known, fault.Sender)
		return
	}
	s := w.strangers.known[fault.Sender]
	if s == nil {
		s = &stranger{}
		w.strangers.known[fault.Sender] = s
		w.metrics.incompatible.Inc()
		w.log.Error("an orchestrator speaks no protocol version of this worker: no tasks come from there",
			slog.String("orchestrator", fault.Sender), slog.String("speaks", fault.Theirs.String()), slog.String("here", fault.Ours.String()))
	}
	s.fault, s.seen = fault, now
}
