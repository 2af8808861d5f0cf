package testenv

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// clusterNodes is how many nodes a cluster has: the fewest that outlive the
// loss of one.
const clusterNodes = 3

// netTick is after how many seconds of silence the nodes of a cluster count
// another as lost; RabbitMQ's own 60 would make every test of it long.
const netTick = 4

// Cluster is a RabbitMQ cluster of three nodes. Each has a network namespace
// of its own, where the machine allows that, and can be killed, paused,
// restarted and cut off by itself through its [Rabbit].
type Cluster struct {
	Nodes []*Rabbit

	dir    string
	reaper *reaper
	net    *network // nil: all on the loopback interface
	epmd   *process // then the one that they share
}

// ClusterConfig says how to start a cluster. The zero value works.
type ClusterConfig struct {
	// Dir is where the nodes keep everything. Empty is a new temporary
	// directory, which Close removes.
	Dir string
	// Config is appended to every rabbitmq.conf. Without it a node in a
	// minority pauses.
	Config string
	// Detached leaves the nodes running when this process ends.
	Detached bool
}

// StartCluster starts a cluster of its own and waits until every node answers
// and knows the others. It takes a quarter of a minute.
func StartCluster(ctx context.Context, cfg ClusterConfig) (_ *Cluster, err error) {
	bin, err := ensureRabbit(ctx)
	if err != nil {
		return nil, err
	}
	c := &Cluster{}
	if c.dir, err = serviceDir(cfg.Dir, "ringmaster-cluster-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("starting a RabbitMQ cluster: %w", err), c.Close())
		}
	}()
	if !cfg.Detached {
		if c.reaper, err = newReaper(c.dir); err != nil {
			return nil, err
		}
	}
	nodes, err := c.prepare(ctx, bin)
	if err != nil {
		return nil, err
	}
	for _, n := range nodes {
		if err := n.configure(clusterConfig(nodes) + cfg.Config); err != nil {
			return nil, err
		}
		r := &Rabbit{node: n, reaper: c.reaper, guest: c.net == nil}
		r.address()
		c.Nodes = append(c.Nodes, r)
	}
	if c.net == nil {
		if c.epmd, err = nodes[0].startEpmd(ctx, c.reaper); err != nil {
			return nil, err
		}
		nodes[0].EpmdPID = c.epmd.pid()
	}
	// Side by side: each waits for the others.
	errs := make([]error, len(c.Nodes))
	var wg sync.WaitGroup
	for i, r := range c.Nodes {
		wg.Go(func() { errs[i] = r.Start(ctx) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return c, c.AwaitWhole(ctx)
}

// prepare names the nodes and gives them addresses and a common secret.
func (c *Cluster) prepare(ctx context.Context, bin string) ([]*rabbitNode, error) {
	home := filepath.Join(c.dir, "home")
	if err := os.Mkdir(home, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(home, ".erlang.cookie"), []byte(rand.Text()), 0o400); err != nil {
		return nil, err
	}
	spaces := namespacesWork(ctx)
	if spaces {
		var err error
		if c.net, err = newNetwork(ctx, c.dir, clusterNodes); err != nil {
			return nil, err
		}
		if err := c.writeHosts(); err != nil {
			return nil, err
		}
	}
	ports, err := freePorts(1 + 4*clusterNodes)
	if err != nil {
		return nil, err
	}
	var nodes []*rabbitNode
	for i := range clusterNodes {
		n := &rabbitNode{
			Dir: filepath.Join(c.dir, fmt.Sprint("n", i+1)), Bin: bin, Home: home,
			// Nodes that wait need not spin meanwhile: they have neighbours.
			Args: []string{"+sbwt none +sbwtdcpu none +sbwtdio none"},
		}
		if spaces {
			n.Space = c.net.Links[i]
			n.Name, n.Host = fmt.Sprint("rabbit@n", i+1), n.Space.Address
			n.Port, n.Management, n.Dist, n.Epmd, n.Tool = 5672, 15672, 25672, 4369, 35672
			n.Env = []string{"ERL_INETRC=" + filepath.Join(c.dir, "hosts")}
		} else {
			p := ports[1+4*i:]
			n.Name, n.Host = fmt.Sprintf("n%d-%d@localhost", i+1, p[0]), "127.0.0.1"
			n.Port, n.Management, n.Dist, n.Epmd, n.Tool = p[0], p[1], p[2], ports[0], p[3]
			n.Args = append(n.Args, "-kernel inet_dist_use_interface {127,0,0,1}")
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// writeHosts tells Erlang the addresses of the nodes; the machine's own file
// of hosts stays as it is.
func (c *Cluster) writeHosts() error {
	var b strings.Builder
	b.WriteString("{lookup, [file, native]}.\n")
	for i, l := range c.net.Links {
		fmt.Fprintf(&b, "{host, {%s}, [\"n%d\"]}.\n", strings.ReplaceAll(l.Address, ".", ","), i+1)
	}
	return os.WriteFile(filepath.Join(c.dir, "hosts"), []byte(b.String()), 0o644)
}

func clusterConfig(nodes []*rabbitNode) string {
	var b strings.Builder
	fmt.Fprintf(&b, "loopback_users = none\nnet_ticktime = %d\ncluster_partition_handling = pause_minority\n", netTick)
	b.WriteString("cluster_formation.peer_discovery_backend = classic_config\n")
	for i, n := range nodes {
		fmt.Fprintf(&b, "cluster_formation.classic_config.nodes.%d = %s\n", i+1, n.Name)
	}
	for _, bound := range []string{"min", "max"} {
		fmt.Fprintf(&b, "cluster_formation.randomized_startup_delay_range.%s = 0\n", bound)
	}
	return b.String()
}

// URLs are the AMQP addresses of the nodes.
func (c *Cluster) URLs() []string {
	urls := make([]string, len(c.Nodes))
	for i, r := range c.Nodes {
		urls[i] = r.URL
	}
	return urls
}

// AwaitWhole waits until every node answers and sees all others run.
func (c *Cluster) AwaitWhole(ctx context.Context) error {
	for i, r := range c.Nodes {
		err := poll(ctx, nil, func() error {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			var seen []struct {
				Name    string
				Running bool
			}
			if err := manage(ctx, http.MethodGet, r.ManagementURL+"/api/nodes", nil, &seen); err != nil {
				return err
			}
			running := 0
			for _, n := range seen {
				if n.Running {
					running++
				}
			}
			if running != len(c.Nodes) {
				return fmt.Errorf("it sees %d nodes run, want %d", running, len(c.Nodes))
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("waiting for node %d of the cluster: %w", i+1, err)
		}
	}
	return nil
}

// Split tells whether a node that runs stays split from others although it could
// reach them: RabbitMQ leaves what has come apart while a node was suspended, until
// that node is restarted.
func (r *Rabbit) Split(ctx context.Context) (bool, error) {
	out, err := r.Control(ctx, "eval", "rabbit_node_monitor:partitions().")
	return err == nil && strings.TrimSpace(out) != "[]", err
}

// mendTime bounds how long a node that was cut off may take to rejoin by
// itself.
const mendTime = 30 * time.Second

// Mend heals a node that was cut off and waits until the cluster is whole. A
// node that does not rejoin by itself, which happens when it is healed just as
// the others miss it, is restarted, as its operator would.
func (c *Cluster) Mend(ctx context.Context, r *Rabbit) error {
	if err := r.Heal(ctx); err != nil {
		return err
	}
	soon, cancel := context.WithTimeout(ctx, mendTime)
	defer cancel()
	if c.AwaitWhole(soon) == nil {
		if split, err := r.Split(ctx); err == nil && !split {
			return nil
		}
	}
	if err := r.Kill(); err != nil {
		return err
	}
	if err := r.Start(ctx); err != nil {
		return err
	}
	return c.AwaitWhole(ctx)
}

// Close ends the nodes and removes their directory and network.
func (c *Cluster) Close() error {
	var errs []error
	for _, r := range c.Nodes {
		errs = append(errs, r.Kill())
		r.endEpmd()
	}
	if c.epmd != nil {
		c.epmd.signal(syscall.SIGKILL)
		<-c.epmd.exited
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	errs = append(errs, c.net.remove(ctx))
	c.reaper.done()
	return errors.Join(append(errs, os.RemoveAll(c.dir))...)
}

// Name is the Erlang name of the node, as RabbitMQ's tools show it; empty for
// one that was not started here.
func (r *Rabbit) Name() string {
	if r.node == nil {
		return ""
	}
	return r.node.Name
}

// CutOff takes a node of a cluster off the network: whatever goes to it or
// comes from it is lost, silently, until Heal. Where the machine has no network
// namespaces (they take Linux and root) the node is paused instead, which
// looks the same from outside.
func (r *Rabbit) CutOff(ctx context.Context) error {
	return r.link(ctx, (*namespaceLink).cut)
}

// Isolate has a node of a cluster lose what it sends to the other nodes, while
// clients still reach it, until Heal. Without network namespaces it is paused.
func (r *Rabbit) Isolate(ctx context.Context) error {
	return r.link(ctx, (*namespaceLink).isolate)
}

func (r *Rabbit) link(ctx context.Context, change func(*namespaceLink, context.Context) error) error {
	if r.node == nil {
		return errForeign
	}
	if r.node.Space == nil {
		return r.Pause()
	}
	return change(r.node.Space, ctx)
}

// Heal ends CutOff and Isolate.
func (r *Rabbit) Heal(ctx context.Context) error {
	if r.node == nil {
		return errForeign
	}
	if r.node.Space == nil {
		return r.Resume()
	}
	return r.node.Space.heal(ctx)
}
