package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/ringmaster-dev/ringmaster/api"
)

// serveProfiles serves the profiles of package net/http/pprof at an address of
// the loopback interface, until the returned function is called; "" serves
// none. Profiles show what is in memory, so no other machine can have them.
func serveProfiles(ctx context.Context, address string, log *slog.Logger) (end func(), err error) {
	if address == "" {
		return func() {}, nil
	}
	listener, err := api.Listen(ctx, address, false)
	if errors.Is(err, api.ErrNotLoopback) {
		return nil, usage("--pprof-listen: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("serve profiles: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("profiles are served no longer", "error", err)
		}
	}()
	return func() { _ = server.Close() }, nil
}
