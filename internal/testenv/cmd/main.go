// Command cmd runs commands against real services.
//
//	go run ./internal/testenv/cmd exec [--services rabbitmq,postgres] -- COMMAND...
//	go run ./internal/testenv/cmd start --dir DIR [--services rabbitmq,postgres]
//	go run ./internal/testenv/cmd stop --dir DIR
//
// exec starts the services, runs COMMAND with RINGMASTER_TEST_AMQP_URL,
// RINGMASTER_TEST_MANAGEMENT_URL and RINGMASTER_TEST_POSTGRES_URL set, ends
// the services and exits as COMMAND did. start leaves them running and prints
// the variables as shell exports. A service whose variable is set already is
// used as it is. The services mysql (MariaDB; RINGMASTER_TEST_MYSQL_URL) and
// redis (RINGMASTER_TEST_REDIS_URL) are started where LIST names them, and so
// are etcd (RINGMASTER_TEST_ETCD_URL), zookeeper (RINGMASTER_TEST_ZOOKEEPER_URL)
// and rabbitmq-cluster (three nodes; RINGMASTER_TEST_AMQP_CLUSTER, their
// addresses with commas).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
)

const usage = "usage: exec [--services LIST] -- COMMAND... | start --dir DIR [--services LIST] | stop --dir DIR"

func main() {
	code, err := run(os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testenv:", err)
	}
	os.Exit(code)
}

// run returns the exit status: 0 done, 1 failed, 2 usage, or COMMAND's own.
func run(args []string, stdout io.Writer) (int, error) {
	if len(args) == 0 {
		return 2, errors.New(usage)
	}
	verb := args[0]
	fs := flag.NewFlagSet(verb, flag.ContinueOnError)
	dir := fs.String("dir", "", "directory of the services")
	list := fs.String("services", "rabbitmq,postgres", "services to start")
	if err := fs.Parse(args[1:]); err != nil {
		return 2, errors.New(usage)
	}
	want, err := services(*list)
	if err != nil {
		return 2, err
	}
	switch {
	case verb == "exec" && fs.NArg() > 0 && *dir == "":
		return execute(want, fs.Args())
	case verb == "start" && fs.NArg() == 0 && *dir != "":
		if err := startDetached(want, *dir, stdout); err != nil {
			return 1, err
		}
		return 0, nil
	case verb == "stop" && fs.NArg() == 0 && *dir != "":
		if err := testenv.StopSession(*dir); err != nil {
			return 1, err
		}
		return 0, nil
	}
	return 2, errors.New(usage)
}

func services(list string) (testenv.Services, error) {
	var s testenv.Services
	for name := range strings.SplitSeq(list, ",") {
		switch strings.TrimSpace(name) {
		case "rabbitmq":
			s.RabbitMQ = true
		case "postgres":
			s.Postgres = true
		case "mysql":
			s.MySQL = true
		case "redis":
			s.Redis = true
		case "etcd":
			s.Etcd = true
		case "zookeeper":
			s.ZooKeeper = true
		case "rabbitmq-cluster":
			s.RabbitCluster = true
		case "":
		default:
			return s, fmt.Errorf("unknown service %q: rabbitmq, rabbitmq-cluster, postgres, mysql, redis, etcd and zookeeper are known", name)
		}
	}
	return s, nil
}

func startDetached(want testenv.Services, dir string, stdout io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s, err := testenv.StartSession(ctx, want, dir)
	if err != nil {
		return err
	}
	for _, e := range s.Env {
		name, value, _ := strings.Cut(e, "=")
		if _, err := fmt.Fprintf(stdout, "export %s='%s'\n", name, value); err != nil {
			return err
		}
	}
	return nil
}

// execute runs the command with the services. Signals go to the command; the
// services are ended after it.
func execute(want testenv.Services, args []string) (int, error) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	started := make(chan struct{})
	var s *testenv.Session
	var err error
	go func() {
		defer close(started)
		s, err = testenv.StartSession(ctx, want, "")
	}()
	select {
	case <-started:
	case <-signals:
		cancel()
		<-started
	}
	if err != nil {
		return 1, err
	}
	code, err := runCommand(args, s.Env, signals)
	if cerr := s.Close(); cerr != nil {
		return max(code, 1), errors.Join(err, cerr)
	}
	return code, err
}

func runCommand(args, env []string, signals <-chan os.Signal) (int, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), env...)
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case sig := <-signals:
			_ = cmd.Process.Signal(sig)
		case err := <-done:
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				return max(exit.ExitCode(), 1), nil
			}
			if err != nil {
				return 1, err
			}
			return 0, nil
		}
	}
}
