package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/store"
)

// Config says what an engine works with. Store and Broker are required.
type Config struct {
	Store  store.Store
	Broker broker.Broker

	// Leases has several orchestrators share the store's shards: each owns those
	// whose leases it holds. Nil: this one is alone, and owns them all.
	Leases lock.Provider
	// LeaseTime is how long the leases of an orchestrator last that is not heard
	// of, and so when others take over from one that crashed; default 5 s, at least 1 s.
	LeaseTime time.Duration

	// Namespace prefixes every exchange and queue, so that deployments can
	// share a broker. Letters, digits, '.', '_' and '-'; default "ringmaster".
	Namespace string
	// Node names this orchestrator in lists; default is the host's name.
	Node string

	// HeartbeatInterval is how often this orchestrator announces itself, and
	// how often the rules for lost tasks are checked; default 1 s.
	HeartbeatInterval time.Duration
	// RecoveryGrace is how long, after a start, tasks that may be at a worker
	// wait for that worker to report them before they are sent again. Zero is
	// 5 s; negative is none at all, for brokers that live in this process.
	RecoveryGrace time.Duration
	// ReconnectGrace is how long, after the broker was away, workers that were
	// known before may stay silent; default 15 s.
	ReconnectGrace time.Duration
	// TaskLifetime bounds how long after its dispatch a task may be started by
	// a worker; default 24 h. Inbox rows must outlive it.
	TaskLifetime time.Duration

	// Retain is how long ago a run must have ended for it to be removed, with its
	// history. Zero: runs are kept for ever.
	Retain time.Duration
	// RetainIDs is how long the ids of removed runs stay known after that, with
	// how the runs ended, and those of runs that were presumed aborted. Default
	// 30 days, at least TaskLifetime; negative: for ever.
	RetainIDs time.Duration
	// Archive, if set, is given runs that are about to be removed. They are, once
	// it has returned nil; it must have made them durable by then, and may be
	// given a run again. It is called by one goroutine.
	Archive func(ctx context.Context, runs []store.Unfinished) error

	Limits Limits

	// Logger gets what an operator should know; default discards.
	Logger *slog.Logger
	// Registerer takes the engine's metrics; nil keeps them unregistered.
	Registerer prometheus.Registerer
}

// Limits bound what the engine takes on. At a limit it refuses new work with a
// clear answer and goes on with what it has. Zero fields are defaults.
type Limits struct {
	MaxPayloadBytes int // of an input or output; default 1 MiB
	MaxUnfinished   int // runs that have not ended; default 1,000,000
	MaxStarting     int // starts not yet durable; default 16,384
	MaxResidentRuns int // runs held in memory (a cache; more while more tasks are at workers); default 4,000
	MaxWaitingTasks int // waiting tasks held whole, per task type; beyond, only their keys; default 1,024
	MaxTags         int // default 16
	MaxBatch        int // starts in one call; default 1,000
	MaxItems        int // that a step may fan out to, whatever its definition says; default 1,000, at most 10,000
	MaxChildDepth   int // runs nested as children of one another; default 8, at most 64
	MaxLocks        int // named locks of one run; default 16, at most 256
	MaxLockWaiters  int // runs that wait for one lock; default 1,000
	MaxSignals      int // signals that a run keeps for steps to come; default 64
	MaxSignalBytes  int // of a signal's payload; default 64 KiB
}

func (l Limits) withDefaults() Limits {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&l.MaxPayloadBytes, 1<<20)
	def(&l.MaxUnfinished, 1_000_000)
	def(&l.MaxStarting, 16_384)
	def(&l.MaxResidentRuns, 4_000)
	def(&l.MaxWaitingTasks, 1_024)
	def(&l.MaxTags, 16)
	def(&l.MaxBatch, 1_000)
	def(&l.MaxItems, machine.DefaultMaxItems)
	def(&l.MaxChildDepth, 8)
	def(&l.MaxLocks, 16)
	def(&l.MaxLockWaiters, 1_000)
	def(&l.MaxSignals, machine.DefaultMaxSignals)
	def(&l.MaxSignalBytes, 64<<10)
	return l
}

