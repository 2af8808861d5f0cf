package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// The limits of a server that [NewServer] makes. A request must be answered
// within writeTimeout of its header, which leaves room for the longest wait.
const (
	readHeaderTimeout = 10 * time.Second
	readTimeout       = 60 * time.Second
	writeTimeout      = MaxWait + 30*time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10
)

// ErrNotLoopback: the address to listen on is reachable from other machines,
// and that was not asked for.
var ErrNotLoopback = errors.New("address is not a loopback address")

// NewServer returns a server for the handler, with bounds on how long a caller
// may take. Its Shutdown ends long polls at once.
func NewServer(h *Handler, logger *slog.Logger) *http.Server {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
	}
	if logger != nil {
		s.ErrorLog = slog.NewLogLogger(logger.Handler(), slog.LevelDebug)
	}
	s.RegisterOnShutdown(h.Drain)
	return s
}

// Listen listens on a TCP address. Unless allowRemote is set it refuses
// addresses that other machines can reach, since the API asks nobody who they
// are: ErrNotLoopback.
func Listen(ctx context.Context, address string, allowRemote bool) (net.Listener, error) {
	var config net.ListenConfig
	if !allowRemote {
		if err := checkLoopback(ctx, address); err != nil {
			return nil, err
		}
	}
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}

func checkLoopback(ctx context.Context, address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("listen on %q: expected host:port: %w", address, err)
	}
	if host == "" {
		return fmt.Errorf("listen on %q, which is every address of this machine: %w", address, ErrNotLoopback)
	}
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return fmt.Errorf("listen on %q: %w", address, err)
	}
	for _, ip := range ips {
		if !ip.IP.IsLoopback() {
			return fmt.Errorf("listen on %q: %w", address, ErrNotLoopback)
		}
	}
	return nil
}
