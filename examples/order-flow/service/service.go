// Package service is what the programs of the shop's services have in common:
// flags, a database, a connection to RabbitMQ, metrics, and a clean end.
package service

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ringmaster-dev/ringmaster/broker/rabbit"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// Service is one of the shop's services.
type Service interface {
	// Register makes w handle the service's tasks.
	Register(ctx context.Context, w *worker.Worker) error
	io.Closer
}

// Settings are those that a service is opened with.
type Settings struct {
	Database string        // file
	Latency  time.Duration // how long the outside world takes to answer
}

// Main runs a service's worker until SIGTERM or an interrupt, drains it and
// exits. Workflows are registered when it starts.
func Main(name string, open func(context.Context, Settings) (Service, error), workflows ...*definitions.Workflow) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, name, open, workflows); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

func run(
	ctx context.Context, name string, open func(context.Context, Settings) (Service, error), workflows []*definitions.Workflow,
) error {
	var s Settings
	flag.StringVar(&s.Database, "db", name+".db", "database `file`")
	flag.DurationVar(&s.Latency, "latency", 0, "how long the outside world takes to answer")
	url := flag.String("amqp-url", os.Getenv("RINGMASTER_AMQP_URL"), "`URL` of RabbitMQ, the nodes of a cluster with commas between; default $RINGMASTER_AMQP_URL")
	namespace := flag.String("namespace", os.Getenv("RINGMASTER_NAMESPACE"), "prefix on the broker; default $RINGMASTER_NAMESPACE, or ringmaster")
	workerName := flag.String("name", name+"-1", "place on the ring")
	concurrency := flag.Int("concurrency", 16, "tasks side by side")
	metrics := flag.String("metrics-listen", "", "serve /metrics at this `address`")
	flag.Parse()

	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if *metrics != "" {
		stop, err := serveMetrics(*metrics, registry, logger)
		if err != nil {
			return err
		}
		defer stop()
	}
	broker, err := rabbit.New(rabbit.Config{URLs: strings.Split(*url, ",")})
	if err != nil {
		return err
	}
	svc, err := open(ctx, s)
	if err != nil {
		return err
	}
	defer func() { _ = svc.Close() }()
	w, err := worker.New(worker.Config{
		Broker:      broker,
		Namespace:   *namespace,
		Name:        *workerName,
		Service:     name,
		Concurrency: *concurrency,
		Workflows:   workflows,
		Logger:      logger,
		Registerer:  registry,
	})
	if err != nil {
		return err
	}
	if err := svc.Register(ctx, w); err != nil {
		return err
	}
	return w.Run(ctx)
}

func serveMetrics(address string, registry *prometheus.Registry, logger *slog.Logger) (stop func(), err error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("serve metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			logger.Error("metrics server ended", "error", err)
		}
	}()
	return func() { _ = server.Close() }, nil
}
