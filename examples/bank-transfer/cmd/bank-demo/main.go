// Command bank-demo moves money between two banks, of which one keeps its
// accounts in PostgreSQL and the other in MariaDB, while everything that takes
// part is killed with SIGKILL, and audits the books at the end.
//
// It starts private servers of RabbitMQ, PostgreSQL and MariaDB, the
// orchestrator, and a worker for each bank, all as processes of their own. Then,
// for each kind of transfer, customers order transfers side by side, some without
// cover, while one process after the other is killed and started again. The same
// --seed gives the same transfers and the same order of kills.
//
// The exit status is 1 if the audit finds anything, or if a transfer does not
// end.
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
	"slices"
	"syscall"
	"time"

	"github.com/ringmaster-dev/ringmaster/examples/bank-transfer/transfer"
	"github.com/ringmaster-dev/ringmaster/internal/stage"
)

type options struct {
	kind      string
	transfers int
	accounts  int
	clients   int
	kills     int
	seed      uint64
	timeout   time.Duration
	dir       string
	bin       string
}

func main() {
	var o options
	flag.StringVar(&o.kind, "kind", "all", "kind of transfer: 2pc, tcc, saga, or all, one after the other")
	flag.IntVar(&o.transfers, "transfers", 1000, "transfers of each kind")
	flag.IntVar(&o.accounts, "accounts", 10, "accounts at each bank")
	flag.IntVar(&o.clients, "clients", 1000, "transfers ordered side by side")
	flag.IntVar(&o.kills, "kills", 2, "how often each process is killed, for each kind of transfer")
	flag.Uint64Var(&o.seed, "seed", 0, "of the transfers and the kills; 0 is a new one, which is printed")
	flag.DurationVar(&o.timeout, "timeout", 10*time.Minute, "give up after this time")
	flag.StringVar(&o.dir, "dir", "", "keep the orchestrators' databases and logs in this new `directory`; default: a temporary one")
	flag.StringVar(&o.bin, "bin", "", "`directory` of the programs; default: they are built with go build")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "bank-demo: unexpected argument %q; see --help\n", flag.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, stage.NewScreen(os.Stdout)); err != nil {
		fmt.Fprintln(os.Stderr, "bank-demo:", err)
		stop()
		os.Exit(1)
	}
}

func (o options) check() error {
	switch {
	case o.kind != "all" && !slices.Contains(transfer.Kinds, transfer.Kind(o.kind)):
		return fmt.Errorf("--kind: must be 2pc, tcc, saga or all, is %q", o.kind)
	case o.transfers < 1 || o.transfers > 100_000:
		return fmt.Errorf("--transfers: must be from 1 to 100000, is %d", o.transfers)
	case o.accounts < 2 || o.accounts > 10_000:
		return fmt.Errorf("--accounts: must be from 2 to 10000, is %d", o.accounts)
	case o.clients < 1 || o.clients > 10_000:
		return fmt.Errorf("--clients: must be from 1 to 10000, is %d", o.clients)
	case o.kills < 0 || o.kills > 100:
		return fmt.Errorf("--kills: must be from 0 to 100, is %d", o.kills)
	case o.timeout <= 0:
		return errors.New("--timeout: must be positive")
	}
	return nil
}

func (o options) kinds() []transfer.Kind {
	if o.kind == "all" {
		return transfer.Kinds
	}
	return []transfer.Kind{transfer.Kind(o.kind)}
}

// run runs the demo in a directory that is removed if all went well and nobody
// asked for it.
func run(ctx context.Context, o options, out *stage.Screen) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	if o.seed == 0 {
		o.seed = rand.Uint64N(1_000_000) + 1
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "bank-transfer-"); err != nil {
			return err
		}
		defer func() {
			if err == nil {
				err = os.RemoveAll(o.dir)
			} else {
				out.Say("the orchestrators' databases and all logs are left in %s", o.dir)
			}
		}()
	} else if err := os.Mkdir(o.dir, 0o755); err != nil {
		return fmt.Errorf("--dir: %w", err)
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	timeout := fmt.Errorf("not done after %v (--timeout)", o.timeout)
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, timeout)
	defer cancel()
	return runAll(ctx, o, out)
}

func runAll(ctx context.Context, o options, out *stage.Screen) error {
	began := time.Now()
	out.Say("two banks, %d accounts each: east on PostgreSQL, west on MariaDB; --seed %d", o.accounts, o.seed)
	if err := programs(ctx, &o, out); err != nil {
		return err
	}
	s, err := startServers(ctx, out)
	if err != nil {
		return err
	}
	defer func() { _ = s.close() }()
	failed := 0
	for _, kind := range o.kinds() {
		violations, err := runKind(ctx, o, s, kind, out)
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		failed += violations
	}
	if failed > 0 {
		return fmt.Errorf("the audit found %d violations", failed)
	}
	out.Say("\nall audits passed after %v", time.Since(began).Round(time.Second))
	return nil
}

// runKind makes the transfers of one kind, on new databases and with a new
// orchestrator, and audits them.
func runKind(ctx context.Context, o options, s *servers, kind transfer.Kind, out *stage.Screen) (violations int, err error) {
	out.Say("\n%s: %d transfers, %d side by side", describe(kind), o.transfers, min(o.clients, o.transfers))
	d, err := deploy(ctx, o, s, kind)
	if err != nil {
		return 0, err
	}
	defer d.close()
	t := newTown(o, kind, d, out)
	if err := t.open(ctx); err != nil {
		return 0, err
	}
	if err := d.start(ctx); err != nil {
		return 0, err
	}
	if err := t.live(ctx, newChaos(o, victims(d), t)); err != nil {
		return 0, err
	}
	if err := t.collect(ctx); err != nil {
		return 0, err
	}
	if err := d.stop(); err != nil {
		return 0, err
	}
	return t.audit(ctx)
}

func describe(kind transfer.Kind) string {
	switch kind {
	case transfer.KindTwoPhase:
		return "2pc: two-phase commit between the databases"
	case transfer.KindTCC:
		return "tcc: hold and announce, then confirm or cancel"
	default:
		return "saga: take, add, and give back where that is refused"
	}
}
