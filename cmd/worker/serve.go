package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ringmaster-dev/ringmaster/broker/rabbit"
	"github.com/ringmaster-dev/ringmaster/cmd/worker/config"
	"github.com/ringmaster-dev/ringmaster/cmd/worker/relay"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// serve relays tasks until ctx ends, then drains.
func serve(ctx context.Context, cfg *config.Config, f flags, logger *slog.Logger) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	b, err := rabbit.New(rabbit.Config{URLs: config.Nodes(cfg.AMQPURL)})
	if err != nil {
		return err
	}
	calls := relay.New(cfg.Concurrency, "ringmaster-worker/"+version(), relay.Options{Registerer: registry})
	defer calls.Close()

	maxPayload := worker.DefaultMaxPayloadBytes
	for _, t := range cfg.Tasks {
		maxPayload = max(maxPayload, int(t.MaxResponse))
	}
	w, err := worker.New(worker.Config{
		Broker:          b,
		Namespace:       cfg.Namespace,
		Name:            cfg.Name,
		Service:         cfg.Service,
		Concurrency:     cfg.Concurrency,
		Weight:          cfg.Weight,
		DrainTimeout:    cfg.DrainTimeout,
		MaxPayloadBytes: maxPayload,
		Release:         version(),
		Logger:          logger,
		Registerer:      registry,
	})
	if err != nil {
		return err
	}
	if f.metricsListen != "" {
		stop, err := serveMetrics(f.metricsListen, registry, w.Err, logger)
		if err != nil {
			return err
		}
		defer stop()
	}
	for _, t := range cfg.Tasks {
		w.HandleFunc(t.Type, calls.Handler(t))
		logger.Info("relaying", "type", t.Type, "method", t.Method, "url", t.URL.String())
	}
	defer reweigh(w, f, logger)()
	if err := w.Run(ctx); err != nil {
		return fmt.Errorf("relay tasks of service %s: %w", cfg.Service, err)
	}
	logger.Info("drained", "service", cfg.Service)
	return nil
}

// reweigh has SIGHUP read the file again and take over its weight, which is all
// that changes without a restart, until stop is called.
func reweigh(w *worker.Worker, f flags, logger *slog.Logger) (stop func()) {
	hangups, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		for {
			select {
			case <-hangups:
			case <-done:
				return
			}
			cfg, err := config.Load(f.config, os.LookupEnv)
			if err == nil {
				err = f.overrule(cfg)
			}
			if err == nil {
				err = w.SetWeight(cfg.Weight)
			}
			if err != nil {
				logger.Error("the configuration was not read again", "error", err)
				continue
			}
			logger.Info("the configuration was read again: its weight counts from now on", "weight", cfg.Weight)
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(done)
	}
}

// serveMetrics serves /metrics and /healthz until stop is called. The latter
// answers 503 with the reason while no tasks can come.
func serveMetrics(address string, registry *prometheus.Registry, fault func() error, logger *slog.Logger) (stop func(), err error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("serve metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if err := fault(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			logger.Error("metrics server ended", "error", err)
		}
	}()
	logger.Info("serving metrics", "address", listener.Addr().String())
	return func() { _ = server.Close() }, nil
}

// askHealth asks a worker that serves metrics at an address whether it is well.
func askHealth(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/healthz", nil)
	if err != nil {
		return usageError{fmt.Errorf("%s is not an address: expected host:port", address)}
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask the worker: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the worker at %s answers %s", address, res.Status)
	}
	return nil
}
