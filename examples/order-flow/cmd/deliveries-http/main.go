// Command deliveries-http is the shop's delivery service over plain HTTP. It
// has no connection to a broker: cmd/worker, with deliveries/relay.yaml, joins it
// to Ringmaster.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/ringmaster-dev/ringmaster/examples/order-flow/deliveries"
)

func main() {
	db := flag.String("db", "deliveries.db", "database `file`")
	listen := flag.String("listen", "127.0.0.1:8083", "`address` to serve at")
	latency := flag.Duration("latency", 0, "how long carriers take to answer")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *db, *listen, *latency); err != nil {
		fmt.Fprintln(os.Stderr, "deliveries-http:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, db, listen string, latency time.Duration) error {
	svc, err := deliveries.Open(ctx, db)
	if err != nil {
		return err
	}
	defer func() { _ = svc.Close() }()
	svc.Latency = latency
	server := &http.Server{
		Addr:              listen,
		Handler:           svc.Handler(slog.New(slog.NewTextHandler(os.Stderr, nil))),
		ReadHeaderTimeout: 5 * time.Second,
	}
	drained := make(chan error, 1)
	context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		drained <- server.Shutdown(grace)
	})
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-drained
}
