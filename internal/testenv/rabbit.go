package testenv

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// errForeign refuses to change a service that this package did not start.
var errForeign = errors.New("this RabbitMQ was not started here and is left alone")

// startTimeout bounds the wait for a service to answer.
const startTimeout = 2 * time.Minute

// Rabbit is a RabbitMQ node. Its methods are safe for concurrent use, but one
// at a time changes the node.
type Rabbit struct {
	// URL is the AMQP address, with credentials and virtual host.
	URL string
	// ManagementURL is the base of the management API, with credentials; empty
	// where the node was given by the environment and has none.
	ManagementURL string

	mu     sync.Mutex
	node   *rabbitNode // nil: not ours
	guest  bool        // its epmd is the cluster's
	reaper *reaper
	epmd   *process
	server *process
}

// rabbitNode is what is needed to run a node and its tools; it is also what
// the command keeps on disk between start and stop.
type rabbitNode struct {
	Dir        string
	Bin        string
	Name       string
	Host       string // the address it listens on
	Home       string // of the Erlang cookie; a cluster's nodes share it
	Port       int
	Management int
	Dist       int
	Epmd       int
	Tool       int // distribution port of rabbitmqctl
	EpmdPID    int
	ServerPID  int
	Args       []string       // of the Erlang machine
	Env        []string       // variables besides those that every node has
	Space      *namespaceLink // nil: on the loopback interface
}

// RabbitConfig says how to start a node. The zero value works.
type RabbitConfig struct {
	// Dir is where the node keeps everything. Empty is a new temporary
	// directory, which Close removes.
	Dir string
	// Config is appended to rabbitmq.conf.
	Config string
	// NoInstall fails where the server is missing instead of installing it.
	NoInstall bool
	// Detached leaves the node running when this process ends.
	Detached bool
}

// rabbitDirs are where the server may be installed.
var rabbitDirs = []string{
	"/usr/lib/rabbitmq/bin", "/usr/local/lib/rabbitmq/bin", "/opt/rabbitmq*/sbin",
	"/usr/local/opt/rabbitmq/sbin", "/opt/homebrew/opt/rabbitmq/sbin",
}

func ensureRabbit(ctx context.Context) (string, error) {
	return ensure(ctx, "rabbitmq-server", "rabbitmq-server", rabbitDirs...)
}

func locateRabbit(ctx context.Context) (string, error) {
	return locate(ctx, "rabbitmq-server", "rabbitmq-server", rabbitDirs...)
}

// StartRabbit starts a node of its own and waits until it answers.
func StartRabbit(ctx context.Context, cfg RabbitConfig) (*Rabbit, error) {
	find := ensureRabbit
	if cfg.NoInstall {
		find = locateRabbit
	}
	bin, err := find(ctx)
	if err != nil {
		return nil, err
	}
	dir := cfg.Dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "ringmaster-rabbitmq-"); err != nil {
			return nil, err
		}
	} else if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	r := &Rabbit{}
	if !cfg.Detached {
		if r.reaper, err = newReaper(dir); err != nil {
			return nil, err
		}
	}
	// A port may be taken between finding it and using it: try again.
	for attempt := 1; ; attempt++ {
		r.node, err = newRabbitNode(dir, bin, cfg.Config)
		if err == nil {
			err = r.Start(ctx)
		}
		if err == nil {
			break
		}
		_ = r.Kill()
		if attempt == 3 || ctx.Err() != nil {
			r.endEpmd()
			r.reaper.done()
			return nil, err
		}
	}
	r.address()
	return r, nil
}

// address tells where the node is.
func (r *Rabbit) address() {
	r.URL = "amqp://guest:guest@" + r.node.at(r.node.Port) + "/"
	r.ManagementURL = "http://guest:guest@" + r.node.at(r.node.Management)
}

// at is a port of the node.
func (n *rabbitNode) at(port int) string { return net.JoinHostPort(n.Host, strconv.Itoa(port)) }

