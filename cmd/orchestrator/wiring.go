package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/ringmaster-dev/ringmaster/api"
	"github.com/ringmaster-dev/ringmaster/archive"
	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/broker/memory"
	"github.com/ringmaster-dev/ringmaster/broker/rabbit"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/store"
)

// node is an orchestrator with all its parts.
type node struct {
	engine   *engine.Engine
	store    store.Store
	leases   lock.Provider // nil: nobody shares the store
	handler  *api.Handler
	registry *prometheus.Registry
}

// openBroker returns RabbitMQ where there is a URL, else a broker in this process.
func openBroker(s settings) (b broker.Broker, inProcess bool, err error) {
	urls := s.brokerURLs()
	if len(urls) == 0 {
		b, err = memory.New(memory.Config{})
		return b, true, err
	}
	b, err = rabbit.New(rabbit.Config{URLs: urls})
	return b, false, err
}

// openArchive returns what keeps the runs that are removed; nil: nothing does.
func openArchive(s settings, st store.Store) (func(context.Context, []store.Unfinished) error, error) {
	if s.Archive == "" {
		return nil, nil
	}
	dir, err := archive.OpenDir(archive.DirConfig{Path: s.Archive, Store: st, Node: s.Node, Release: buildInfo().Version})
	if err != nil {
		return nil, err
	}
	return dir.Add, nil // each call leaves what it wrote durable
}

// newNode opens all parts. The engine is not started yet.
func newNode(ctx context.Context, s settings, log *slog.Logger) (*node, error) {
	n := &node{registry: prometheus.NewRegistry()}
	n.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	b, inProcess, err := openBroker(s)
	if err != nil {
		return nil, err
	}
	if n.store, err = openStore(ctx, s, log, n.registry); err != nil {
		return nil, err
	}
	if n.leases, err = openLeases(ctx, s, log); err != nil {
		return nil, errors.Join(err, n.store.Close())
	}
	cfg := engine.Config{
		Store: n.store, Broker: b, Leases: n.leases, LeaseTime: s.LeaseTime, Namespace: s.Namespace, Node: s.Node,
		HeartbeatInterval: s.HeartbeatInterval, Logger: log, Registerer: n.registry, Retain: s.Retain, RetainIDs: s.RetainIDs,
		Limits: engine.Limits{
			MaxPayloadBytes: s.MaxPayloadBytes, MaxUnfinished: s.MaxUnfinished,
			MaxStarting: s.MaxStarting, MaxResidentRuns: s.MaxResidentRuns, MaxItems: s.MaxItems, MaxChildDepth: s.MaxChildDepth,
			MaxLocks: s.MaxLocks, MaxLockWaiters: s.MaxLockWaiters,
		},
	}
	if s.RetainIDs == 0 {
		cfg.RetainIDs = -1 // for ever
	}
	if cfg.Archive, err = openArchive(s, n.store); err != nil {
		return nil, errors.Join(err, n.store.Close())
	}
	if inProcess {
		cfg.RecoveryGrace = -1 // no worker outlives this process
	}
	if n.engine, err = engine.New(cfg); err != nil {
		return nil, errors.Join(usage("%w", err), n.close())
	}
	n.handler = api.New(api.Config{
		Service: n.engine, Version: buildInfo().Version,
		MaxPayloadBytes: int64(s.MaxPayloadBytes), MaxBatchBytes: int64(s.MaxBatchBytes),
		LoopbackOnly: !s.AllowRemote, Gatherer: n.registry, Registerer: n.registry, Logger: log,
	})
	return n, nil
}
