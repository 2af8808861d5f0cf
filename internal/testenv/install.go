package testenv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// freePorts asks the kernel for n ports of the loopback interface that are
// free now. All are held until the last is known, so that they differ.
func freePorts(n int) ([]int, error) {
	ports := make([]int, 0, n)
	for range n {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("looking for a free port: %w", err)
		}
		defer func() { _ = l.Close() }()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// findProgram returns the first directory of dirs (globs, newest match first)
// that holds the program, or the one on PATH.
func findProgram(name string, dirs ...string) (string, bool) {
	for _, pattern := range dirs {
		matches, _ := filepath.Glob(filepath.Join(pattern, name))
		slices.Sort(matches)
		slices.Reverse(matches)
		for _, m := range matches {
			if st, err := os.Stat(m); err == nil && !st.IsDir() && st.Mode()&0o111 != 0 {
				return filepath.Dir(m), true
			}
		}
	}
	if p, err := exec.LookPath(name); err == nil {
		if p, err = filepath.EvalSymlinks(p); err == nil {
			return filepath.Dir(p), true
		}
	}
	return "", false
}

// locate finds a program, or says how to install it.
func locate(_ context.Context, program, pkg string, dirs ...string) (string, error) {
	if dir, ok := findProgram(program, dirs...); ok {
		return dir, nil
	}
	return "", fmt.Errorf("%s is not installed: install the package %s (Debian and Ubuntu: apt-get install %s)", program, pkg, pkg)
}

// ensure finds a program and installs its Debian package when it is missing.
func ensure(ctx context.Context, program, pkg string, dirs ...string) (string, error) {
	dir, missing := locate(ctx, program, pkg, dirs...)
	if missing == nil || os.Geteuid() != 0 {
		return dir, missing
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return "", missing
	}
	// Test binaries run side by side; apt-get's own locks make the second fail.
	unlock, err := lockInstall()
	if err != nil {
		return "", err
	}
	defer unlock()
	if dir, err := locate(ctx, program, pkg, dirs...); err == nil {
		return dir, nil // another process has installed it meanwhile
	}
	if err := aptInstall(ctx, pkg); err != nil {
		return "", fmt.Errorf("%w; installing it failed: %w", missing, err)
	}
	return locate(ctx, program, pkg, dirs...)
}

// lockInstall has one process at a time install packages.
func lockInstall() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(os.TempDir(), "ringmaster-install.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the installation of packages: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("locking the installation of packages: %w", err), f.Close())
	}
	return func() { _ = f.Close() }, nil // closing unlocks
}

// aptInstall installs a package without letting it start a system service:
// that service would not be ours to stop again.
func aptInstall(ctx context.Context, pkg string) error {
	const policy = "/usr/sbin/policy-rc.d"
	if _, err := os.Lstat(policy); errors.Is(err, os.ErrNotExist) {
		if err := os.WriteFile(policy, []byte("#!/bin/sh\nexit 101\n"), 0o755); err == nil {
			defer func() { _ = os.Remove(policy) }()
		}
	}
	run := func(args ...string) error {
		cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-q", "-o", "DPkg::Lock::Timeout=300"}, args...)...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", args[0], err, tail(string(out), 20))
		}
		return nil
	}
	install := []string{"install", "-y", "--no-install-recommends", pkg}
	if run(install...) == nil {
		return nil
	}
	// The lists may be old or missing.
	if err := run("update"); err != nil {
		return err
	}
	return run(install...)
}

// tail returns the last n lines of s.
func tail(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// tailFile returns the last lines of a log for an error message.
func tailFile(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return tail(string(b), 30)
}
