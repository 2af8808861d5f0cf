package main

import (
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"

	"github.com/ringmaster-dev/ringmaster/api"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine"
)

// settings are what a daemon can be told: by flags, then by RINGMASTER_*
// variables, then by a YAML file, then by default.
type settings struct {
	privateBroker bool              // a RabbitMQ that this process has started for itself
	origins       map[string]string // by setting: where its value comes from

	Listen            string        `koanf:"listen"`
	AllowRemote       bool          `koanf:"allow_remote"`
	DB                string        `koanf:"db"`
	Leases            string        `koanf:"leases"`     // serve only
	LeaseTime         time.Duration `koanf:"lease_time"` // serve only
	Broker            string        `koanf:"broker"`     // dev only
	AMQPURL           string        `koanf:"amqp_url"`
	Namespace         string        `koanf:"namespace"`
	Node              string        `koanf:"node"`
	Shards            int           `koanf:"shards"`
	HeartbeatInterval time.Duration `koanf:"heartbeat_interval"`
	MaxPayloadBytes   int           `koanf:"max_payload_bytes"`
	MaxBatchBytes     int           `koanf:"max_batch_bytes"`
	MaxUnfinished     int           `koanf:"max_unfinished"`
	MaxStarting       int           `koanf:"max_starting"`
	MaxResidentRuns   int           `koanf:"max_resident_runs"`
	MaxItems          int           `koanf:"max_items"`
	MaxChildDepth     int           `koanf:"max_child_depth"`
	MaxLocks          int           `koanf:"max_locks"`
	MaxLockWaiters    int           `koanf:"max_lock_waiters"`
	Retain            time.Duration `koanf:"retain"`
	RetainIDs         time.Duration `koanf:"retain_ids"`
	Archive           string        `koanf:"archive"`
	LogLevel          string        `koanf:"log_level"`
	LogFormat         string        `koanf:"log_format"`
	ShutdownTimeout   time.Duration `koanf:"shutdown_timeout"`
	PprofListen       string        `koanf:"-"` // a flag of serve only
}

// minRetainIDs is the shortest time for which ids stay known: that of tasks.
const minRetainIDs = 24 * time.Hour

const defaultListen = "127.0.0.1:7070"

// Where state is kept unless a setting says otherwise.
const (
	defaultServeDB = "ringmaster.db"
	defaultDevDB   = "./.ringmaster/dev.db"
)

// daemonFlags adds the settings that every daemon has.
func daemonFlags(fl *pflag.FlagSet, logLevel string) {
	fl.String("config", "", "YAML file with settings (env RINGMASTER_CONFIG)")
	fl.String("listen", defaultListen, "address of the API, host:port")
	fl.Bool("allow-remote", false, "listen on addresses that other machines can reach, although the API asks nobody who they are")
	fl.String("namespace", "ringmaster", "prefix of every exchange and queue, so that deployments can share a broker")
	fl.String("node", "", "name of this orchestrator in lists; by default the host's")
	fl.Int("shards", 0, "number of partitions of all runs, fixed when the database is made; 0 is what it has, or 16")
	fl.Duration("heartbeat-interval", time.Second, "how often this orchestrator announces itself")
	fl.Int("max-payload-bytes", api.DefaultMaxPayloadBytes, "largest input or output of a run or step")
	fl.Int("max-batch-bytes", api.DefaultMaxBatchBytes, "largest body of a batch of starts")
	fl.Int("max-unfinished", 1_000_000, "runs that have not ended; at this limit new ones are refused with 429")
	fl.Int("max-starting", 16_384, "starts that are not durable yet; at this limit new ones are refused with 429")
	fl.Int("max-resident-runs", 4_000, "runs held in memory; more while more tasks are at workers")
	fl.Int("max-child-depth", 8, "runs nested as children of one another; at most 64")
	fl.Int("max-items", 1_000, "items that a step may fan out to, whatever its definition says; at most 10000")
	fl.Int("max-locks", 16, "named locks that one run may want")
	fl.Int("max-lock-waiters", 1_000, "runs that wait for one named lock; at this limit those that ask for it are turned back")
	fl.Duration("retain", 0, "remove runs that ended as long ago as this; 0 keeps them for ever")
	fl.Duration("retain-ids", engine.DefaultRetainIDs, "how long the ids of removed runs stay known, with how they ended, at least 24h; 0 is for ever")
	fl.String("archive", "", "folder that gets each run, as JSON Lines, before it is removed; made if absent")
	fl.String("log-level", logLevel, "debug, info, warn or error")
	fl.String("log-format", "text", "text or json")
	fl.Duration("shutdown-timeout", 15*time.Second, "how long a stop may take before it is cut short")
	fl.Bool("print-config", false, "print the settings as they come out, secrets masked, and exit")
}

