package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// child is a process that this one has started. It dies with this one.
type child struct {
	name   string
	cmd    *exec.Cmd
	input  io.Closer // its end tells this program's own children to end
	log    string
	exited chan struct{}
	err    error // how it ended; valid once exited is closed
}

// spawn starts a program with its output appended to a log in dir. With
// waitReady it returns once the child has printed the line "ready".
func spawn(ctx context.Context, name, dir, program string, waitReady bool, args ...string) (*child, error) {
	c := &child{name: name, log: filepath.Join(dir, name+".log"), exited: make(chan struct{})}
	logFile, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer logFile.Close() // the child has its own
	c.cmd = exec.Command(program, args...)
	c.cmd.Dir = dir
	c.cmd.SysProcAttr = bound()
	c.cmd.Stdout, c.cmd.Stderr = logFile, logFile
	if c.input, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	var lines io.ReadCloser
	if waitReady {
		c.cmd.Stdout = nil
		if lines, err = c.cmd.StdoutPipe(); err != nil {
			return nil, err
		}
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	ready := make(chan struct{})
	go func() {
		if waitReady {
			for s := bufio.NewScanner(lines); s.Scan(); {
				if s.Text() == readyLine {
					close(ready)
					_, _ = io.Copy(io.Discard, lines)
					break
				}
			}
		}
		c.err = c.cmd.Wait()
		close(c.exited)
	}()
	if !waitReady {
		return c, nil
	}
	select {
	case <-ready:
		return c, nil
	case <-c.exited:
		return nil, c.ended()
	case <-time.After(childTimeout):
		c.kill()
		return nil, fmt.Errorf("%s was not ready after %v; see %s", name, childTimeout, c.log)
	case <-ctx.Done():
		c.kill()
		return nil, context.Cause(ctx)
	}
}

const (
	readyLine    = "ready"
	childTimeout = time.Minute
)

func (c *child) pid() int { return c.cmd.Process.Pid }

// ended describes how a child ended that should not have.
func (c *child) ended() error {
	b, _ := os.ReadFile(c.log)
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	how := c.err
	if how == nil {
		how = errors.New("exit status 0")
	}
	return fmt.Errorf("%s ended by itself: %w; its log ends with\n%s", c.name, how, strings.Join(lines[max(0, len(lines)-15):], "\n"))
}

// alive is an error once the child has ended.
func (c *child) alive() error {
	select {
	case <-c.exited:
		return c.ended()
	default:
		return nil
	}
}

// kill ends the child as a crash would, and waits until it has ended.
func (c *child) kill() {
	_ = c.cmd.Process.Kill() // an error says that it has ended
	<-c.exited
	_ = c.input.Close()
}

// stop has the child end in its own time, up to childTimeout.
func (c *child) stop() error {
	if err := c.alive(); err != nil {
		return err
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.exited:
		_ = c.input.Close()
		if c.err != nil {
			return c.ended()
		}
		return nil
	case <-time.After(childTimeout):
		c.kill()
		return fmt.Errorf("%s did not end within %v of SIGTERM; see %s", c.name, childTimeout, c.log)
	}
}

// childMain runs a part of this program that is a process of its own, until it
// is told to end or its parent is gone.
func childMain(args []string, part func(ctx context.Context, fs *flag.FlagSet, args []string) error) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	err := part(ctx, flag.NewFlagSet("bench child", flag.ContinueOnError), args)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// freeAddress is an address of the loopback interface that nobody listens at
// now.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
