// Command chaos runs orders through a whole deployment on this machine while it
// breaks its parts, and audits what came out.
//
// It starts orchestrators, workers, RabbitMQ nodes and PostgreSQL as processes of
// their own, each joined to the others by links that can be cut. While clients
// start runs at all orchestrators, a nemesis kills (SIGKILL), freezes (SIGSTOP),
// cuts off and restarts processes of each kind, and fills a disk, as a plan says
// that is drawn from --seed. At the end every run must be final, no start that was
// acknowledged may be missing, and the books of the services must bear out the
// status of every run.
//
// The exit status is 1 if anything is wrong, or if fewer than half of the faults
// hit work in flight. Then the logs and databases are kept.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ringmaster-dev/ringmaster/chaos/internal/load"
	"github.com/ringmaster-dev/ringmaster/chaos/internal/plan"
	"github.com/ringmaster-dev/ringmaster/chaos/internal/report"
	"github.com/ringmaster-dev/ringmaster/internal/stage"
)

type options struct {
	seed          uint64
	runs          int
	faults        int
	short         bool
	orchestrators int
	workers       int
	rabbits       int
	store         string
	lease         time.Duration
	takes         time.Duration
	settle        time.Duration
	timeout       time.Duration
	bin           string
	dir           string
	report        string
	keep          bool
	dry           bool
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == "worker" { // a process that the rig has started
		name := os.Args[2]
		os.Args = append(os.Args[:1], os.Args[3:]...)
		exit(serve(name))
		return
	}
	var o options
	flag.Uint64Var(&o.seed, "seed", 0, "of the plan and the orders; 0 is a new one, which is printed")
	flag.BoolVar(&o.short, "short", false, "a tenth of the runs and fewer faults, in less than three minutes")
	flag.IntVar(&o.runs, "runs", 20_000, "orders to run")
	flag.IntVar(&o.faults, "faults", 40, "faults to make")
	flag.IntVar(&o.orchestrators, "orchestrators", 3, "orchestrators; more than one needs --store postgres")
	flag.IntVar(&o.workers, "workers", 6, "workers, of the three services in turn")
	flag.IntVar(&o.rabbits, "rabbit-nodes", 3, "RabbitMQ nodes")
	flag.StringVar(&o.store, "store", "postgres", "postgres or sqlite")
	flag.DurationVar(&o.lease, "lease-time", 3*time.Second, "how long an orchestrator may be silent before it loses its shards")
	flag.DurationVar(&o.takes, "task-takes", 60*time.Millisecond, "about how long each task takes")
	flag.DurationVar(&o.settle, "settle", 90*time.Second, "all runs must be final so long after the last fault")
	flag.DurationVar(&o.timeout, "timeout", 20*time.Minute, "give up after this time")
	flag.StringVar(&o.bin, "bin", "bin", "`directory` of the programs")
	flag.StringVar(&o.dir, "dir", "", "keep databases and logs in this new `directory`; default: a temporary one")
	flag.StringVar(&o.report, "report", "", "write the report as JSON to this `file`; default: report.json in --dir")
	flag.BoolVar(&o.keep, "keep", false, "keep the directory also when all is well")
	flag.BoolVar(&o.dry, "plan", false, "print the plan and exit")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "chaos: unexpected argument %q; see --help\n", flag.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, o, stage.NewScreen(os.Stdout))
	stop()
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// The short form, unless a flag says otherwise.
const (
	shortRuns   = 3000
	shortFaults = 14
	shortLease  = 2 * time.Second
)

func (o *options) complete() error {
	given := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if o.short {
		for _, s := range []struct {
			name string
			set  func()
		}{
			{"runs", func() { o.runs = shortRuns }},
			{"faults", func() { o.faults = shortFaults }},
			{"lease-time", func() { o.lease = shortLease }},
		} {
			if !given[s.name] {
				s.set()
			}
		}
	}
	if o.seed == 0 {
		o.seed = rand.Uint64N(1_000_000) + 1
	}
	return o.check()
}

