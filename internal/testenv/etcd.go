package testenv

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// EtcdServer is an etcd server that was started here.
type EtcdServer struct {
	// URL is its address, etcd://host:port.
	URL string

	node   serverNode
	peer   int
	bin    string
	reaper *reaper
	server *process
}

// EtcdConfig says how to start a server. The zero value works.
type EtcdConfig struct {
	// Dir is where the server keeps everything. Empty is a new temporary
	// directory, which Close removes.
	Dir string
	// Detached leaves the server running when this process ends.
	Detached bool
}

// StartEtcd starts a server of its own and waits until it answers. Its timeouts
// are a half of the defaults, so that it grants leases of one second.
func StartEtcd(ctx context.Context, cfg EtcdConfig) (*EtcdServer, error) {
	bin, err := ensure(ctx, "etcd", "etcd-server", "/usr/bin", "/usr/local/opt/etcd*/bin", "/opt/homebrew/opt/etcd*/bin")
	if err != nil {
		return nil, err
	}
	dir, err := serviceDir(cfg.Dir, "ringmaster-etcd-")
	if err != nil {
		return nil, err
	}
	s := &EtcdServer{node: serverNode{Dir: dir}, bin: bin}
	if !cfg.Detached {
		if s.reaper, err = newReaper(dir); err != nil {
			return nil, err
		}
	}
	// The ports may have been taken since they were found free: try again.
	for attempt := 1; ; attempt++ {
		ports, err := freePorts(2)
		if err == nil {
			s.node.Port, s.peer = ports[0], ports[1]
			s.URL = fmt.Sprintf("etcd://127.0.0.1:%d", s.node.Port)
			err = errors.Join(os.RemoveAll(s.data()), s.Start(ctx)) // the data names the port of peers
		}
		if err == nil {
			return s, nil
		}
		if attempt == 3 || ctx.Err() != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
}

func (s *EtcdServer) data() string { return filepath.Join(s.node.Dir, "data") }

// Start starts the server again after Kill, on the same ports and with the same
// data, and waits until it answers.
func (s *EtcdServer) Start(ctx context.Context) error {
	logfile := filepath.Join(s.node.Dir, "server.log")
	clients, peers := fmt.Sprintf("http://127.0.0.1:%d", s.node.Port), fmt.Sprintf("http://127.0.0.1:%d", s.peer)
	cmd := exec.Command(filepath.Join(s.bin, "etcd"), "--name", "node", "--data-dir", s.data(),
		"--listen-client-urls", clients, "--advertise-client-urls", clients,
		"--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", "node="+peers,
		"--heartbeat-interval", "50", "--election-timeout", "500", "--logger", "zap")
	cmd.Dir = s.node.Dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "ETCD_UNSUPPORTED_ARCH=" + os.Getenv("ETCD_UNSUPPORTED_ARCH")}
	p, err := start(cmd, logfile, s.reaper)
	if err != nil {
		return err
	}
	s.server, s.node.ServerPID = p, p.pid()
	if err := poll(ctx, p.exited, func() error { return healthy(ctx, clients+"/health") }); err != nil {
		s.Kill()
		return fmt.Errorf("starting etcd: %w\n%s", err, tailFile(logfile))
	}
	return nil
}

// healthy asks whether a server says that it is well.
func healthy(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req) // no proxy stands before a loopback address
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}

// Kill ends the server as a crash would (SIGKILL).
func (s *EtcdServer) Kill() {
	if s.server != nil {
		s.server.signal(syscall.SIGKILL)
		<-s.server.exited
		s.server = nil
	}
}

// Close ends the server and removes its directory.
func (s *EtcdServer) Close() error {
	s.Kill()
	s.reaper.done()
	return os.RemoveAll(s.node.Dir)
}
