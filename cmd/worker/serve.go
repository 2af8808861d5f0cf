package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
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
func serve(ctx context.Context, cfg *config.Config, metricsListen string, logger *slog.Logger) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if metricsListen != "" {
		stop, err := serveMetrics(metricsListen, registry, logger)
		if err != nil {
			return err
		}
		defer stop()
	}
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
	for _, t := range cfg.Tasks {
		w.HandleFunc(t.Type, calls.Handler(t))
		logger.Info("relaying", "type", t.Type, "method", t.Method, "url", t.URL.String())
	}
	if err := w.Run(ctx); err != nil {
		return fmt.Errorf("relay tasks of service %s: %w", cfg.Service, err)
	}
	logger.Info("drained", "service", cfg.Service)
	return nil
}

// serveMetrics serves /metrics and /healthz until stop is called.
func serveMetrics(address string, registry *prometheus.Registry, logger *slog.Logger) (stop func(), err error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("serve metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			logger.Error("metrics server ended", "error", err)
		}
	}()
	logger.Info("serving metrics", "address", listener.Addr().String())
	return func() { _ = server.Close() }, nil
}
