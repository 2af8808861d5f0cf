package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ringmaster-dev/ringmaster/chaos/internal/fleet"
	"github.com/ringmaster-dev/ringmaster/chaos/internal/link"
	"github.com/ringmaster-dev/ringmaster/chaos/internal/load"
	"github.com/ringmaster-dev/ringmaster/chaos/internal/plan"
	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/audit"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/deliveries"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/orders"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/payments"
	"github.com/ringmaster-dev/ringmaster/internal/stage"
)

const (
	// grace is how long a process may take to end in the regular way.
	grace = 45 * time.Second
	// requestTimeout bounds a client's patience with one orchestrator.
	requestTimeout = 2 * time.Second
	booksSize      = 512 << 20
	storeSize      = 4 << 30
)

// rig is a deployment whose parts can be broken.
type rig struct {
	o   options
	out *stage.Screen

	servers *servers
	books   *disk // of the services' databases
	store   *disk // of the orchestrators'

	orders     *orders.Service
	payments   *payments.Service
	deliveries *deliveries.Service

	orchestrators, workers []*fleet.Member
	clients                []*client.Client // of each orchestrator
	wires                  []wire
	eyes                   *surveyor
	victims                map[plan.Role][]*victim
}

// wire is a link with its ends.
type wire struct {
	from, to string
	*link.Link
}

// newRig starts everything. What it returns is to be closed also with an error.
func newRig(ctx context.Context, o options, out *stage.Screen) (*rig, error) {
	r := &rig{o: o, out: out, victims: map[plan.Role][]*victim{}, eyes: &surveyor{addresses: map[string]string{}, last: survey{}}}
	for _, step := range []func(context.Context) error{r.prepare, r.openShop, r.startServers, r.startOrchestrators, r.startWorkers, r.ready} {
		if err := step(ctx); err != nil {
			return r, err
		}
	}
	r.draw()
	return r, nil
}

func (r *rig) prepare(context.Context) (err error) {
	if r.o.bin, err = filepath.Abs(r.o.bin); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(r.o.bin, "orchestrator")); err != nil {
		return fmt.Errorf("--bin: %w; make build makes the programs", err)
	}
	if err := os.Mkdir(r.path("logs"), 0o755); err != nil {
		return err
	}
	if r.books, err = newDisk(r.path("books"), booksSize); err != nil {
		return err
	}
	r.store, err = newDisk(r.path("store"), storeSize)
	return err
}

func (r *rig) path(name string) string { return filepath.Join(r.o.dir, name) }

// openShop opens the services' databases, stocked for all orders.
func (r *rig) openShop(ctx context.Context) (err error) {
	if r.orders, err = orders.Open(ctx, r.books.under("orders.db")); err != nil {
		return err
	}
	if r.payments, err = payments.Open(ctx, r.books.under("payments.db")); err != nil {
		return err
	}
	if r.deliveries, err = deliveries.Open(ctx, r.books.under("deliveries.db")); err != nil {
		return err
	}
	items, err := load.Items(r.o.runs)
	if err != nil {
		return err
	}
	accounts, err := load.Accounts(r.o.runs)
	if err != nil {
		return err
	}
	return errors.Join(r.orders.Stock(ctx, items), r.payments.Fund(ctx, accounts))
}

func (r *rig) auditBooks() audit.Books {
	return audit.Books{Orders: r.orders.DB(), Payments: r.payments.DB(), Deliveries: r.deliveries.DB()}
}

func (r *rig) startServers(ctx context.Context) (err error) {
	r.servers, err = startServers(ctx, r)
	return err
}

// link makes a wire to where a URL, or an address, points, and returns it with
// the wire's address instead.
func (r *rig) link(from, to, target string) (string, error) {
	host := target
	if u, err := url.Parse(target); err == nil && u.Host != "" {
		host = u.Host
	}
	l, err := link.Listen(host)
	if err != nil {
		return "", err
	}
	r.wires = append(r.wires, wire{from, to, l})
	return strings.Replace(target, host, l.Address(), 1), nil
}

// wiresOf are all at one end of which a process is.
func (r *rig) wiresOf(name string) (links []*link.Link) {
	for _, w := range r.wires {
		if w.from == name || w.to == name {
			links = append(links, w.Link)
		}
	}
	return links
}

// broker is the list of the nodes' addresses as a process is to reach them.
func (r *rig) broker(from string) (string, error) {
	var urls []string
	for i, node := range r.servers.rabbits {
		linked, err := r.link(from, numbered(plan.Rabbit, i), node.URL)
		if err != nil {
			return "", err
		}
		urls = append(urls, linked)
	}
	return strings.Join(urls, ","), nil
}

func numbered(role plan.Role, i int) string { return string(role) + "-" + strconv.Itoa(i+1) }

