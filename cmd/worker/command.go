package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/ringmaster-dev/ringmaster/cmd/worker/config"
)

const long = `worker joins services that speak HTTP to Ringmaster. It takes the tasks of one
service from the broker and performs each by calling an endpoint.

The configuration file says which task type goes to which endpoint:

  amqp_url: amqp://guest:guest@127.0.0.1:5672/ # or --amqp-url, or RINGMASTER_AMQP_URL
  service: deliveries
  tasks:
    deliveries.ship:
      url: http://127.0.0.1:8083/shipments

These settings may be added; the values shown are the defaults:

  namespace: ringmaster        # as on the orchestrator
  name: relay-1                # place on the ring; default: made anew at each start
  concurrency: 16              # calls side by side
  weight: 100                  # share of the ring, up to 1000; SIGHUP has it read again
  drain_timeout: 30s           # how long calls may go on after SIGTERM
  tasks:
    deliveries.ship:
      method: POST             # or PUT, PATCH, DELETE
      timeout: 10s             # default: the step's own timeout alone
      headers: {Authorization: "Bearer ${TOKEN}"}   # ${...}: from the environment
      success: ["2xx"]         # it has taken effect
      retry: [408, 425, 429, 503]     # no effect, another attempt may help
      unknown: ["3xx", "5xx"]  # may have had an effect: asked again
      output: json             # of a success: json, the body is the step's output;
                               # text, a string of it is; none, the output is null
      max_response_bytes: 1048576
    deliveries.ship@2: {...}   # another version of a task type, which steps name so

A status has one meaning. What the file lists goes before the defaults: with
unknown: [202], 202 is no success, and 2xx otherwise is. The same status in two
lists of the file is refused. A status that is in no list is final if it is 4xx
(the saga turns back, or the participant votes no), else unknown.

The endpoint gets the payload as its body, and these headers:

  Idempotency-Key   the same on every attempt; the endpoint takes effect once
                    under it and gives the same answer again
  RM-Run-Id, RM-Workflow, RM-Step, RM-Task-Type, RM-Phase, RM-Attempt
  RM-One-Phase      true for the commit of a participant that is alone in its run
                    and was not asked to prepare
  RM-Tokens         fencing tokens of the run's locks, as a query: NAME=TOKEN&...
  traceparent       W3C trace context, where there is one

A request that was not sent (no connection) counts as failed without effect. One
that was sent and got no answer may have had an effect: it is sent again under
the same key. A compensation may come although its action never took effect, and
even before it: then the endpoint does nothing, answers success, and refuses the
action (a 409 will do) should it still come.

Exit status: 0 drained after SIGTERM or SIGINT, or --check found nothing; 1 the
configuration has faults, or the worker could not go on; 2 wrong usage, or no
broker was named. A broker that does not answer is tried again without end.`

const examples = `  worker --config deliveries.yaml --check     # say what is wrong with the file
  worker --config deliveries.yaml
  worker --config deliveries.yaml --metrics-listen 127.0.0.1:9464`

type flags struct {
	config, amqpURL, metricsListen, logLevel, logFormat string
	check                                               bool
	weight                                              int // 0: as the file says
}

type usageError struct{ error }

func isUsage(err error) bool {
	var u usageError
	return errors.As(err, &u)
}

func newCommand() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:           "worker --config FILE",
		Short:         "Relay tasks to HTTP endpoints",
		Long:          long,
		Example:       examples,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unexpected argument %q; see worker --help", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return start(cmd, f) },
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see worker --help", err)}
	})
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVarP(&f.config, "config", "c", "", "configuration `file`")
	fs.BoolVar(&f.check, "check", false, "check the configuration file and exit")
	fs.StringVar(&f.amqpURL, "amqp-url", "", "`URL` of RabbitMQ, of several nodes with commas between; goes before RINGMASTER_AMQP_URL, which goes before the file")
	fs.IntVar(&f.weight, "weight", 0, "share of the ring, `1 to 1000`; goes before the file, also when that is read again at SIGHUP")
	fs.StringVar(&f.metricsListen, "metrics-listen", "", "serve /metrics and /healthz at this `address`, such as 127.0.0.1:9464")
	fs.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	fs.StringVar(&f.logFormat, "log-format", "text", "text or json")
	cmd.AddCommand(&cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintf(cmd.OutOrStdout(), "worker %s (%s, %s/%s)\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		},
	})
	cmd.AddCommand(&cobra.Command{
		Use:   "health ADDRESS",
		Short: "Ask a worker that serves at --metrics-listen whether it lives",
		Long:  "Asks /healthz at the address of --metrics-listen of a running worker. Exit status 1 if it does not answer that it is well.\nFor containers that hold no other program.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("one address is needed, such as 127.0.0.1:9464; see worker health --help")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return askHealth(cmd.Context(), args[0]) },
	})
	return cmd
}

func start(cmd *cobra.Command, f flags) error {
	if f.config == "" {
		return usageError{errors.New("--config FILE is required; see worker --help")}
	}
	logger, err := newLogger(cmd, f)
	if err != nil {
		return usageError{err}
	}
	cfg, err := config.Load(f.config, os.LookupEnv)
	if err != nil {
		if errors.Is(err, config.ErrInvalid) {
			return fmt.Errorf("the configuration has faults:\n%w", err)
		}
		return err
	}
	if url := firstOf(f.amqpURL, os.Getenv("RINGMASTER_AMQP_URL")); url != "" {
		if rule := config.CheckAMQPURL(url); rule != "" {
			return usageError{errors.New("--amqp-url or RINGMASTER_AMQP_URL " + rule)}
		}
		cfg.AMQPURL = url
	}
	if err := f.overrule(cfg); err != nil {
		return usageError{err}
	}
	if f.check {
		fmt.Fprintf(cmd.OutOrStdout(), "%s: good: service %s, %d task types\n", f.config, cfg.Service, len(cfg.Tasks))
		return nil
	}
	if cfg.AMQPURL == "" {
		return usageError{errors.New("no broker: set amqp_url in the file, RINGMASTER_AMQP_URL or --amqp-url")}
	}
	return serve(cmd.Context(), cfg, f, logger)
}

// overrule has the flags go before the file.
func (f flags) overrule(cfg *config.Config) error {
	if f.weight < 0 || f.weight > config.MaxWeight {
		return fmt.Errorf("--weight: must be a whole number from 1 to %d, is %d", config.MaxWeight, f.weight)
	}
	if f.weight > 0 {
		cfg.Weight = f.weight
	}
	return nil
}

func newLogger(cmd *cobra.Command, f flags) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, fmt.Errorf("--log-level: must be debug, info, warn or error, is %q", f.logLevel)
	}
	o := &slog.HandlerOptions{Level: level}
	switch f.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), o)), nil
	}
	return nil, fmt.Errorf("--log-format: must be text or json, is %q", f.logFormat)
}

func firstOf(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// version is that of the module, as the build recorded it.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
