package testenv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Services names what to start. The variables of the environment win: a
// service that they name is not started.
type Services struct {
	RabbitMQ  bool
	Postgres  bool
	MySQL     bool
	Redis     bool
	Etcd      bool
	ZooKeeper bool
	// RabbitCluster is a cluster of three nodes.
	RabbitCluster bool
}

// Session is a set of services for one command.
type Session struct {
	// Env holds the variables, as NAME=value, that tell the command where the
	// services are.
	Env []string

	closers []func() error
}

// running is a service that a session started.
type running struct {
	env   []string
	node  any // what StopSession needs to know
	close func() error
}

// StartSession starts the services that the environment does not name. dir is
// empty for services that end with this process; otherwise they are left
// running, and [StopSession] with the same dir ends them.
func StartSession(ctx context.Context, want Services, dir string) (_ *Session, err error) {
	s := &Session{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	detached := dir != ""
	if detached {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	for _, service := range []struct {
		name  string
		env   string
		want  bool
		start func(ctx context.Context, dir string, detached bool) (running, error)
	}{
		{"rabbitmq", EnvAMQP, want.RabbitMQ, runRabbit},
		{"postgres", EnvPostgres, want.Postgres, runPostgres},
		{"mysql", EnvMySQL, want.MySQL, runMySQL},
		{"redis", EnvRedis, want.Redis, runRedis},
		{"etcd", EnvEtcd, want.Etcd, runEtcd},
		{"zookeeper", EnvZooKeeper, want.ZooKeeper, runZooKeeper},
		{"rabbitmq-cluster", EnvCluster, want.RabbitCluster, runCluster},
	} {
		if !service.want || os.Getenv(service.env) != "" {
			continue
		}
		own := ""
		if detached {
			own = filepath.Join(dir, service.name)
		}
		r, err := service.start(ctx, own, detached)
		if err != nil {
			return nil, err
		}
		s.Env = append(s.Env, r.env...)
		s.closers = append(s.closers, r.close)
		if detached {
			if err := saveState(dir, service.name, r.node); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

func runRabbit(ctx context.Context, dir string, detached bool) (running, error) {
	r, err := StartRabbit(ctx, RabbitConfig{Dir: dir, Detached: detached})
	if err != nil {
		return running{}, err
	}
	return running{[]string{EnvAMQP + "=" + r.URL, EnvManagement + "=" + r.ManagementURL}, r.node, r.Close}, nil
}

// clusterState is what is kept on disk of a cluster between start and stop.
type clusterState struct {
	Dir     string
	Nodes   []*rabbitNode
	Network *network
}

func runCluster(ctx context.Context, dir string, detached bool) (running, error) {
	c, err := StartCluster(ctx, ClusterConfig{Dir: dir, Detached: detached})
	if err != nil {
		return running{}, err
	}
	state := clusterState{Dir: c.dir, Network: c.net}
	for _, r := range c.Nodes {
		state.Nodes = append(state.Nodes, r.node)
	}
	return running{[]string{EnvCluster + "=" + strings.Join(c.URLs(), ",")}, state, c.Close}, nil
}

func runPostgres(ctx context.Context, dir string, detached bool) (running, error) {
	s, err := StartPostgres(ctx, PostgresConfig{Dir: dir, Detached: detached})
	if err != nil {
		return running{}, err
	}
	return running{[]string{EnvPostgres + "=" + s.URL}, s.node, s.Close}, nil
}

func runMySQL(ctx context.Context, dir string, detached bool) (running, error) {
	s, err := StartMySQL(ctx, MySQLConfig{Dir: dir, Detached: detached})
	if err != nil {
		return running{}, err
	}
	return running{[]string{EnvMySQL + "=" + s.URL}, s.node, s.Close}, nil
}

func runRedis(ctx context.Context, dir string, detached bool) (running, error) {
	s, err := StartRedis(ctx, RedisConfig{Dir: dir, Detached: detached})
	if err != nil {
		return running{}, err
	}
	return running{[]string{EnvRedis + "=" + s.URL}, s.node, s.Close}, nil
}

func runEtcd(ctx context.Context, dir string, detached bool) (running, error) {
	s, err := StartEtcd(ctx, EtcdConfig{Dir: dir, Detached: detached})
	if err != nil {
		return running{}, err
	}
	return running{[]string{EnvEtcd + "=" + s.URL}, s.node, s.Close}, nil
}

func runZooKeeper(ctx context.Context, dir string, detached bool) (running, error) {
	s, err := StartZooKeeper(ctx, ZooKeeperConfig{Dir: dir, Detached: detached})
	if err != nil {
		return running{}, err
	}
	return running{[]string{EnvZooKeeper + "=" + s.URL}, s.node, s.Close}, nil
}

// Close ends what was started and removes its directories.
func (s *Session) Close() error {
	var errs []error
	for _, f := range s.closers {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// StopSession ends the services that StartSession left running under dir, and
// removes what they kept there. A process is ended only if it is still the one
// that was started.
func StopSession(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	var errs []error
	var rabbit rabbitNode
	if ok, err := loadState(dir, "rabbitmq", &rabbit); err != nil {
		errs = append(errs, err)
	} else if ok {
		errs = append(errs,
			endRecorded(rabbit.ServerPID, rabbit.Dir, syscall.SIGTERM),
			endRecorded(rabbit.EpmdPID, strconv.Itoa(rabbit.Epmd), syscall.SIGKILL),
			os.RemoveAll(rabbit.Dir), os.Remove(stateFile(dir, "rabbitmq")))
	}
	errs = append(errs, stopCluster(dir))
	for _, service := range []struct {
		name   string
		signal syscall.Signal
	}{{"postgres", syscall.SIGQUIT}, {"mysql", syscall.SIGKILL}, {"redis", syscall.SIGKILL},
		{"etcd", syscall.SIGKILL}, {"zookeeper", syscall.SIGKILL}} {
		var node serverNode
		if ok, err := loadState(dir, service.name, &node); err != nil {
			errs = append(errs, err)
		} else if ok {
			errs = append(errs, endRecorded(node.ServerPID, node.Dir, service.signal),
				os.RemoveAll(node.Dir), os.Remove(stateFile(dir, service.name)))
		}
	}
	return errors.Join(errs...)
}

func stopCluster(dir string) error {
	var c clusterState
	if ok, err := loadState(dir, "rabbitmq-cluster", &c); err != nil || !ok {
		return err
	}
	var errs []error
	for _, n := range c.Nodes {
		errs = append(errs, endRecorded(n.ServerPID, n.Dir, syscall.SIGKILL),
			endRecorded(n.EpmdPID, strconv.Itoa(n.Epmd), syscall.SIGKILL))
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	return errors.Join(append(errs, c.Network.remove(ctx),
		os.RemoveAll(c.Dir), os.Remove(stateFile(dir, "rabbitmq-cluster")))...)
}

func loadState(dir, service string, v any) (bool, error) {
	b, err := os.ReadFile(stateFile(dir, service))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return false, fmt.Errorf("reading %s: %w", stateFile(dir, service), err)
	}
	return true, nil
}

// endRecorded signals the group of a process that still bears its mark, and
// waits for its end.
func endRecorded(pid int, mark string, s syscall.Signal) error {
	if pid <= 1 || !bears(pid, mark) {
		return nil
	}
	if err := syscall.Kill(-pid, s); err != nil {
		return fmt.Errorf("ending process %d: %w", pid, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	return poll(ctx, nil, func() error {
		if exists(pid) {
			return fmt.Errorf("process %d is still running", pid)
		}
		return nil
	})
}

// exists reports whether a process still has something open. One that is on
// its way out has no command line any more, yet may still hold its sockets: it
// is gone when its id is, or when all that is left is a leader that nobody has
// waited for.
func exists(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return syscall.Kill(pid, 0) == nil
	}
	// The name stands in parentheses and may hold anything; the state follows.
	_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	if !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X") {
		return true
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	return err == nil && len(threads) > 1
}

// bears reports whether a process runs whose command line or environment holds
// mark: a process id may have been given to somebody else since. Where there
// is no /proc the id has to do.
func bears(pid int, mark string) bool {
	if _, err := os.Stat("/proc/self/cmdline"); err != nil {
		return syscall.Kill(pid, 0) == nil
	}
	for _, file := range []string{"cmdline", "environ"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err == nil && strings.Contains(string(b), mark) {
			return true
		}
	}
	return false
}