func (c Config) withDefaults() Config {
	if c.Namespace == "" {
		c.Namespace = "ringmaster"
	}
	if c.Node == "" {
		c.Node, _ = os.Hostname()
		if c.Node == "" {
			c.Node = "orchestrator"
		}
	}
	if c.HeartbeatInterval == 0 {
		c.HeartbeatInterval = time.Second
	}
	switch {
	case c.RecoveryGrace == 0:
		c.RecoveryGrace = 5 * time.Second
	case c.RecoveryGrace < 0:
		c.RecoveryGrace = 0
	}
	if c.LeaseTime == 0 {
		c.LeaseTime = lock.DefaultTTL
	}
	if c.ReconnectGrace == 0 {
		c.ReconnectGrace = 15 * time.Second
	}
	if c.TaskLifetime == 0 {
		c.TaskLifetime = 24 * time.Hour
	}
	if c.RetainIDs == 0 {
		c.RetainIDs = DefaultRetainIDs
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Limits = c.Limits.withDefaults()
	return c
}

func (c Config) validate() error {
	var faults []error
	if c.Store == nil {
		faults = append(faults, errors.New("config Store: is required"))
	}
	if c.Broker == nil {
		faults = append(faults, errors.New("config Broker: is required"))
	}
	if len(c.Namespace) > 64 {
		faults = append(faults, errors.New("config Namespace: at most 64 bytes"))
	}
	for _, r := range c.Namespace {
		if !nameRune(r) {
			faults = append(faults, fmt.Errorf("config Namespace: %q is not a letter, digit, '.', '_' or '-'", r))
			break
		}
	}
	if c.LeaseTime < lock.MinTTL || c.LeaseTime > 10*time.Minute {
		faults = append(faults, fmt.Errorf("config LeaseTime: must be between %v and 10 min", lock.MinTTL))
	}
	if c.HeartbeatInterval < 10*time.Millisecond || c.HeartbeatInterval > time.Minute {
		faults = append(faults, errors.New("config HeartbeatInterval: must be between 10 ms and 1 min"))
	}
	if checkID("", c.Node, 128) != nil {
		faults = append(faults, errors.New("config Node: must be printable, at most 128 bytes"))
	}
	if c.TaskLifetime <= 0 || c.ReconnectGrace < 0 {
		faults = append(faults, errors.New("config TaskLifetime: must be positive, and ReconnectGrace not negative"))
	}
	if c.Retain < 0 {
		faults = append(faults, errors.New("config Retain: must not be negative"))
	}
	if c.RetainIDs > 0 && c.RetainIDs < c.TaskLifetime {
		faults = append(faults, fmt.Errorf("config RetainIDs: %v: must be at least TaskLifetime, %v", c.RetainIDs, c.TaskLifetime))
	}
	if c.Limits.MaxPayloadBytes > protocol.MaxPayloadBytes {
		faults = append(faults, fmt.Errorf("config Limits.MaxPayloadBytes: at most %d, the limit of the protocol", protocol.MaxPayloadBytes))
	}
	if c.Limits.MaxItems > definitions.MaxItemsLimit {
		faults = append(faults, fmt.Errorf("config Limits.MaxItems: at most %d", definitions.MaxItemsLimit))
	}
	if c.Limits.MaxChildDepth > 64 {
		faults = append(faults, errors.New("config Limits.MaxChildDepth: at most 64"))
	}
	if c.Limits.MaxLocks > definitions.MaxLockNames {
		faults = append(faults, fmt.Errorf("config Limits.MaxLocks: at most %d", definitions.MaxLockNames))
	}
	l := c.Limits
	for _, v := range []struct {
		name  string
		value int
	}{
		{"MaxPayloadBytes", l.MaxPayloadBytes}, {"MaxUnfinished", l.MaxUnfinished},
		{"MaxStarting", l.MaxStarting}, {"MaxResidentRuns", l.MaxResidentRuns},
		{"MaxWaitingTasks", l.MaxWaitingTasks}, {"MaxTags", l.MaxTags}, {"MaxBatch", l.MaxBatch}, {"MaxItems", l.MaxItems},
		{"MaxChildDepth", l.MaxChildDepth}, {"MaxLocks", l.MaxLocks}, {"MaxLockWaiters", l.MaxLockWaiters},
	} {
		if v.value < 1 {
			faults = append(faults, fmt.Errorf("config Limits.%s: must be at least 1", v.name))
		}
	}
	return errors.Join(faults...)
}

func nameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-'
}
