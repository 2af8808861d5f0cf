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
	RabbitMQ bool
	Postgres bool
}

// Session is a set of services for one command.
type Session struct {
	// Env holds the variables, as NAME=value, that tell the command where the
	// services are.
	Env []string

	rabbit   *Rabbit
	postgres *PostgresServer
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
	in := func(name string) string {
		if !detached {
			return ""
		}
		return filepath.Join(dir, name)
	}
	if detached {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if want.RabbitMQ && os.Getenv(EnvAMQP) == "" {
		if s.rabbit, err = StartRabbit(ctx, RabbitConfig{Dir: in("rabbitmq"), Detached: detached}); err != nil {
			return nil, err
		}
		s.Env = append(s.Env, EnvAMQP+"="+s.rabbit.URL, EnvManagement+"="+s.rabbit.ManagementURL)
		if detached {
			if err = saveState(dir, "rabbitmq", s.rabbit.node); err != nil {
				return nil, err
			}
		}
	}
	if want.Postgres && os.Getenv(EnvPostgres) == "" {
		if s.postgres, err = StartPostgres(ctx, PostgresConfig{Dir: in("postgres"), Detached: detached}); err != nil {
			return nil, err
		}
		s.Env = append(s.Env, EnvPostgres+"="+s.postgres.URL)
		if detached {
			if err = saveState(dir, "postgres", s.postgres.node); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// Close ends what was started and removes its directories.
func (s *Session) Close() error {
	var errs []error
	if s.rabbit != nil {
		errs = append(errs, s.rabbit.Close())
	}
	if s.postgres != nil {
		errs = append(errs, s.postgres.Close())
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
	var pg pgNode
	if ok, err := loadState(dir, "postgres", &pg); err != nil {
		errs = append(errs, err)
	} else if ok {
		errs = append(errs, endRecorded(pg.ServerPID, pg.Dir, syscall.SIGQUIT),
			os.RemoveAll(pg.Dir), os.Remove(stateFile(dir, "postgres")))
	}
	return errors.Join(errs...)
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
		if bears(pid, mark) {
			return fmt.Errorf("process %d is still running", pid)
		}
		return nil
	})
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