// newRabbitNode chooses ports and writes the configuration into dir.
func newRabbitNode(dir, bin, extra string) (*rabbitNode, error) {
	ports, err := freePorts(5)
	if err != nil {
		return nil, err
	}
	n := &rabbitNode{
		Dir: dir, Bin: bin, Name: "ringmaster" + strings.ToLower(rand.Text()[:8]) + "@localhost",
		Host: "127.0.0.1", Home: dir,
		Port: ports[0], Management: ports[1], Dist: ports[2], Epmd: ports[3], Tool: ports[4],
		// The distribution stays on the loopback interface.
		Args: []string{"-kernel inet_dist_use_interface {127,0,0,1}"},
	}
	return n, n.configure(extra)
}

// configure writes the node's files.
func (n *rabbitNode) configure(extra string) error {
	conf := fmt.Sprintf(`listeners.tcp.1 = %s
management.tcp.ip = %s
management.tcp.port = %d
management.rates_mode = none
log.file.level = warning
disk_free_limit.absolute = 50MB
%s
`, n.at(n.Port), n.Host, n.Management, extra)
	for name, text := range map[string]string{
		"rabbitmq.conf":   conf,
		"enabled_plugins": "[rabbitmq_management].\n",
		"rabbitmq-env":    "",
	} {
		if err := os.MkdirAll(n.Dir, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(n.Dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// command prepares a RabbitMQ script with everything pointing into the node's
// own directory. Nothing of the caller's RABBITMQ_ variables gets through.
func (n *rabbitNode) command(ctx context.Context, script string, args ...string) *exec.Cmd {
	cmd := n.Space.command(ctx, filepath.Join(n.Bin, script), args...)
	in := func(name string) string { return filepath.Join(n.Dir, name) }
	cmd.Dir = n.Dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8",
		"HOME=" + n.Home,
		// Has the script become the node instead of watching over it, so that
		// the pid of the one is the pid of the other.
		"RUNNING_UNDER_SYSTEMD=true",
		"RABBITMQ_NODENAME=" + n.Name,
		"RABBITMQ_NODE_IP_ADDRESS=" + n.Host,
		"RABBITMQ_NODE_PORT=" + strconv.Itoa(n.Port),
		"RABBITMQ_DIST_PORT=" + strconv.Itoa(n.Dist),
		"RABBITMQ_CTL_DIST_PORT_MIN=" + strconv.Itoa(n.Tool),
		"RABBITMQ_CTL_DIST_PORT_MAX=" + strconv.Itoa(n.Tool),
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=" + strings.Join(n.Args, " "),
		"ERL_EPMD_PORT=" + strconv.Itoa(n.Epmd),
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_MNESIA_BASE=" + in("data"),
		"RABBITMQ_LOG_BASE=" + in("log"),
		"RABBITMQ_CONF_ENV_FILE=" + in("rabbitmq-env"),
		"RABBITMQ_CONFIG_FILE=" + in("rabbitmq.conf"),
		"RABBITMQ_ADVANCED_CONFIG_FILE=" + in("advanced.config"),
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + in("enabled_plugins"),
		"RABBITMQ_PID_FILE=" + in("pid"),
	}
	cmd.Env = append(cmd.Env, n.Env...)
	return cmd
}

// Start starts a node that was stopped or killed, on the same ports and with
// the same data, and waits until it answers.
func (r *Rabbit) Start(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.node == nil {
		return errForeign
	}
	n := r.node
	if r.epmd == nil && !r.guest {
		p, err := n.startEpmd(ctx, r.reaper)
		if err != nil {
			return err
		}
		r.epmd, n.EpmdPID = p, p.pid()
	}
	logfile := filepath.Join(n.Dir, "server.log")
	p, err := start(n.command(context.Background(), "rabbitmq-server"), logfile, r.reaper)
	if err != nil {
		return err
	}
	r.server, n.ServerPID = p, p.pid()
	if err := n.waitReady(ctx, p); err != nil {
		return fmt.Errorf("starting RabbitMQ: %w\n%s", err, tailFile(logfile))
	}
	return nil
}

// startEpmd starts the daemon that tells Erlang nodes of each other. As a child
// of our own it can be ended by its pid; one that a node starts by itself
// outlives it.
func (n *rabbitNode) startEpmd(ctx context.Context, r *reaper) (*process, error) {
	epmd := n.Space.command(context.Background(), "epmd", "-port", strconv.Itoa(n.Epmd), "-address", n.Host)
	epmd.Dir = n.Dir
	p, err := start(epmd, filepath.Join(n.Dir, "epmd.log"), r)
	if err != nil {
		return nil, err
	}
	if err := waitDial(ctx, n.at(n.Epmd), p.exited); err != nil {
		p.signal(syscall.SIGKILL)
		return nil, fmt.Errorf("waiting for epmd: %w", err)
	}
	return p, nil
}

// Stop shuts the node down in the regular way; its data stay.
func (r *Rabbit) Stop(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.node == nil {
		return errForeign
	}
	return r.end(ctx, syscall.SIGTERM)
}

// Kill ends the node at once, as kill -9 does; its data stay.
func (r *Rabbit) Kill() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.node == nil {
		return errForeign
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	return r.end(ctx, syscall.SIGKILL)
}

// Pause freezes the node, as a machine that swaps or a virtual machine that is
// moved does: its connections stay and nothing answers. Resume ends that.
// It returns when every thread of the node stands still (where /proc tells).
func (r *Rabbit) Pause() error {
	if err := r.send(syscall.SIGSTOP); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	return poll(ctx, nil, func() error {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", r.node.ServerPID))
		for _, t := range threads {
			b, err := os.ReadFile(t)
			if err != nil {
				continue // a thread that has ended
			}
			// The state follows the name, which is in parentheses.
			if _, state, ok := strings.Cut(string(b), ") "); ok && !strings.HasPrefix(state, "T") {
				return errors.New("the node still runs")
			}
		}
		return nil
	})
}

// Resume wakes a node that was paused.
func (r *Rabbit) Resume() error { return r.send(syscall.SIGCONT) }

func (r *Rabbit) send(s syscall.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.node == nil {
		return errForeign
	}
	if r.server == nil {
		return errors.New("the node does not run")
	}
	r.server.signal(s)
	return nil
}

func (r *Rabbit) end(ctx context.Context, s syscall.Signal) error {
	if r.server == nil {
		return nil
	}
	r.server.signal(s)
	select {
	case <-r.server.exited:
		r.server = nil
		return nil
	case <-ctx.Done():
		r.server.signal(syscall.SIGKILL)
		<-r.server.exited
		r.server = nil
		return fmt.Errorf("stopping RabbitMQ: %w", ctx.Err())
	}
}

// Restart stops and starts the node.
func (r *Rabbit) Restart(ctx context.Context) error {
	if err := r.Stop(ctx); err != nil {
		return err
	}
	return r.Start(ctx)
}

// Close ends the node and removes its directory.
func (r *Rabbit) Close() error {
	if r.node == nil {
		return nil
	}
	err := r.Kill()
	r.endEpmd()
	r.reaper.done()
	return errors.Join(err, os.RemoveAll(r.node.Dir))
}

func (r *Rabbit) endEpmd() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.epmd != nil {
		r.epmd.signal(syscall.SIGKILL)
		<-r.epmd.exited
		r.epmd = nil
	}
}

// Control runs rabbitmqctl against the node and returns what it printed.
func (r *Rabbit) Control(ctx context.Context, args ...string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.node == nil {
		return "", errForeign
	}
	out, err := r.node.command(ctx, "rabbitmqctl", append([]string{"-q"}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("rabbitmqctl %s: %w\n%s", args[0], err, tail(string(out), 10))
	}
	return string(out), nil
}

// SetAlarm raises or clears the memory alarm: while it is raised the node
// reads nothing from connections that publish.
func (r *Rabbit) SetAlarm(ctx context.Context, raised bool) error {
	watermark := "0.4"
	if raised {
		watermark = "0.00001"
	}
	_, err := r.Control(ctx, "set_vm_memory_high_watermark", watermark)
	return err
}

// stateFile is where a detached node is described.
func stateFile(dir, service string) string { return filepath.Join(dir, service+".json") }

func saveState(dir, service string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(stateFile(dir, service), b, 0o644)
}
