package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/deliveries"
	"github.com/ringmaster-dev/ringmaster/internal/stage"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// module is the path that the programs are built from.
const module = "github.com/ringmaster-dev/ringmaster"

// programs are those that --bin holds.
var programs = []string{
	module + "/cmd/orchestrator",
	module + "/cmd/worker",
	module + "/examples/order-flow/cmd/orders",
	module + "/examples/order-flow/cmd/payments",
	module + "/examples/order-flow/cmd/deliveries",
	module + "/examples/order-flow/cmd/deliveries-http",
}

const (
	killPayments     = 0.3 // of the orders have ended
	killOrchestrator = 0.6
	drainGrace       = 45 * time.Second
)

// system is the shop as separate processes.
type system struct {
	o      options
	d      *day
	client *client.Client
	api    string // its URL

	orchestrator, payments *stage.Process
	others                 []*stage.Process
}

// runRabbit has every part in a process of its own and kills two of them.
func runRabbit(ctx context.Context, o options, d *day) error {
	d.out.Say("order flow, every part a process: %d orders, %d at a time", len(d.orders), d.shoppers)
	if err := prepare(ctx, &o, d.out); err != nil {
		return err
	}
	if o.amqpURL == "" {
		d.out.Say("starting a private RabbitMQ node")
		node, err := testenv.StartRabbit(ctx, testenv.RabbitConfig{})
		if err != nil {
			return err
		}
		defer func() { _ = node.Close() }()
		o.amqpURL = node.URL
	}
	s, err := openShop(ctx, o.dir)
	if err != nil {
		return err
	}
	defer func() { _ = s.close() }()
	sys, err := newSystem(o, d)
	if err != nil {
		return err
	}
	defer sys.killAll()
	if err := sys.startAll(ctx); err != nil {
		return err
	}
	if err := sys.day(ctx, s.deliveries); err != nil {
		return err
	}
	statuses, err := statusesOf(ctx, sys.client)
	if err != nil {
		return err
	}
	if err := sys.stopAll(); err != nil {
		return err
	}
	if err := d.audit(ctx, s.books(), statuses); err != nil {
		return err
	}
	d.out.Say(`
next
  examples/order-flow/cmd/demo/rabbit.go                which processes there are, and how they are killed
  examples/order-flow/deliveries/relay.yaml             how an HTTP service becomes a worker
  go run ./examples/order-flow/cmd/demo --mode rabbit --dir day    the same, and the databases and logs stay in day/`)
	return nil
}

// prepare finds or builds the programs and makes the folder of their logs.
func prepare(ctx context.Context, o *options, out *stage.Screen) error {
	var err error
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(o.dir, "logs"), 0o755); err != nil {
		return err
	}
	if o.bin != "" {
		o.bin, err = filepath.Abs(o.bin)
		return err
	}
	o.bin = filepath.Join(o.dir, "bin")
	if err := os.Mkdir(o.bin, 0o755); err != nil {
		return err
	}
	out.Say("building the programs")
	return stage.Build(ctx, o.bin, programs...)
}

func newSystem(o options, d *day) (*system, error) {
	sys := &system{o: o, d: d}
	listen, err := stage.FreeAddress()
	if err != nil {
		return nil, err
	}
	sys.api = "http://" + listen
	if sys.client, err = newClient(sys.api); err != nil {
		return nil, err
	}
	sys.orchestrator = sys.process("orchestrator", "orchestrator", "serve", "--listen", listen,
		"--db", filepath.Join(o.dir, "orchestrator.db"))
	sys.payments = sys.service("payments")
	sys.others = []*stage.Process{sys.service("orders")}
	if o.deliveries == "worker" {
		sys.others = append(sys.others, sys.service("deliveries"))
		return sys, nil
	}
	address, err := stage.FreeAddress()
	if err != nil {
		return nil, err
	}
	relay := filepath.Join(o.dir, "relay.yaml")
	if err := os.WriteFile(relay, deliveries.RelayConfig, 0o644); err != nil {
		return nil, err
	}
	join := sys.process("deliveries-relay", "worker", "--config", relay)
	join.Env = append(join.Env, "DELIVERIES="+address)
	sys.others = append(sys.others, sys.process("deliveries-http", "deliveries-http", "--listen", address,
		"--db", databaseFile(o.dir, "deliveries"), "--latency", o.latency.String()), join)
	return sys, nil
}

