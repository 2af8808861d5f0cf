package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringmaster-dev/ringmaster/internal/render"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// brokerAuto is the --broker that asks for a private RabbitMQ.
const brokerAuto = "auto"

func newDev(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run everything in one process, to develop with",
		Long: `Runs an orchestrator with a SQLite file and a broker inside the process: nothing
needs to be installed. Its state stays in ./.ringmaster/dev.db until you remove
that folder; --ephemeral keeps it in a temporary one that is removed at the end.

The broker in the process can be reached by workers of the same process only.
For workers of their own, in any language, give a RabbitMQ with --broker, or
"--broker auto" for a private RabbitMQ that is started, and ended, with this
process, where the server is installed.`,
		Example: `  orchestrator dev
  orchestrator dev --ephemeral --listen 127.0.0.1:0
  orchestrator dev --broker auto
  orchestrator dev --broker amqp://guest:guest@127.0.0.1:5672/`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, k, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			if show, _ := cmd.Flags().GetBool("print-config"); show {
				return c.printConfig(k)
			}
			if ephemeral, _ := cmd.Flags().GetBool("ephemeral"); ephemeral {
				dir, err := os.MkdirTemp("", "ringmaster-dev-")
				if err != nil {
					return fmt.Errorf("make a temporary folder: %w", err)
				}
				defer os.RemoveAll(dir)
				s.DB = filepath.Join(dir, "dev.db")
			}
			if s.Broker == brokerAuto {
				stop, err := c.privateBroker(cmd.Context(), &s)
				if err != nil {
					return err
				}
				defer stop()
			}
			return c.dev(cmd.Context(), s)
		},
	}
	daemonFlags(cmd.Flags(), "warn")
	cmd.Flags().String("db", defaultDevDB, dbFlag)
	cmd.Flags().String("broker", "", "a RabbitMQ, as amqp://user:password@host:5672/, or auto for a private one; by default a broker inside this process")
	cmd.Flags().Bool("ephemeral", false, "keep the state in a temporary folder and remove it at the end")
	return cmd
}

// privateBroker starts a RabbitMQ of this process's own and sets its address.
func (c *cli) privateBroker(ctx context.Context, s *settings) (stop func(), err error) {
	fmt.Fprintln(c.err, "starting a private RabbitMQ")
	node, err := testenv.StartRabbit(ctx, testenv.RabbitConfig{NoInstall: true})
	if err != nil {
		return nil, fmt.Errorf("start a private RabbitMQ: %w\nOr give the URL of one that runs, here or elsewhere, with --broker", err)
	}
	s.Broker, s.privateBroker = node.URL, true
	return func() {
		if err := node.Close(); err != nil {
			fmt.Fprintln(c.err, "stopping the private RabbitMQ:", err)
		}
	}, nil
}

func (c *cli) dev(ctx context.Context, s settings) error {
	line := &statusLine{w: c.err}
	terminal := isTerminal(c.err)
	log := newLogger(line, s)
	err := c.serve(ctx, s, log, func(_ *node, address string) { c.welcome(s, address) }, func(ctx context.Context, n *node) {
		if terminal {
			c.showLoad(ctx, n, line)
		}
	})
	if err == nil {
		fmt.Fprintln(c.out, "stopped")
	}
	return err
}

// welcome says where things are, and what to do first.
func (c *cli) welcome(s settings, address string) {
	url := "http://" + address
	broker := "inside this process (--broker URL lets workers of other processes join)"
	if urls := s.brokerURLs(); len(urls) > 0 {
		broker = masked(s.Broker)
	}
	if s.privateBroker { // nobody else can reach it, and workers need the whole URL
		broker = s.Broker + " (ends with this process)"
	}
	fmt.Fprintln(c.out, c.style.Bold("Ringmaster is ready."))
	c.pairs(c.out,
		"api", url, "description", url+"/openapi.json", "metrics", url+"/metrics",
		"database", maskedDB(s.DB), "broker", broker, "namespace", s.Namespace)
	api := ""
	if s.Listen != defaultListen {
		api = " --api " + url
	}
	fmt.Fprintf(c.out, "\nTry:  orchestrator init shop            # a first project, with a workflow and its worker\n"+
		"      orchestrator%[1]s workflow apply FILE\n      orchestrator%[1]s run start NAME --input '{}' --wait\n      orchestrator%[1]s top\nStop with Ctrl-C.\n", api)
}

// showLoad keeps the status line up to date until ctx ends.
func (c *cli) showLoad(ctx context.Context, n *node, line *statusLine) {
	defer line.clear()
	for {
		stats, err := n.engine.Stats(ctx)
		workers, workersErr := n.engine.Workers(ctx)
		if err == nil && workersErr == nil {
			line.show(c.load(stats, len(workers)))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

func (c *cli) load(s rest.Stats, workers int) string {
	var sum = map[string]int64{}
	for _, counts := range s.Runs {
		for status, n := range counts {
			sum[status] += n
		}
	}
	waiting := 0
	for _, q := range s.Waiting {
		waiting += q.Waiting
	}
	text := fmt.Sprintf("%d running  %d compensating  ", sum["running"], sum["compensating"])
	stalled := fmt.Sprintf("%d stalled", sum["stalled"])
	if sum["stalled"] > 0 {
		stalled = c.errStyle.Bad(stalled)
	}
	return text + stalled + fmt.Sprintf("  %d succeeded  %d compensated | %s  %s in flight  %d waiting",
		sum["succeeded"], sum["compensated"], render.Count(workers, "worker", "workers"),
		render.Count(s.InFlight, "task", "tasks"), waiting)
}
