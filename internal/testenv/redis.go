package testenv

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// RedisServer is a Redis server that was started here.
type RedisServer struct {
	// URL is its address, redis://host:port/0.
	URL string

	node   serverNode
	bin    string
	reaper *reaper
	server *process
}

// RedisConfig says how to start a server. The zero value works.
type RedisConfig struct {
	// Dir is where the server keeps everything. Empty is a new temporary
	// directory, which Close removes.
	Dir string
	// Detached leaves the server running when this process ends.
	Detached bool
}

// StartRedis starts a server of its own that writes every command to disk
// before it answers (appendfsync always), and waits until it answers.
func StartRedis(ctx context.Context, cfg RedisConfig) (*RedisServer, error) {
	bin, err := ensure(ctx, "redis-server", "redis-server", "/usr/bin", "/usr/local/opt/redis*/bin", "/opt/homebrew/opt/redis*/bin")
	if err != nil {
		return nil, err
	}
	dir, err := serviceDir(cfg.Dir, "ringmaster-redis-")
	if err != nil {
		return nil, err
	}
	s := &RedisServer{node: serverNode{Dir: dir}, bin: bin}
	if !cfg.Detached {
		if s.reaper, err = newReaper(dir); err != nil {
			return nil, err
		}
	}
	// The port may have been taken since it was found free: try again.
	for attempt := 1; ; attempt++ {
		ports, err := freePorts(1)
		if err == nil {
			s.node.Port = ports[0]
			s.URL = fmt.Sprintf("redis://127.0.0.1:%d/0", s.node.Port)
			err = s.Start(ctx)
		}
		if err == nil {
			return s, nil
		}
		if attempt == 3 || ctx.Err() != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
}

// Start starts the server again after Kill, on the same port and with the same
// data, and waits until it answers.
func (s *RedisServer) Start(ctx context.Context) error {
	logfile := filepath.Join(s.node.Dir, "server.log")
	cmd := exec.Command(filepath.Join(s.bin, "redis-server"), "--port", strconv.Itoa(s.node.Port), "--bind", "127.0.0.1",
		"--dir", s.node.Dir, "--save", "", "--appendonly", "yes", "--appendfsync", "always", "--daemonize", "no",
		// The command line names the directory, by which the process is known again.
		"--set-proc-title", "no")
	cmd.Dir = s.node.Dir
	p, err := start(cmd, logfile, s.reaper)
	if err != nil {
		return err
	}
	s.server, s.node.ServerPID = p, p.pid()
	if err := poll(ctx, p.exited, func() error { return redisPing(s.node.Port) }); err != nil {
		s.Kill()
		return fmt.Errorf("starting Redis: %w\n%s", err, tailFile(logfile))
	}
	return nil
}

// redisPing asks whether the server answers, which it does once its data is
// loaded.
func redisPing(port int) error {
	c, err := net.DialTimeout("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err
	}
	if line = strings.TrimSpace(line); line != "+PONG" {
		return fmt.Errorf("unexpected answer %q", line)
	}
	return nil
}

// Pause stops the server (SIGSTOP): it answers nobody, and connections stay.
func (s *RedisServer) Pause() { s.server.signal(syscall.SIGSTOP) }

// Resume has a paused server go on.
func (s *RedisServer) Resume() { s.server.signal(syscall.SIGCONT) }

// Kill ends the server as a crash would (SIGKILL).
func (s *RedisServer) Kill() {
	if s.server != nil {
		s.server.signal(syscall.SIGKILL)
		<-s.server.exited
		s.server = nil
	}
}

// Close ends the server and removes its directory.
func (s *RedisServer) Close() error {
	s.Kill()
	s.reaper.done()
	return os.RemoveAll(s.node.Dir)
}
