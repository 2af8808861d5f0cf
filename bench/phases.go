package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
)

// phase is a part of the benchmark. The order is that of the measurement: what
// the machine can do comes first.
type phase struct {
	name, title string
	run         func(context.Context, *bench) error
}

var phases = []phase{
	{"broker", "ceiling of the broker: tasks and results with no engine and no store", measureBroker},
	{"sqlite", "ceiling of the store: rows and commits with nothing around them", measureSQLite},
	{"floor", "floor of a saga: three round trips and the four commits around them", measureFloor},
	{"ring", "ring: lookups", measureRing},
	{"light", "light load: one run at a time", measureLight},
	{"saturated", "saturation: as many runs as it takes", measureSaturated},
	{"postgres", "light load and saturation with all state in PostgreSQL", measurePostgres},
	{"several", "the same with two orchestrators on these cores, one of which is killed", measureSeveral},
	{"load80", "80 % of that rate, offered whether or not the system keeps up", measureLoad80},
	{"workers", "a thousand workers: what they cost, and what a task costs among them", measureWorkers},
	{"history", "size of the database, checkpointed", measureHistory},
	{"tcc", "saturation with TCCs of two participants", measureTCC},
	{"twophase", "saturation with two-phase commits of two participants", measureTwoPhase},
	{"databases", "TCCs and two-phase commits between PostgreSQL and MariaDB, and what the databases can do by themselves", measureDatabases},
	{"failing", "saturation with sagas that fail at step 3 and are compensated", measureFailing},
	{"memory", "starts one by one, then memory with 10,000 and 100,000 unfinished runs", measureMemory},
	{"recovery", "recovery: kill -9 with 500 runs in flight, several times; the worst counts", measureRecovery},
	{"again", "ceiling of the broker once more: did the machine change?", measureBrokerAgain},
}

func phaseNames() string {
	names := make([]string, len(phases))
	for i, p := range phases {
		names[i] = p.name
	}
	return strings.Join(names, ", ")
}

// choosePhases returns the named phases in the order of the benchmark.
func choosePhases(only string) ([]phase, error) {
	if only == "" {
		return phases, nil
	}
	names := strings.Split(only, ",")
	for _, n := range names {
		if !slices.ContainsFunc(phases, func(p phase) bool { return p.name == n }) {
			return nil, fmt.Errorf("--only: there is no phase %q; there are %s", n, phaseNames())
		}
	}
	return slices.DeleteFunc(slices.Clone(phases), func(p phase) bool { return !slices.Contains(names, p.name) }), nil
}

// durations are how long and how much is measured.
type durations struct {
	echo         time.Duration // of one measurement of the broker
	echoRuns     int           // of which the best counts
	latencies    int           // round trips one at a time
	sqlite       time.Duration // per transaction size
	light        int           // runs one at a time
	warmUp       time.Duration
	saturated    time.Duration
	load80       time.Duration
	crowd        time.Duration // each of an idle and a busy crowd of workers
	transactions time.Duration // each of TCC and two-phase commit
	databases    time.Duration // the same on real databases, and the ceiling of each
	failing      time.Duration
	kills        int
	settle       time.Duration // longest wait for memory to settle
	unloaded     int           // unfinished runs, fewer and more
	loaded       int
}

func durationsOf(quick bool) durations {
	d := durations{
		echo: 3 * time.Second, echoRuns: 3, latencies: 5_000, sqlite: time.Second, light: 2_000,
		warmUp: 4 * time.Second, saturated: 15 * time.Second, load80: 15 * time.Second, crowd: 5 * time.Second,
		transactions: 10 * time.Second, databases: 8 * time.Second, failing: 10 * time.Second,
		kills: 3, settle: 30 * time.Second, unloaded: 10_000, loaded: 100_000,
	}
	if quick {
		d.echo, d.echoRuns, d.latencies, d.sqlite, d.light = 2*time.Second, 2, 2_000, 400*time.Millisecond, 500
		d.warmUp, d.saturated, d.load80, d.crowd = 2*time.Second, 6*time.Second, 6*time.Second, 3*time.Second
		d.transactions, d.databases, d.failing = 4*time.Second, 2*time.Second, 4*time.Second
		d.kills, d.settle = 2, 8*time.Second
	}
	return d
}

// loadShape is how load is put on the system, and what it is carried out with.
type loadShape struct {
	lanes, batch                   int
	workers, concurrency, prefetch int
}

// bench is the state of one measurement.
type bench struct {
	o      options
	d      durations
	dir    string
	self   string // this program
	report *report
	rabbit *testenv.Rabbit
	banks  *banks  // the databases of participants
	sys    *system // what the phases on ordinary load share
}

func newBench(o options) (*bench, error) {
	b := &bench{o: o, d: durationsOf(o.quick), dir: o.dir, report: newReport()}
	var err error
	if b.self, err = os.Executable(); err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	if b.o.bin, err = filepath.Abs(o.bin); err != nil {
		return nil, err
	}
	for _, dir := range []string{o.dir, o.profile} {
		if dir == "" {
			continue
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, fmt.Errorf("--dir and --profile name new directories: %w", err)
		}
	}
	if o.dir == "" {
		if b.dir, err = os.MkdirTemp("", "ringmaster-bench-"); err != nil {
			return nil, err
		}
	}
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return nil, err
	}
	b.say("%s", machineFacts())
	return b, nil
}

// close ends whatever still runs. Databases and logs go with a measurement
// that succeeded, unless somebody asked for them.
func (b *bench) close(succeeded bool) error {
	var errs []error
	if b.sys != nil {
		b.sys.kill()
	}
	if b.banks != nil {
		errs = append(errs, b.banks.close())
	}
	if b.rabbit != nil {
		errs = append(errs, b.rabbit.Close())
	}
	if succeeded && b.o.dir == "" {
		return errors.Join(append(errs, os.RemoveAll(b.dir))...)
	}
	fmt.Fprintf(os.Stderr, "databases and logs are left in %s\n", b.dir)
	return errors.Join(errs...)
}

func (b *bench) say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// broker starts the private RabbitMQ when it is first needed.
func (b *bench) broker(ctx context.Context) (*testenv.Rabbit, error) {
	if b.rabbit != nil {
		return b.rabbit, nil
	}
	b.say("  starting a private RabbitMQ node")
	r, err := testenv.StartRabbit(ctx, testenv.RabbitConfig{Dir: filepath.Join(b.dir, "rabbitmq")})
	if err != nil {
		return nil, err
	}
	b.rabbit = r
	return r, nil
}

// brokerPID is the process of the RabbitMQ node.
func (b *bench) brokerPID() (int, error) {
	text, err := os.ReadFile(filepath.Join(b.dir, "rabbitmq", "pid"))
	if err != nil {
		return 0, err
	}
	var pid int
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		return 0, fmt.Errorf("pid file of RabbitMQ: %w", err)
	}
	return pid, nil
}

// program is the path of a program that `make build` made.
func (b *bench) program(name string) (string, error) {
	path := filepath.Join(b.o.bin, name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w (build it with: make build)", err)
	}
	return path, nil
}

// machineFacts says what the figures were measured on.
func machineFacts() string {
	return fmt.Sprintf("%s/%s, %d CPUs, %s, %s, load %s",
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), cpuModel(), runtime.Version(), loadAverage())
}
