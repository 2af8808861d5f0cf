package worker

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

// Defaults of Config.
const (
	DefaultConcurrency       = 16
	DefaultPrefetch          = 256
	DefaultWeight            = 100
	DefaultHeartbeatInterval = time.Second
	DefaultDrainTimeout      = 30 * time.Second
	DefaultSettleTimeout     = 10 * time.Second
	DefaultResendAfter       = 5 * time.Second
	DefaultMaxPayloadBytes   = 1 << 20
	DefaultMaxHeldResults    = 8_192
	DefaultMaxHeldBytes      = 64 << 20
)

// Config says what a worker serves and how. Broker and Service are required;
// Service may be left out where a typed handler names it.
type Config struct {
	Broker broker.Broker
	// Namespace is the deployment's prefix on the broker; default "ringmaster".
	Namespace string
	// Name is the worker's place on the ring: a worker that comes back under
	// its name gets its keys back. Two that run at a time should not share
	// one. Default: host, process id and random characters, thus a new place
	// at every start.
	Name string
	// Service whose tasks the worker performs.
	Service string

	// Concurrency is how many handlers run side by side, 1 to 10,000;
	// default 16.
	Concurrency int
	// Prefetch is how many tasks beyond Concurrency orchestrators may have
	// waiting here. Where several own shards, each is granted an equal part of
	// both. The default, 256, keeps handlers of a few milliseconds
	// busy; fewer starve them. Where tasks take seconds, choose a small one
	// (or a negative one for none): a task that waits here is not moved to a
	// worker that joins. At most 20,000.
	Prefetch int
	// Weight is the worker's share of the ring, 1 to 1,000; 100, the default,
	// is ordinary. [Worker.SetWeight] changes it later.
	Weight int
	// Release is the version of the worker's own program, for lists.
	Release string
	// Workflows are registered when the worker starts. Registration is
	// repeated until the broker has taken it; it does not delay tasks.
	Workflows []*definitions.Workflow

	// HeartbeatInterval is how often the worker reports, 10 ms to 1 min;
	// default 1 s. Three silent intervals make orchestrators give up on it.
	HeartbeatInterval time.Duration
	// DrainTimeout is how long running handlers may go on once the worker
	// drains, before their contexts are cancelled; default 30 s; negative
	// cancels at once.
	DrainTimeout time.Duration
	// SettleTimeout is how long, after its last handler, a draining worker
	// waits to hear that its results are durable; default 10 s.
	SettleTimeout time.Duration
	// ResendAfter is how long a sent result may go without word before it is
	// sent again; default 5 s.
	ResendAfter time.Duration
	// MaxPayloadBytes bounds a handler's output; default 1 MiB, at most 16 MiB.
	MaxPayloadBytes int
	// MaxHeldResults and MaxHeldBytes bound the results that are not known to
	// be durable. At a bound no handler starts. Defaults 8,192 (at most
	// 20,000) and 64 MiB.
	MaxHeldResults int
	MaxHeldBytes   int64
	// DisableBatch has tasks and results travel one a message.
	DisableBatch bool

	// Logger gets what an operator should know; nil discards.
	Logger *slog.Logger
	// Registerer takes the worker's metrics, labelled with service and worker
	// name, while Run runs; nil keeps none.
	Registerer prometheus.Registerer
}

func (c Config) withDefaults() Config {
	orInt(&c.Concurrency, DefaultConcurrency)
	orInt(&c.Prefetch, DefaultPrefetch)
	c.Prefetch = max(c.Prefetch, 0)
	orInt(&c.Weight, DefaultWeight)
	orInt(&c.MaxPayloadBytes, DefaultMaxPayloadBytes)
	orInt(&c.MaxHeldResults, DefaultMaxHeldResults)
	orInt(&c.MaxHeldBytes, DefaultMaxHeldBytes)
	orInt(&c.HeartbeatInterval, DefaultHeartbeatInterval)
	orInt(&c.DrainTimeout, DefaultDrainTimeout)
	c.DrainTimeout = max(c.DrainTimeout, 0)
	orInt(&c.SettleTimeout, DefaultSettleTimeout)
	orInt(&c.ResendAfter, DefaultResendAfter)
	if c.Namespace == "" {
		c.Namespace = protocol.DefaultNamespace
	}
	if c.Name == "" {
		c.Name = defaultName()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func orInt[T int | int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// validate reports every fault, one a line, each with its field and rule.
func (c *Config) validate() error {
	var faults []error
	fault := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	between := func(field string, v, lo, hi int64) {
		fault(v >= lo && v <= hi, "%s: must be between %d and %d, is %d", field, lo, hi, v)
	}
	fault(c.Broker != nil, "Broker: is required")
	// The id adds 9 bytes to the name, and is itself bounded as a name.
	fault(plain(c.Name, protocol.MaxNameBytes-9), "Name: at most %d bytes without spaces or control characters", protocol.MaxNameBytes-9)
	fault(plain(c.Service, protocol.MaxNameBytes), "Service: at most %d bytes without spaces or control characters", protocol.MaxNameBytes)
	fault(plain(c.Namespace, 64), "Namespace: at most 64 bytes without spaces or control characters")
	fault(len(c.Release) <= protocol.MaxNameBytes, "Release: at most %d bytes", protocol.MaxNameBytes)
	between("Concurrency", int64(c.Concurrency), 1, 10_000)
	between("Prefetch", int64(c.Prefetch), 0, 20_000)
	if err := checkWeight(c.Weight); err != nil {
		faults = append(faults, err)
	}
	between("MaxPayloadBytes", int64(c.MaxPayloadBytes), 1, protocol.MaxPayloadBytes)
	between("MaxHeldResults", int64(c.MaxHeldResults), 1, 20_000)
	fault(c.MaxHeldBytes >= 1, "MaxHeldBytes: must be at least 1, is %d", c.MaxHeldBytes)
	fault(c.HeartbeatInterval >= 10*time.Millisecond && c.HeartbeatInterval <= time.Minute,
		"HeartbeatInterval: must be between 10ms and 1m, is %v", c.HeartbeatInterval)
	fault(c.SettleTimeout > 0, "SettleTimeout: must be positive, is %v", c.SettleTimeout)
	fault(c.ResendAfter > 0, "ResendAfter: must be positive, is %v", c.ResendAfter)
	for i, wf := range c.Workflows {
		fault(wf != nil, "Workflows[%d]: is nil", i)
	}
	return errors.Join(faults...)
}

func checkWeight(weight int) error {
	if weight < 1 || weight > protocol.MaxWeight {
		return fmt.Errorf("Weight: must be between 1 and %d, is %d", protocol.MaxWeight, weight)
	}
	return nil
}

// plain tells whether s has at most limit bytes and only visible characters.
func plain(s string, limit int) bool {
	return len(s) <= limit && strings.IndexFunc(s, func(r rune) bool {
		return r == unicode.ReplacementChar || unicode.IsSpace(r) || !unicode.IsPrint(r)
	}) < 0
}

func defaultName() string {
	host, err := os.Hostname()
	if err != nil || host == "" || !plain(host, 100) {
		host = "worker"
	}
	return fmt.Sprintf("%s-%d-%s", host, os.Getpid(), randomHex(2))
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
