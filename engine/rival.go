package engine

import (
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

// rivalKept is how long after its last announcement another orchestrator that
// owns our shards counts as there.
const rivalKept = 10 * time.Second

// rival is another orchestrator that says it owns shards of ours: another
// deployment under the same namespace. Requests and results would then go to
// either.
type rival struct {
	id   string
	seen time.Duration // by the engine's clock
	told bool
}

// onAnnouncement listens to what other orchestrators say of themselves.
func (e *Engine) onAnnouncement(dl broker.Delivery) {
	a, err := protocol.DecodeAnnouncement(&dl.Message)
	if err != nil {
		e.metrics.poison.Inc()
		e.log.Warn("announcement refused", "error", err)
		return
	}
	if a.Orchestrator == e.id || a.Leaving || len(a.Shards) == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.rival.id != a.Orchestrator {
		e.rival = rival{id: a.Orchestrator}
	}
	e.rival.seen = e.clock.since()
	if e.rival.told {
		return
	}
	e.rival.told = true
	e.metrics.rivals.Inc()
	e.log.Error("another orchestrator owns the same shards: give each deployment a namespace of its own",
		"rival", a.Orchestrator, "namespace", e.cfg.Namespace)
}

// rivalry names another orchestrator that is there under our namespace; empty
// if there is none.
func (e *Engine) rivalry() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.rival.told && e.clock.since()-e.rival.seen < rivalKept {
		return e.rival.id
	}
	return ""
}
