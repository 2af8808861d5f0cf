// Command demo runs a day of the shop and audits its books.
//
// By default everything is in this process: an engine with a SQLite store and
// an in-process broker, its API, and the three services. With --mode rabbit
// each part is a process of its own, joined by RabbitMQ; two of them are killed
// on the way (SIGKILL, with work in flight) and started again. Either way the
// audit must find every order delivered, paid and out of stock once, or wholly
// undone; otherwise the exit status is 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/load"
	"github.com/ringmaster-dev/ringmaster/internal/stage"
)

type options struct {
	mode     string
	orders   string
	shoppers int
	latency  time.Duration
	timeout  time.Duration
	dir      string
	serve    bool

	// Of mode rabbit.
	amqpURL    string
	bin        string
	deliveries string
}

func main() {
	var o options
	flag.StringVar(&o.mode, "mode", "embedded", "embedded, or rabbit: separate processes over RabbitMQ, two of them killed")
	flag.StringVar(&o.orders, "orders", "", "JSON Lines `file` of orders; default: the day that comes with the example")
	flag.IntVar(&o.shoppers, "shoppers", 32, "orders placed side by side")
	flag.DurationVar(&o.latency, "latency", 2*time.Millisecond, "how long card issuers and carriers take to answer")
	flag.DurationVar(&o.timeout, "timeout", 5*time.Minute, "give up after this time")
	flag.StringVar(&o.dir, "dir", "", "keep databases and logs in this new `directory`; default: a temporary one")
	flag.BoolVar(&o.serve, "serve", false, "embedded: after the audit, serve the API until interrupted")
	flag.StringVar(&o.amqpURL, "amqp-url", os.Getenv("RINGMASTER_AMQP_URL"),
		"rabbit: `URL` of RabbitMQ; default $RINGMASTER_AMQP_URL, or a private node that the demo starts")
	flag.StringVar(&o.bin, "bin", "", "rabbit: `directory` of the programs; default: they are built with go build")
	flag.StringVar(&o.deliveries, "deliveries", "http", "rabbit: deliveries as a plain http service behind cmd/worker, or as a worker")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "demo: unexpected argument %q; see --help\n", flag.Arg(0))
		os.Exit(2)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		stop()
		os.Exit(1)
	}
}

func (o options) check() error {
	switch {
	case o.mode != "embedded" && o.mode != "rabbit":
		return fmt.Errorf("--mode: must be embedded or rabbit, is %q", o.mode)
	case o.deliveries != "http" && o.deliveries != "worker":
		return fmt.Errorf("--deliveries: must be http or worker, is %q", o.deliveries)
	case o.shoppers < 1 || o.shoppers > 10_000:
		return fmt.Errorf("--shoppers: must be from 1 to 10000, is %d", o.shoppers)
	case o.latency < 0 || o.timeout <= 0:
		return errors.New("--latency must not be negative, and --timeout must be positive")
	}
	return nil
}

// run runs the demo in a directory that is removed if all went well and nobody
// asked for it.
func run(ctx context.Context, o options) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "order-flow-"); err != nil {
			return err
		}
		defer func() {
			if err == nil {
				err = os.RemoveAll(o.dir)
			} else {
				fmt.Printf("databases and logs are left in %s\n", o.dir)
			}
		}()
	} else if err := os.Mkdir(o.dir, 0o755); err != nil {
		return fmt.Errorf("--dir: %w", err)
	}
	timeout := fmt.Errorf("not done after %v (--timeout)", o.timeout)
	work, cancel := context.WithTimeoutCause(ctx, o.timeout, timeout)
	defer cancel()
	d, err := newDay(o)
	if err != nil {
		return err
	}
	if o.mode == "rabbit" {
		return runRabbit(work, o, d)
	}
	return runEmbedded(ctx, work, o, d)
}

func newDay(o options) (*day, error) {
	d := &day{shoppers: o.shoppers, out: stage.NewScreen(os.Stdout)}
	var err error
	if o.orders == "" {
		d.orders, err = load.Orders()
		return d, err
	}
	f, err := os.Open(o.orders)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	d.orders, err = load.ReadOrders(o.orders, f)
	return d, err
}

// newClient returns a client that waits out the outages of the demo.
func newClient(url string) (*client.Client, error) {
	return client.New(client.Config{URL: url, RetryFor: 2 * time.Minute})
}
