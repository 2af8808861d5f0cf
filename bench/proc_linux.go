package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// ticksPerSecond is the unit of /proc/PID/stat, the same on every platform
// that Go runs on.
const ticksPerSecond = 100

// cpuSeconds is the CPU time that a process has used, of the user and the
// system.
func cpuSeconds(pid int) (float64, error) {
	own, _, err := cpuTimes(pid)
	return own, err
}

// familySeconds is the CPU time that processes have used, and the children of the
// first that have ended.
func familySeconds(pids []int) (sum float64, err error) {
	for i, pid := range pids {
		own, ended, err := cpuTimes(pid)
		switch {
		case i > 0 && err != nil:
			continue // it has ended just now
		case err != nil:
			return 0, err
		case i == 0:
			sum += ended
		}
		sum += own
	}
	return sum, nil
}

// cpuTimes is the CPU time that a process has used itself, and what those of its
// children have that have ended.
func cpuTimes(pid int) (own, children float64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The second field is a name in parentheses that may hold anything.
	_, after, ok := bytes.Cut(b[bytes.LastIndexByte(b, ')'):], []byte(") "))
	fields := strings.Fields(string(after))
	if !ok || len(fields) < 15 {
		return 0, 0, fmt.Errorf("/proc/%d/stat is not as expected", pid)
	}
	var times [4]float64 // user and system, own and of children
	for i := range times {
		ticks, parseErr := strconv.ParseInt(fields[11+i], 10, 64)
		times[i], err = float64(ticks)/ticksPerSecond, errors.Join(err, parseErr)
	}
	return times[0] + times[1], times[2] + times[3], err
}

// rssMB is the resident memory of a process, in MB of 10^6 bytes.
func rssMB(pid int) (float64, error) {
	v, err := procField(fmt.Sprintf("/proc/%d/status", pid), "VmRSS")
	if err != nil {
		return 0, err
	}
	kib, err := strconv.ParseFloat(strings.TrimSuffix(v, " kB"), 64)
	return kib * 1024 / 1e6, err
}

// procField returns the value of the first "name: value" line of a file.
func procField(path, name string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v), nil
		}
	}
	return "", fmt.Errorf("%s has no %s", path, name)
}

func cpuModel() string {
	v, err := procField("/proc/cpuinfo", "model name")
	if err != nil {
		return "unknown CPU"
	}
	return v
}

func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(b), " ")
	return first
}

// bound has a child killed when this process dies, however that happens.
func bound() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
