// Command bench measures Ringmaster against the limits of its own parts, in one
// run on one machine.
//
// It first measures what RabbitMQ and SQLite can do with no engine between
// them, then three-step sagas, TCCs and two-phase commits through the real daemon, the same RabbitMQ and
// real worker processes, every commit synchronous; TCCs and two-phase commits also
// between a PostgreSQL and a MariaDB. Everything it needs it
// starts by itself, in private directories and on private ports, and ends
// again. It prints a table for people and writes the figures as JSON, an array
// of {"name", "value", "unit"}.
//
//	go run ./bench --bin bin            all of it, some minutes
//	go run ./bench --bin bin --quick    the same with shorter phases
//
// docs/performance.md says what each figure means and how far to trust it.
//
// The exit status is 1 when something could not be measured or a run was lost
// or ended otherwise than it had to, and 0 otherwise, also where a bar is
// missed: how fast the machine is, is no error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ringmaster-dev/ringmaster/worker"
)

// options are what the command line says.
type options struct {
	bin     string
	out     string
	table   string
	dir     string
	profile string
	quick   bool
	only    string
	timeout time.Duration
	rate    float64
	load    loadShape
}

func main() {
	if len(os.Args) > 1 {
		// The parts that have to be processes of their own.
		switch os.Args[1] {
		case "echo":
			exit(childMain(os.Args[2:], echoMain))
		case "crowd":
			exit(childMain(os.Args[2:], crowdMain))
		case "worker":
			exit(childMain(os.Args[2:], workerMain))
		case "bank":
			exit(childMain(os.Args[2:], bankMain))
		}
	}
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "`directory` of the programs (make build)")
	flag.StringVar(&o.out, "out", filepath.Join("bench", "latest.json"), "`file` for the figures; empty for none")
	flag.StringVar(&o.table, "table", "", "`file` for the table in Markdown")
	flag.StringVar(&o.dir, "dir", "", "new `directory` for databases and logs, which then stay; default: a temporary one")
	flag.StringVar(&o.profile, "profile", "", "new `directory` for CPU profiles of the saturated orchestrator and worker")
	flag.BoolVar(&o.quick, "quick", false, "shorter phases: noisier figures in about three minutes")
	flag.StringVar(&o.only, "only", "", "comma-separated `phases`: "+phaseNames()+"; default: all")
	flag.DurationVar(&o.timeout, "timeout", 20*time.Minute, "give up after this time")
	flag.Float64Var(&o.rate, "rate", 0, "load80: offer so many runs per second instead of 80 % of what was reached")
	flag.IntVar(&o.load.lanes, "lanes", 16, "saturation: batches of starts in flight")
	flag.IntVar(&o.load.batch, "batch", 32, "saturation: runs in a batch of starts, at most 1000")
	flag.IntVar(&o.load.workers, "workers", 2, "worker processes")
	flag.IntVar(&o.load.concurrency, "concurrency", worker.DefaultConcurrency, "handlers side by side in a worker")
	flag.IntVar(&o.load.prefetch, "prefetch", worker.DefaultPrefetch, "tasks that may wait in a worker beyond those")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "bench: unexpected argument %q; see --help\n", flag.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// isSet tells whether a flag was given.
func isSet(name string) (set bool) {
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

func (o options) check() error {
	l := o.load
	switch {
	case l.batch < 1 || l.batch > 1000:
		return fmt.Errorf("--batch: must be from 1 to 1000, is %d", l.batch)
	case l.lanes < 1 || l.lanes*l.batch > 15_000:
		return fmt.Errorf("--lanes: at least 1, and at most 15000 runs in flight, is %d", l.lanes)
	case l.workers < 1 || l.workers > 64:
		return fmt.Errorf("--workers: must be from 1 to 64, is %d", l.workers)
	case o.rate < 0 || o.rate > 1e6:
		return fmt.Errorf("--rate: must be from 0 to 1000000, is %g", o.rate)
	case o.timeout <= 0:
		return errors.New("--timeout: must be positive")
	}
	return nil
}

// run runs the chosen phases and reports, also when one of them failed.
func run(ctx context.Context, o options) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	if o.only != "" && !isSet("out") {
		o.out = "" // part of the figures must not pass for all of them
	}
	phases, err := choosePhases(o.only)
	if err != nil {
		return err
	}
	timeout := fmt.Errorf("not done after %v (--timeout)", o.timeout)
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, timeout)
	defer cancel()
	b, err := newBench(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close(err == nil)) }()
	began := time.Now()
	for _, p := range phases {
		b.say("\n%s", p.title)
		if err := p.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", p.name, errors.Join(err, context.Cause(ctx)))
		}
	}
	b.say("\nmeasured in %v on %s", time.Since(began).Round(time.Second), machineFacts())
	b.report.print(os.Stdout)
	return b.report.write(o.out, o.table)
}
