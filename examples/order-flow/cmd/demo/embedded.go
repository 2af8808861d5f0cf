package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ringmaster-dev/ringmaster/api"
	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/broker/memory"
	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/flow"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// runEmbedded has everything in this process. Work bounds the day; ctx ends
// with an interrupt.
func runEmbedded(ctx, work context.Context, o options, d *day) error {
	d.out.Say("order flow, all in one process: %d orders, %d at a time", len(d.orders), d.shoppers)
	s, err := openShop(work, o.dir)
	if err != nil {
		return err
	}
	defer func() { _ = s.close() }()
	s.payments.Latency, s.deliveries.Latency = o.latency, o.latency

	orchestrator, err := startOrchestrator(work, o.dir)
	if err != nil {
		return err
	}
	defer orchestrator.stop()
	workers, err := startWorkers(work, orchestrator.broker, s.staff())
	if err != nil {
		return err
	}
	c, err := newClient(orchestrator.url)
	if err != nil {
		return err
	}
	if err := d.run(work, c, s.deliveries); err != nil {
		return errors.Join(err, workers.stop())
	}
	if err := workers.stop(); err != nil {
		return err
	}
	if err := auditWith(work, c, d, s); err != nil {
		return err
	}
	if o.serve {
		d.out.Say("\nserving the API until interrupted; to look around:\n  go run ./cmd/orchestrator --api %s run list", orchestrator.url)
		<-ctx.Done()
		return nil
	}
	d.out.Say(`
next
  examples/order-flow/flow/flow.go          the workflow, on one page
  examples/order-flow/payments/payments.go  a service: handlers in their own database
  go run ./examples/order-flow/cmd/demo --serve        the same, and the API stays to look at the runs
  go run ./examples/order-flow/cmd/demo --mode rabbit  every part a process, two of them killed on the way`)
	return nil
}

// auditWith asks for the statuses of the runs and audits the books.
func auditWith(ctx context.Context, c *client.Client, d *day, s *shop) error {
	statuses, err := statusesOf(ctx, c)
	if err != nil {
		return err
	}
	return d.audit(ctx, s.books(), statuses)
}

// orchestrator is an engine with its API in this process.
type orchestrator struct {
	url    string
	broker broker.Broker
	stop   func()
}

func startOrchestrator(ctx context.Context, dir string) (*orchestrator, error) {
	b, err := memory.New(memory.Config{})
	if err != nil {
		return nil, err
	}
	store, err := sqlite.Open(ctx, sqlite.Config{
		Path: filepath.Join(dir, "orchestrator.db"), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	o := &orchestrator{broker: b}
	e, err := engine.New(engine.Config{Store: store, Broker: o.broker, RecoveryGrace: -1})
	if err == nil {
		err = e.Start(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, e.Stop(ctx), store.Close())
	}
	handler := api.New(api.Config{Service: e, LoopbackOnly: true})
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(listener) }()
	o.url = "http://" + listener.Addr().String()
	o.stop = func() {
		handler.Drain()
		_ = server.Close()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = e.Stop(grace)
		_ = store.Close()
	}
	return o, nil
}

// post is a worker to be: its service and how it registers its handlers.
type post struct {
	service   string
	register  func(context.Context, *worker.Worker) error
	workflows []*definitions.Workflow
}

// staff are the three services' workers. That of the orders brings the workflow.
func (s *shop) staff() []post {
	return []post{
		{"orders", s.orders.Register, []*definitions.Workflow{flow.OrderFlow.Workflow}},
		{"payments", s.payments.Register, nil},
		{"deliveries", s.deliveries.Register, nil},
	}
}

// workers are those that run in this process.
type workers struct {
	cancel context.CancelFunc
	group  *errgroup.Group
}

func startWorkers(ctx context.Context, b broker.Broker, posts []post) (*workers, error) {
	ctx, cancel := context.WithCancel(ctx)
	ws := &workers{cancel: cancel, group: new(errgroup.Group)}
	for _, p := range posts {
		w, err := worker.New(worker.Config{Broker: b, Name: p.service + "-1", Service: p.service, Workflows: p.workflows})
		if err == nil {
			err = p.register(ctx, w)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("service %s: %w", p.service, err), ws.stop())
		}
		ws.group.Go(func() error { return w.Run(ctx) })
	}
	return ws, nil
}

// stop drains the workers.
func (ws *workers) stop() error {
	ws.cancel()
	return ws.group.Wait()
}