func (sys *system) service(name string) *stage.Process {
	return sys.process(name, name, "--db", databaseFile(sys.o.dir, name), "--latency", sys.o.latency.String())
}

func (sys *system) process(name, program string, args ...string) *stage.Process {
	return &stage.Process{
		Name: name,
		Path: filepath.Join(sys.o.bin, program),
		Args: args,
		Env:  []string{"RINGMASTER_AMQP_URL=" + sys.o.amqpURL, "RINGMASTER_NAMESPACE=" + sys.namespace()},
		Log:  filepath.Join(sys.o.dir, "logs", name+".log"),
	}
}

// namespace keeps this demo apart from whatever else uses the broker.
func (sys *system) namespace() string { return fmt.Sprintf("order-flow-%d", os.Getpid()) }

func (sys *system) all() []*stage.Process {
	return append([]*stage.Process{sys.orchestrator, sys.payments}, sys.others...)
}

func (sys *system) startAll(ctx context.Context) error {
	for _, p := range sys.all() {
		if err := p.Start(); err != nil {
			return err
		}
		sys.d.out.Say("  started %-16s pid %d", p.Name, p.PID())
	}
	return sys.await(ctx, "a worker of each service", func() bool {
		workers, err := sys.client.Workers(ctx)
		services := map[string]bool{}
		for _, w := range workers {
			services[w.Service] = true
		}
		return err == nil && len(services) == 3
	})
}

// day runs the day, with the kills on the way.
func (sys *system) day(ctx context.Context, books *deliveries.Service) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	kills := make(chan error, 1)
	go func() {
		err := sys.kills(ctx)
		if err != nil {
			cancel(err)
		}
		kills <- err
	}()
	if err := sys.d.run(ctx, sys.client, books); err != nil {
		return err
	}
	return <-kills
}

// kills kills the payments worker and then the orchestrator when so much of
// the day is done, each with work in flight, and starts them again.
func (sys *system) kills(ctx context.Context) error {
	for _, k := range []struct {
		at   <-chan struct{}
		kill func(context.Context) error
	}{
		{sys.d.after(killPayments), sys.killPayments},
		{sys.d.after(killOrchestrator), sys.killOrchestrator},
	} {
		select {
		case <-k.at:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := k.kill(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (sys *system) killPayments(ctx context.Context) error {
	var tasks int
	err := sys.await(ctx, "tasks at the payments worker", func() bool {
		workers, err := sys.client.Workers(ctx)
		tasks = 0
		for _, w := range workers {
			if w.Service == "payments" {
				tasks += w.Outstanding
			}
		}
		return err == nil && tasks > 0
	})
	if err != nil {
		return err
	}
	return sys.crash(sys.payments, fmt.Sprintf("%d tasks at it", tasks))
}

func (sys *system) killOrchestrator(ctx context.Context) error {
	var stats rest.Stats
	err := sys.await(ctx, "tasks in flight", func() bool {
		var err error
		stats, err = sys.client.Stats(ctx)
		return err == nil && stats.InFlight > 0
	})
	if err != nil {
		return err
	}
	return sys.crash(sys.orchestrator, fmt.Sprintf("%d tasks in flight", stats.InFlight))
}

// crash kills a process and starts it again.
func (sys *system) crash(p *stage.Process, with string) error {
	pid := p.PID()
	if err := p.Kill(); err != nil {
		return err
	}
	if err := p.Start(); err != nil {
		return err
	}
	sys.d.out.Say("  killed %s (SIGKILL, pid %d) with %s; started again as pid %d", p.Name, pid, with, p.PID())
	return nil
}

// await polls until it is so.
func (sys *system) await(ctx context.Context, what string, so func() bool) error {
	ticks := time.NewTicker(2 * time.Millisecond)
	defer ticks.Stop()
	for !so() {
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
		}
	}
	return nil
}

// stopAll ends the workers and then the orchestrator, in the regular way.
func (sys *system) stopAll() error {
	var errs []error
	for _, p := range append([]*stage.Process{sys.payments}, sys.others...) {
		errs = append(errs, p.Stop(drainGrace))
	}
	return errors.Join(append(errs, sys.orchestrator.Stop(drainGrace))...)
}

// killAll leaves nothing behind, whatever happened.
func (sys *system) killAll() {
	for _, p := range sys.all() {
		if p.Started() {
			_ = p.Kill() // an error says that it has ended
		}
	}
}
