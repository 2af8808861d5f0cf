package stage

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

// Build builds programs, given by their import paths, into dir.
func Build(ctx context.Context, dir string, programs ...string) error {
	args := append([]string{"build", "-o", dir + string(filepath.Separator)}, programs...)
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// Process is a program that can be killed and started again. Its methods are for
// one goroutine at a time.
type Process struct {
	Name string
	Path string
	Args []string
	Env  []string // besides this process's own
	Log  string   // file; every start appends
	// Apart keeps signals of the terminal away from the program. Where the system
	// can do that, it ends with this process.
	Apart bool

	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended; then err says how
	err    error
}

// Start starts the program.
func (p *Process) Start() error {
	logFile, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = logFile.Close() }() // the process has its own
	p.cmd = exec.Command(p.Path, p.Args...)
	p.cmd.Env = append(os.Environ(), p.Env...)
	p.cmd.Stdout, p.cmd.Stderr = logFile, logFile
	if p.Apart {
		p.cmd.SysProcAttr = apart()
	}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	exited := make(chan struct{})
	p.exited = exited
	go func() {
		p.err = p.cmd.Wait()
		close(exited)
	}()
	return nil
}

// Started tells whether it has ever been started.
func (p *Process) Started() bool { return p.exited != nil }

// Exited is closed when the process that was started last has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Err says how the process ended, once it has; nil is with status 0.
func (p *Process) Err() error { return p.err }

// Signal sends a signal; that it has ended is an error.
func (p *Process) Signal(s os.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("signal %v to %s: %w", s, p.Name, err)
	}
	return nil
}

// PID is the process that was started last.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Kill ends the process as a crash would, and waits until it has ended.
func (p *Process) Kill() error {
	select {
	case <-p.exited:
		return fmt.Errorf("%s ended by itself (%w); see %s", p.Name, p.err, p.Log)
	default:
	}
	if err := p.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill %s: %w", p.Name, err)
	}
	<-p.exited
	return nil
}

// Stop asks the process to end, and kills it if it has not after the grace.
func (p *Process) Stop(grace time.Duration) error {
	if p.exited == nil { // never started
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // an error says that it has ended
	select {
	case <-p.exited:
		if p.err != nil {
			return fmt.Errorf("%s: %w; see %s", p.Name, p.err, p.Log)
		}
		return nil
	case <-time.After(grace):
		return errors.Join(fmt.Errorf("%s did not end within %v of SIGTERM; see %s", p.Name, grace, p.Log), p.Kill())
	}
}

// FreeAddress is a loopback address that nobody listens at now.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
