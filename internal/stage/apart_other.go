//go:build !linux

package stage

import "syscall"

// apart is a process group of its own.
func apart() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
