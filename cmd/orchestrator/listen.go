package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/ringmaster-dev/ringmaster/api"
	"github.com/ringmaster-dev/ringmaster/client"
)

// listen takes the address of the API, or says why it cannot be had and what
// to do.
func listen(ctx context.Context, s settings) (net.Listener, error) {
	listener, err := api.Listen(ctx, s.Listen, s.AllowRemote)
	change := fmt.Sprintf("--listen HOST:PORT or %sLISTEN", envPrefix)
	switch {
	case err == nil:
		return listener, nil
	case errors.Is(err, api.ErrNotLoopback):
		return nil, usage("%s: %w\nOther machines could start and settle runs without being asked who they are. If that is meant, add --allow-remote", s.origin("listen"), err)
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s is in use %s\nTo run this one beside it, give it another address with %s", s.Listen, holder(ctx, s), change)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%w\nThis machine has no such address; give one that it has with %s", err, change)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("%w\nThis user may not listen there (ports below 1024 are reserved); give another port with %s", err, change)
	}
	return nil, fmt.Errorf("%w\nGive another address with %s", err, change)
}

// probeTimeout bounds the question who listens at an address that is taken.
const probeTimeout = time.Second

// holder says who has the address, and what can be done about that.
func holder(ctx context.Context, s settings) string {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	url := "http://" + reachable(s.Listen)
	cl, err := client.New(client.Config{URL: url, RetryFor: -1})
	if err == nil {
		defer cl.CloseIdleConnections()
		if health, err := cl.Health(ctx); err == nil && health.Checks["engine"] != "" {
			return fmt.Sprintf("by an orchestrator that is running already (its status is %s)\nTo use that one, give the other commands --api %s; to replace it, stop it first", health.Status, url)
		}
	}
	_, port, _ := strings.Cut(s.Listen[max(strings.LastIndex(s.Listen, ":"), 0):], ":")
	return fmt.Sprintf("by a program that is not an orchestrator, or one that does not answer\n\"lsof -i :%s\" tells which, or on Linux \"ss -ltnp\"", port)
}

// reachable is where an address to listen at can be reached from this machine.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
