package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ringmaster-dev/ringmaster/api"
)

// settings are what a daemon can be told: by flags, then by RINGMASTER_*
// variables, then by a YAML file, then by default.
type settings struct {
	privateBroker bool // a RabbitMQ that this process has started for itself

	Listen            string        `koanf:"listen"`
	AllowRemote       bool          `koanf:"allow_remote"`
	DB                string        `koanf:"db"`
	Broker            string        `koanf:"broker"` // dev only
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
	LogLevel          string        `koanf:"log_level"`
	LogFormat         string        `koanf:"log_format"`
	ShutdownTimeout   time.Duration `koanf:"shutdown_timeout"`
	PprofListen       string        `koanf:"-"` // a flag of serve only
}

const defaultListen = "127.0.0.1:7070"

// envPrefix begins every variable that is a setting; apiVariable is not one.
const (
	envPrefix   = "RINGMASTER_"
	apiVariable = "api"
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
	fl.String("log-level", logLevel, "debug, info, warn or error")
	fl.String("log-format", "text", "text or json")
	fl.Duration("shutdown-timeout", 15*time.Second, "how long a stop may take before it is cut short")
	fl.Bool("print-config", false, "print the settings as they come out, secrets masked, and exit")
}

// loadSettings puts the sources of settings together.
func loadSettings(cmd *cobra.Command) (settings, *koanf.Koanf, error) {
	k := koanf.New(".")
	path, _ := cmd.Flags().GetString("config")
	if path == "" {
		path = os.Getenv(envPrefix + "CONFIG")
	}
	known := knownSettings(cmd.Flags())
	if path != "" {
		if err := loadFile(k, path, known); err != nil {
			return settings{}, nil, err
		}
	}
	err := k.Load(env.Provider(".", env.Opt{Prefix: envPrefix, TransformFunc: func(name, value string) (string, any) {
		key := strings.ToLower(strings.TrimPrefix(name, envPrefix))
		if !slices.Contains(known, key) || key == apiVariable || value == "" {
			return "", nil
		}
		return key, value
	}}), nil)
	if err != nil {
		return settings{}, nil, fmt.Errorf("read the environment: %w", err)
	}
	err = k.Load(posflag.ProviderWithFlag(cmd.Flags(), ".", k, func(f *pflag.Flag) (string, any) {
		key := settingName(f.Name)
		if !slices.Contains(known, key) {
			return "", nil
		}
		return key, posflag.FlagVal(cmd.Flags(), f)
	}), nil)
	if err != nil {
		return settings{}, nil, fmt.Errorf("read the flags: %w", err)
	}
	var s settings
	if err := k.Unmarshal("", &s); err != nil {
		return settings{}, nil, usage("settings: %w", err)
	}
	return s, k, s.validate()
}

func loadFile(k *koanf.Koanf, path string, known []string) error {
	if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return usage("--config %s: there is no such file", path)
		}
		return usage("--config %s: %w", path, err)
	}
	for _, key := range k.Keys() {
		if !slices.Contains(known, key) {
			return usage("--config %s: unknown setting %q; settings are named as flags are, with _ for -", path, key)
		}
	}
	return nil
}

func settingName(flag string) string { return strings.ReplaceAll(flag, "-", "_") }

// knownSettings are the names of the flags that are settings.
func knownSettings(fl *pflag.FlagSet) []string {
	var names []string
	fl.VisitAll(func(f *pflag.Flag) {
		switch f.Name {
		case "config", "print-config", "help", "api", "ephemeral", "output", "pprof-listen":
		default:
			names = append(names, settingName(f.Name))
		}
	})
	return names
}

func (s settings) validate() error {
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, s.LogLevel) {
		return usage("log-level %q: expected debug, info, warn or error", s.LogLevel)
	}
	if s.LogFormat != "text" && s.LogFormat != "json" {
		return usage("log-format %q: expected text or json", s.LogFormat)
	}
	if s.Shards < 0 || s.Shards > 65_536 {
		return usage("shards %d: expected 1 to 65536, or 0", s.Shards)
	}
	for name, n := range map[string]int{
		"max-payload-bytes": s.MaxPayloadBytes, "max-batch-bytes": s.MaxBatchBytes, "max-unfinished": s.MaxUnfinished,
		"max-starting": s.MaxStarting, "max-resident-runs": s.MaxResidentRuns,
	} {
		if n < 1 {
			return usage("%s %d: expected at least 1", name, n)
		}
	}
	for _, u := range s.brokerURLs() {
		if u == brokerAuto && s.Broker == brokerAuto {
			continue
		}
		parsed, err := url.Parse(u)
		if err != nil || parsed.Scheme != "amqp" && parsed.Scheme != "amqps" || parsed.Host == "" {
			return usage("broker URL %q: expected amqp://user:password@host:5672/ (several with commas between)", masked(u))
		}
	}
	return nil
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
	for _, key := range []string{"amqp_url", "broker", "db"} {
		if v := k.String(key); v != "" {
			if err := k.Set(key, masked(v)); err != nil {
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
