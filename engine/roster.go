package engine

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

// roster is the other orchestrators, as they announce themselves.
type roster struct {
	eng *Engine

	mu     sync.Mutex
	others map[string]*colleague // by incarnation
	rival  rival
}

// colleague is another orchestrator.
type colleague struct {
	id      string
	shards  map[uint32]uint64 // that it says it owns, with their epochs
	standby bool              // it takes no shards at present
	seen    time.Duration     // by the engine's clock
}

// rival is another orchestrator that says it owns shards of ours while we hold
// them for ourselves: another deployment under the same namespace. Requests and
// results would then go to either.
type rival struct {
	id   string
	seen time.Duration
	told bool
}

// rivalKept is how long after its last announcement a rival counts as there.
const rivalKept = 10 * time.Second

func newRoster(e *Engine) *roster { return &roster{eng: e, others: map[string]*colleague{}} }

// onAnnouncement listens to what other orchestrators say of themselves.
func (e *Engine) onAnnouncement(dl broker.Delivery) {
	a, err := protocol.DecodeAnnouncement(&dl.Message)
	fault, ok := errors.AsType[*protocol.VersionError](err)
	if ok {
		e.strangers.orchestrator(&a, fault)
	}
	if a.Hello && a.Orchestrator != e.id {
		e.announceSoon() // it wants to know who is there
	}
	if fault != nil {
		return
	}
	if err != nil {
		e.metrics.poison.Inc()
		e.log.Warn("announcement refused", "error", err)
		return
	}
	if a.Orchestrator == e.id {
		return
	}
	if e.cfg.Leases == nil {
		e.roster.suspect(&a)
		return
	}
	for _, shard := range e.roster.heard(&a) {
		epoch := a.Shards[shard]
		if s := e.shards.get(shard); s != nil && s.epoch < epoch {
			s.supersede()
		}
		e.ownerChanged(shard, epoch)
	}
}

// suspect reports an orchestrator that should not be there: this one is alone.
func (r *roster) suspect(a *protocol.Announcement) {
	if a.Leaving || len(a.Shards) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rival.id != a.Orchestrator {
		r.rival = rival{id: a.Orchestrator}
	}
	r.rival.seen = r.eng.clock.since()
	if r.rival.told {
		return
	}
	r.rival.told = true
	r.eng.metrics.rivals.Inc()
	r.eng.log.Error("another orchestrator owns the same shards: give each deployment a namespace of its own",
		"rival", a.Orchestrator, "namespace", r.eng.cfg.Namespace)
}

// rivalry names a rival that is there; empty if there is none.
func (r *roster) rivalry() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rival.told && r.eng.clock.since()-r.rival.seen < rivalKept {
		return r.rival.id
	}
	return ""
}

// heard takes in an announcement, and returns the shards that it says have come
// to a new owner.
func (r *roster) heard(a *protocol.Announcement) (moved []uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.others[a.Orchestrator]
	if a.Leaving {
		if c != nil {
			c.standby, c.seen = true, r.eng.clock.since()
			c.shards = a.Shards
		}
		return nil
	}
	if c == nil {
		c = &colleague{id: a.Orchestrator}
		r.others[a.Orchestrator] = c
		r.eng.log.Info("another orchestrator is there", "other", a.Orchestrator, "shards", len(a.Shards))
	}
	for shard, epoch := range a.Shards {
		if c.shards[shard] != epoch {
			moved = append(moved, shard)
		}
	}
	c.shards, c.standby, c.seen = a.Shards, a.Standby, r.eng.clock.since()
	return moved
}

// silence is how long an orchestrator may say nothing before its shards are
// looked at, and forgotten is when it is no longer remembered.
func (r *roster) silence() time.Duration {
	return min(silentAfter*r.eng.cfg.HeartbeatInterval, r.eng.cfg.LeaseTime)
}

const forgotten = time.Minute

// view is the roster at one moment.
type view struct {
	claimed map[uint32]string // shard -> who owns it, of those that are heard of
	counts  []int             // of the shards of each other orchestrator that takes shards
}

func (r *roster) view() view {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := view{claimed: map[uint32]string{}}
	now := r.eng.clock.since()
	for id, c := range r.others {
		if now-c.seen > forgotten {
			delete(r.others, id)
			continue
		}
		if now-c.seen > r.silence() {
			continue
		}
		for shard := range c.shards {
			v.claimed[shard] = id
		}
		if !c.standby {
			v.counts = append(v.counts, len(c.shards))
		}
	}
	return v
}

// lives tells whether an orchestrator was heard of lately.
func (r *roster) lives(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.others[id]
	return c != nil && r.eng.clock.since()-c.seen <= r.silence()
}

// any tells whether another orchestrator has been heard of lately.
func (r *roster) any() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.others) > 0
}

// ids are the orchestrators that are heard of.
func (r *roster) ids() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.eng.clock.since()
	var ids []string
	for _, id := range slices.Sorted(maps.Keys(r.others)) {
		if now-r.others[id].seen <= r.silence() {
			ids = append(ids, id)
		}
	}
	return ids
}
