//go:build !linux

package main

import (
	"errors"
	"syscall"
)

var errNoProc = errors.New("CPU time and memory of other processes are read from /proc: the benchmark needs Linux")

func cpuSeconds(int) (float64, error) { return 0, errNoProc }

func familySeconds([]int) (float64, error) { return 0, errNoProc }

func rssMB(int) (float64, error) { return 0, errNoProc }

func cpuModel() string { return "unknown CPU" }

func loadAverage() string { return "unknown" }

func bound() *syscall.SysProcAttr { return nil }