func (o *options) check() error {
	switch {
	case o.runs < 1 || o.runs > 1_000_000:
		return fmt.Errorf("--runs: must be from 1 to 1000000, is %d", o.runs)
	case o.faults < 0 || o.faults > 1000:
		return fmt.Errorf("--faults: must be from 0 to 1000, is %d", o.faults)
	case o.store != "postgres" && o.store != "sqlite":
		return fmt.Errorf("--store: must be postgres or sqlite, is %q", o.store)
	case o.orchestrators < 1 || o.orchestrators > 9:
		return fmt.Errorf("--orchestrators: must be from 1 to 9, is %d", o.orchestrators)
	case o.orchestrators > 1 && o.store == "sqlite":
		return errors.New("--orchestrators: a SQLite file serves one; more share --store postgres")
	case o.workers < len(services) || o.workers > 60:
		return fmt.Errorf("--workers: must be from %d to 60, is %d", len(services), o.workers)
	case o.rabbits != 1 && o.rabbits != 3:
		return fmt.Errorf("--rabbit-nodes: must be 1 or 3, is %d", o.rabbits)
	case o.lease < time.Second:
		return fmt.Errorf("--lease-time: must be at least 1s, is %v", o.lease)
	case o.takes < 0 || o.settle <= 0 || o.timeout <= 0:
		return errors.New("--task-takes, --settle and --timeout: must be positive")
	}
	return nil
}

func (o *options) topology() plan.Topology {
	t := plan.Topology{
		Lease:   o.lease,
		Members: map[plan.Role]int{plan.Orchestrator: o.orchestrators, plan.Worker: o.workers, plan.Rabbit: o.rabbits, plan.Books: 1},
		Disks:   []plan.Role{plan.Books},
	}
	if o.store == "postgres" {
		t.Members[plan.Postgres] = 1
		t.Disks = append(t.Disks, plan.Postgres)
	} else {
		t.Disks = append(t.Disks, plan.Orchestrator)
	}
	return t
}

func (o *options) String() string {
	return fmt.Sprintf("%d orchestrators on %s, %d workers, %d RabbitMQ nodes", o.orchestrators, o.store, o.workers, o.rabbits)
}

// run makes the directory and runs everything in it.
func run(ctx context.Context, o options, out *stage.Screen) (err error) {
	if err := o.complete(); err != nil {
		return err
	}
	p := plan.Make(o.seed, o.topology(), o.faults)
	if o.dry {
		out.Say("--seed %d, about %v\n%v", o.seed, p.Lasts(0).Round(time.Second), p)
		return nil
	}
	if o.dir == "" {
		o.dir, err = os.MkdirTemp("", "ringmaster-chaos-")
	} else {
		o.keep = true
		err = os.Mkdir(o.dir, 0o755)
	}
	if err == nil {
		o.dir, err = filepath.Abs(o.dir)
	}
	if err == nil {
		err = os.Chmod(o.dir, 0o755) // PostgreSQL may run as another user
	}
	if err != nil {
		return err
	}
	if o.report == "" {
		o.report = filepath.Join(o.dir, "report.json")
	}
	defer func() {
		if err == nil && !o.keep {
			err = os.RemoveAll(o.dir)
			return
		}
		out.Say("the report, databases and logs are in %s; to repeat the plan: --seed %d", o.dir, o.seed)
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("not done after %v (--timeout)", o.timeout))
	defer cancel()
	return strike(ctx, o, p, out)
}

// strike runs the load and the plan, and judges.
func strike(ctx context.Context, o options, p plan.Plan, out *stage.Screen) (err error) {
	out.Say("chaos: %v; %d runs, %d faults; --seed %d", &o, o.runs, p.Faults(), o.seed)
	jobs, err := load.Jobs(o.seed, o.runs)
	if err != nil {
		return err
	}
	r, err := newRig(ctx, o, out)
	defer func() { err = errors.Join(err, r.close(err != nil || o.keep)) }()
	if err != nil {
		return err
	}
	rep := &report.Report{Seed: o.seed, Topology: o.String(), Runs: o.runs, Began: time.Now()}
	v := verdict{rig: r, report: rep, jobs: jobs}
	if err := v.day(ctx, p); err != nil {
		return err
	}
	if err := v.examine(ctx); err != nil {
		return err
	}
	rep.Judge()
	if _, err := rep.WriteTo(out); err != nil {
		return err
	}
	if err := rep.Save(o.report); err != nil {
		return err
	}
	if len(rep.Failures) > 0 {
		return errors.New("this must not happen; see above")
	}
	return nil
}