func (s settings) validate() error {
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, s.LogLevel) {
		return usage("%s %q: expected debug, info, warn or error", s.origin("log_level"), s.LogLevel)
	}
	if s.LogFormat != "text" && s.LogFormat != "json" {
		return usage("%s %q: expected text or json", s.origin("log_format"), s.LogFormat)
	}
	if s.Shards < 0 || s.Shards > 65_536 {
		return usage("%s %d: expected 1 to 65536, or 0", s.origin("shards"), s.Shards)
	}
	for _, least := range []struct {
		name string
		n    int
	}{
		{"max_payload_bytes", s.MaxPayloadBytes}, {"max_batch_bytes", s.MaxBatchBytes}, {"max_unfinished", s.MaxUnfinished},
		{"max_starting", s.MaxStarting}, {"max_resident_runs", s.MaxResidentRuns}, {"max_items", s.MaxItems}, {"max_child_depth", s.MaxChildDepth},
		{"max_locks", s.MaxLocks}, {"max_lock_waiters", s.MaxLockWaiters},
	} {
		if least.n < 1 {
			return usage("%s %d: expected at least 1", s.origin(least.name), least.n)
		}
	}
	if s.Retain < 0 {
		return usage("%s %s: expected a duration such as 720h, or 0", s.origin("retain"), s.Retain)
	}
	if s.Archive != "" && s.Retain == 0 {
		return usage("%s %q: nothing is removed, so nothing comes into it; say with --retain what is", s.origin("archive"), s.Archive)
	}
	if s.RetainIDs != 0 && s.RetainIDs < minRetainIDs {
		return usage("%s %s: expected at least %s, since workers may start a task for as long, or 0 for ever", s.origin("retain_ids"), s.RetainIDs, minRetainIDs)
	}
	if s.MaxChildDepth > 64 {
		return usage("%s %d: expected at most 64", s.origin("max_child_depth"), s.MaxChildDepth)
	}
	if s.MaxItems > definitions.MaxItemsLimit {
		return usage("%s %d: expected at most %d", s.origin("max_items"), s.MaxItems, definitions.MaxItemsLimit)
	}
	if _, _, err := net.SplitHostPort(s.Listen); err != nil {
		return usage("%s %q: expected host:port, such as %s", s.origin("listen"), s.Listen, defaultListen)
	}
	if err := s.checkDB(); err != nil {
		return err
	}
	if err := s.checkLeases(); err != nil {
		return err
	}
	for _, u := range s.brokerURLs() {
		if u == brokerAuto && s.Broker == brokerAuto {
			continue
		}
		parsed, err := url.Parse(u)
		if err != nil || parsed.Scheme != "amqp" && parsed.Scheme != "amqps" || parsed.Host == "" {
			return usage("%s %q: expected amqp://user:password@host:5672/ (several with commas between)", s.origin(s.brokerSetting()), masked(u))
		}
	}
	return nil
}

// brokerSetting is the setting that says where the broker is.
func (s settings) brokerSetting() string {
	if s.AMQPURL != "" {
		return "amqp_url"
	}
	return "broker"
}

// brokerURLs are the nodes of the cluster; none is the broker in this process.
func (s settings) brokerURLs() []string {
	text := s.AMQPURL
	if text == "" {
		text = s.Broker
	}
	var urls []string
	for u := range strings.SplitSeq(text, ",") {
		if u = strings.TrimSpace(u); u != "" {
			urls = append(urls, u)
		}
	}
	return urls
}

// masked hides the passwords in URLs that stand with commas between.
func masked(text string) string {
	parts := strings.Split(text, ",")
	for i, p := range parts {
		if u, err := url.Parse(strings.TrimSpace(p)); err == nil {
			if _, has := u.User.Password(); has {
				parts[i] = strings.Replace(u.Redacted(), ":xxxxx@", ":***@", 1)
			}
			continue
		}
		if _, after, ok := strings.Cut(p, "@"); ok {
			parts[i] = "***@" + after // not a URL, but perhaps a password
		}
	}
	return strings.Join(parts, ",")
}

// printConfig writes the settings as a file that --config takes.
func (c *cli) printConfig(k *koanf.Koanf) error {
	for key, mask := range map[string]func(string) string{"amqp_url": masked, "broker": masked, "db": maskedDB, "leases": maskedDB} {
		if v := k.String(key); v != "" {
			if err := k.Set(key, mask(v)); err != nil {
				return err
			}
		}
	}
	for _, key := range k.Keys() {
		if d, ok := k.Get(key).(time.Duration); ok {
			if err := k.Set(key, d.String()); err != nil {
				return err
			}
		}
	}
	b, err := k.Marshal(yaml.Parser())
	if err != nil {
		return err
	}
	_, err = c.out.Write(b)
	return err
}
