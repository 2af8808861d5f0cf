// Command bank is the worker of one of the two banks.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker/rabbit"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/examples/bank-transfer/ledger"
	"github.com/ringmaster-dev/ringmaster/examples/bank-transfer/transfer"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// databaseTimeout is how long the worker waits for its database at start.
const databaseTimeout = time.Minute

type options struct {
	bank, database, amqpURL, namespace string
	concurrency                        int
}

func main() {
	var o options
	flag.StringVar(&o.bank, "bank", transfer.East, "which bank: east or west")
	flag.StringVar(&o.database, "database-url", "", "`URL` of its database, postgres:// or mysql://")
	flag.StringVar(&o.amqpURL, "amqp-url", os.Getenv("RINGMASTER_AMQP_URL"), "`URL` of RabbitMQ, of several nodes with commas between; default $RINGMASTER_AMQP_URL")
	flag.StringVar(&o.namespace, "namespace", os.Getenv("RINGMASTER_NAMESPACE"), "prefix on the broker; default $RINGMASTER_NAMESPACE, or ringmaster")
	flag.IntVar(&o.concurrency, "concurrency", 16, "tasks side by side")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintf(os.Stderr, "bank %s: %v\n", o.bank, err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	broker, err := rabbit.New(rabbit.Config{URLs: strings.Split(o.amqpURL, ",")})
	if err != nil {
		return err
	}
	books, err := ledger.Open(o.database)
	if err != nil {
		return err
	}
	defer func() { _ = books.Close() }()
	w, err := worker.New(worker.Config{
		Broker:      broker,
		Namespace:   o.namespace,
		Name:        o.bank + "-1",
		Service:     o.bank,
		Concurrency: o.concurrency,
		Workflows:   workflows(),
		Logger:      logger,
	})
	if err != nil {
		return err
	}
	bank, err := join(ctx, books, w, logger)
	if ctx.Err() != nil {
		return nil // it was told to end before it had begun
	}
	if err != nil {
		return err
	}
	bank.Register(w, o.bank)
	return w.Run(ctx)
}

// join waits for the database, which may be down for a moment.
func join(ctx context.Context, books *ledger.Ledger, w *worker.Worker, logger *slog.Logger) (*ledger.Bank, error) {
	ctx, cancel := context.WithTimeout(ctx, databaseTimeout)
	defer cancel()
	for {
		bank, err := books.Join(ctx, w)
		if err == nil {
			return bank, nil
		}
		logger.Warn("the database is not ready", "error", err)
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// workflows are all that this bank has a part in, to be registered at start.
func workflows() []*definitions.Workflow {
	var all []*definitions.Workflow
	for _, kind := range transfer.Kinds {
		for _, wf := range transfer.All(kind) {
			all = append(all, wf.Workflow)
		}
	}
	return all
}
