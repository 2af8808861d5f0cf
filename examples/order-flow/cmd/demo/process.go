package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// module is the path that the programs are built from.
const module = "github.com/ringmaster-dev/ringmaster"

// build builds the demo's programs into dir.
func build(ctx context.Context, dir string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator),
		module+"/cmd/orchestrator",
		module+"/cmd/worker",
		module+"/examples/order-flow/cmd/orders",
		module+"/examples/order-flow/cmd/payments",
		module+"/examples/order-flow/cmd/deliveries",
		module+"/examples/order-flow/cmd/deliveries-http")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// process is a program that can be killed and started again.
type process struct {
	name string
	path string
	args []string
	env  []string // besides this process's own
	log  string   // file; every start appends

	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended; then err says how
	err    error
}

func (p *process) start() error {
	logFile, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = logFile.Close() }() // the process has its own
	p.cmd = exec.Command(p.path, p.args...)
	p.cmd.Env = append(os.Environ(), p.env...)
	p.cmd.Stdout, p.cmd.Stderr = logFile, logFile
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	exited := make(chan struct{})
	p.exited = exited
	go func() {
		p.err = p.cmd.Wait()
		close(exited)
	}()
	return nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// kill ends the process as a crash would, and waits until it has ended.
func (p *process) kill() error {
	select {
	case <-p.exited:
		return fmt.Errorf("%s ended by itself (%w); see %s", p.name, p.err, p.log)
	default:
	}
	if err := p.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill %s: %w", p.name, err)
	}
	<-p.exited
	return nil
}

// stop asks the process to end, and kills it if it has not after the grace.
func (p *process) stop(grace time.Duration) error {
	if p.exited == nil { // never started
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // an error says that it has ended
	select {
	case <-p.exited:
		if p.err != nil {
			return fmt.Errorf("%s: %w; see %s", p.name, p.err, p.log)
		}
		return nil
	case <-time.After(grace):
		return errors.Join(fmt.Errorf("%s did not end within %v of SIGTERM; see %s", p.name, grace, p.log), p.kill())
	}
}

// freeAddress is a loopback address that nobody listens at now.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
