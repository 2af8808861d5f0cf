package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringmaster-dev/ringmaster/api"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/lock"
)

func newServe(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the orchestrator with RabbitMQ",
		Long: `Runs the daemon: durable state in a SQLite file or in PostgreSQL, workers over
RabbitMQ, the API over HTTP. It recovers whatever had not ended when it was stopped or killed.

Settings come from flags, then from RINGMASTER_* variables (--amqp-url is
RINGMASTER_AMQP_URL), then from the YAML file given by --config (amqp_url).
--print-config shows how they come out.

The API asks nobody who they are. It listens on this machine only unless
--allow-remote is set; then put a proxy with authentication before it.`,
		Example: `  orchestrator serve --amqp-url amqp://guest:guest@127.0.0.1:5672/ --db /var/lib/ringmaster/ringmaster.db
  orchestrator serve --amqp-url amqp://... --db 'postgres://ringmaster:secret@db.example.com/ringmaster?sslmode=verify-full'
  RINGMASTER_AMQP_URL=amqp://... orchestrator serve --config /etc/ringmaster.yaml
  orchestrator serve --config ringmaster.yaml --print-config`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, k, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			if show, _ := cmd.Flags().GetBool("print-config"); show {
				return c.printConfig(k)
			}
			s.PprofListen, _ = cmd.Flags().GetString("pprof-listen")
			if len(s.brokerURLs()) == 0 {
				return usage("--amqp-url is missing: say where RabbitMQ is, such as amqp://guest:guest@127.0.0.1:5672/\n\"orchestrator dev\" runs without one")
			}
			log := newLogger(c.err, s)
			return c.serve(cmd.Context(), s, log, func(n *node, address string) {
				log.Info("serving", "api", "http://"+address, "db", maskedDB(s.DB), "broker", masked(s.AMQPURL), "namespace", s.Namespace, "version", buildInfo().Version)
			}, nil)
		},
	}
	daemonFlags(cmd.Flags(), "info")
	cmd.Flags().String("db", defaultServeDB, dbFlag)
	cmd.Flags().String("leases", "", leasesFlag)
	cmd.Flags().Duration("lease-time", lock.DefaultTTL, leaseTimeFlag)
	cmd.Flags().String("amqp-url", "", "RabbitMQ, as amqp://user:password@host:5672/; nodes of a cluster with commas between")
	cmd.Flags().String("pprof-listen", "", "serve Go profiles at this address of this machine, host:port; for developers")
	_ = cmd.Flags().MarkHidden("pprof-listen") // it exists
	return cmd
}

func newLogger(w io.Writer, s settings) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(s.LogLevel)) // validated
	o := &slog.HandlerOptions{Level: level}
	if s.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// startTimeout bounds the start of the engine, with its recovery and its first
// connection to the broker.
const startTimeout = 2 * time.Minute

// serve runs a daemon until ctx ends or it fails. ready is called once it
// serves; meanwhile, if not nil, runs beside it until the end.
func (c *cli) serve(ctx context.Context, s settings, log *slog.Logger, ready func(*node, string), meanwhile func(context.Context, *node)) error {
	listener, err := listen(ctx, s)
	if err != nil {
		return err
	}
	defer listener.Close()
	if s.AllowRemote {
		log.Warn("the API may be reachable from other machines and asks nobody who they are", "listen", s.Listen)
	}
	endProfiles, err := serveProfiles(ctx, s.PprofListen, log)
	if err != nil {
		return err
	}
	defer endProfiles()
	n, err := newNode(ctx, s, log)
	if err != nil {
		return err
	}
	// The API answers from the beginning: it says that the daemon starts.
	server := api.NewServer(n.handler, log)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	starting, cancel := context.WithTimeout(ctx, startTimeout)
	err = n.engine.Start(starting)
	cancel()
	switch {
	case err != nil && ctx.Err() != nil: // asked to stop before it had begun
		return errors.Join(server.Close(), n.close())
	case err != nil:
		return errors.Join(fmt.Errorf("start: %w", err), server.Close(), n.close())
	}
	address := reachable(listener.Addr().String())
	ready(n, address)
	super := newSupervisor(os.Getenv, log)
	super.tell("READY=1")

	aside, stopAside := context.WithCancel(ctx)
	go super.watch(aside, answers(address))
	tuneMemory()
	go trimWhenIdle(aside, n.engine.Commits)
	asideDone := make(chan struct{})
	go func() {
		defer close(asideDone)
		if meanwhile != nil {
			meanwhile(aside, n)
		}
	}()
	var cause error
	select {
	case <-ctx.Done():
		log.Info("stopping")
	case <-n.engine.Done():
		cause = fmt.Errorf("the engine has failed and must be started again: %w", n.engine.Err())
	case cause = <-failed:
	}
	super.tell("STOPPING=1")
	stopAside()
	<-asideDone
	return errors.Join(cause, stop(ctx, n.engine, server, n, s.ShutdownTimeout))
}

// stop ends all parts in the order in which they need each other.
func stop(ctx context.Context, e *engine.Engine, server *http.Server, n *node, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	var errs []error
	if err := server.Shutdown(ctx); err != nil {
		errs = append(errs, fmt.Errorf("stop the API: %w", err), server.Close())
	}
	if err := e.Stop(ctx); err != nil {
		// The store must stay open under an engine that still works: the
		// process ends, and the next start recovers.
		return errors.Join(append(errs, err)...)
	}
	return errors.Join(append(errs, n.close())...)
}
