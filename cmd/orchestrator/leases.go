package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/lock/open"
)

// leasesFlag and leaseTimeFlag describe the settings that say how orchestrators
// share the shards of a database.
const (
	leasesFlag = "where orchestrators that share a database keep the leases of its shards: " + open.Addresses + "; by default in the database itself"

	leaseTimeFlag = "how long the leases of an orchestrator last that is not heard of, and so when others take over"
)

// maxLeaseTime is the longest time for which nobody may take over.
const maxLeaseTime = 10 * time.Minute

// checkLeases refuses what is no lock provider, or has no use.
func (s settings) checkLeases() error {
	if s.Leases != "" {
		if !s.onServer() {
			return usage("%s: only orchestrators that share a PostgreSQL database need leases; a SQLite file has one orchestrator", s.origin("leases"))
		}
		if err := open.Check(s.Leases); err != nil {
			return usage("%s %q: %w", s.origin("leases"), maskedDB(s.Leases), err)
		}
	}
	if s.LeaseTime != 0 && (s.LeaseTime < lock.MinTTL || s.LeaseTime > maxLeaseTime) {
		return usage("%s %s: expected %s to %s", s.origin("lease_time"), s.LeaseTime, lock.MinTTL, maxLeaseTime)
	}
	return nil
}

// openLeases opens what keeps the leases of shards; nil: this orchestrator is the
// only one. The namespace sets deployments apart here as well.
func openLeases(ctx context.Context, s settings, log *slog.Logger) (lock.Provider, error) {
	if !s.onServer() {
		return nil, nil
	}
	address := s.Leases
	if address == "" {
		address = s.databases()[0] // the home
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	p, err := open.URL(ctx, address, open.Config{Namespace: s.Namespace, Logger: log})
	if err != nil {
		return nil, fmt.Errorf("open the leases of shards at %s: %w", maskedDB(address), err)
	}
	return p, nil
}

// close lets go of what the engine stood on, which must have stopped.
func (n *node) close() error {
	var err error
	if n.leases != nil {
		err = n.leases.Close()
	}
	return errors.Join(err, n.store.Close())
}