func (r *rig) startOrchestrators(context.Context) error {
	for i := range r.o.orchestrators {
		name := numbered(plan.Orchestrator, i)
		listen, err := stage.FreeAddress()
		if err != nil {
			return err
		}
		args := []string{"serve", "--listen", listen, "--node", name}
		if r.o.store == "sqlite" {
			args = append(args, "--db", r.store.under("orchestrator.db"))
		} else {
			db, err := r.link(name, string(plan.Postgres), r.servers.postgres.URL)
			if err != nil {
				return err
			}
			args = append(args, "--db", db)
			if r.o.orchestrators > 1 {
				args = append(args, "--lease-time", r.o.lease.String())
			}
		}
		m, err := r.member(name, filepath.Join(r.o.bin, "orchestrator"), args...)
		if err != nil {
			return err
		}
		r.orchestrators = append(r.orchestrators, m)
		r.eyes.addresses[name] = listen
		api, err := r.link("clients", name, "http://"+listen)
		if err != nil {
			return err
		}
		c, err := client.New(client.Config{URL: api, RetryFor: -1, RequestTimeout: requestTimeout})
		if err != nil {
			return err
		}
		r.clients = append(r.clients, c)
		if err := m.Start(); err != nil {
			return err
		}
	}
	return nil
}

func (r *rig) startWorkers(context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for i := range r.o.workers {
		service := services[i%len(services)]
		name := service + "-" + strconv.Itoa(i/len(services)+1)
		metrics, err := stage.FreeAddress()
		if err != nil {
			return err
		}
		m, err := r.member(name, self, "worker", service, "--name", name, "--db", r.books.under(service+".db"),
			"--latency", r.o.takes.String(), "--metrics-listen", metrics)
		if err != nil {
			return err
		}
		r.workers = append(r.workers, m)
		r.eyes.addresses[name] = metrics
		if err := m.Start(); err != nil {
			return err
		}
	}
	return nil
}

// member is a process of ours that is joined to the broker.
func (r *rig) member(name, program string, args ...string) (*fleet.Member, error) {
	amqp, err := r.broker(name)
	if err != nil {
		return nil, err
	}
	return fleet.New(&stage.Process{
		Name: name, Path: program, Args: args, Apart: true,
		Env: []string{"RINGMASTER_AMQP_URL=" + amqp, "RINGMASTER_NAMESPACE=chaos"},
		Log: r.path(filepath.Join("logs", name+".log")),
	}, grace), nil
}

// ready waits until every orchestrator sees every worker, and the workflows.
func (r *rig) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("not after two minutes"))
	defer cancel()
	for _, c := range r.clients {
		for {
			workers, err := c.Workers(ctx)
			if err == nil && len(workers) == r.o.workers {
				workflows, err := c.Workflows(ctx)
				if err == nil && len(workflows) >= len(load.Workflows()) {
					break
				}
			}
			wait(ctx, 50*time.Millisecond)
			if ctx.Err() != nil {
				return errors.Join(fmt.Errorf("waiting for the workers: %w", context.Cause(ctx)), err)
			}
		}
	}
	return nil
}

// draw makes the victims.
func (r *rig) draw() {
	add := func(role plan.Role, v victim, busy func(survey) (int, string)) {
		v.wires, v.busy = r.wiresOf(v.name), busy
		r.victims[role] = append(r.victims[role], &v)
	}
	for _, m := range r.orchestrators {
		v := ofMember(m)
		if r.o.store == "sqlite" {
			v.disk = r.store
		}
		add(plan.Orchestrator, v, busyOrchestrator(m.Name))
	}
	for _, m := range r.workers {
		add(plan.Worker, ofMember(m), busyWorker(m.Name))
	}
	for i, node := range r.servers.rabbits {
		name := numbered(plan.Rabbit, i)
		v := ofRabbit(name, node)
		if r.servers.cluster != nil {
			v.mend = mendNode(node)
			v.cutOff, v.isolate, v.heal = node.CutOff, node.Isolate, node.Heal
		}
		add(plan.Rabbit, v, busyServer(r.wiresOf(name)))
	}
	if r.servers.postgres != nil {
		v := ofPostgres(r.servers.postgres)
		v.disk = r.store
		add(plan.Postgres, v, busyServer(r.wiresOf(v.name)))
	}
	add(plan.Books, victim{name: "the services' disk", disk: r.books}, busyDisk)
}

// stop ends workers and orchestrators in the regular way.
func (r *rig) stop() error {
	var errs []error
	for _, m := range append(append([]*fleet.Member(nil), r.workers...), r.orchestrators...) {
		errs = append(errs, m.Stop())
	}
	return errors.Join(errs...)
}

// close leaves nothing behind but, if they are to be kept, files.
func (r *rig) close(keep bool) error {
	errs := []error{fleet.KillAll(r.workers), fleet.KillAll(r.orchestrators)}
	for _, w := range r.wires {
		w.Close()
	}
	if r.orders != nil {
		errs = append(errs, r.orders.Close())
	}
	if r.payments != nil {
		errs = append(errs, r.payments.Close())
	}
	if r.deliveries != nil {
		errs = append(errs, r.deliveries.Close())
	}
	logs := ""
	if keep {
		logs = r.path("logs")
	}
	errs = append(errs, r.servers.close(logs), r.books.close(keep), r.store.close(keep && r.o.store == "sqlite"))
	return errors.Join(errs...)
}
