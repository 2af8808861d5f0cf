//go:build linux || darwin

package main

import "syscall"

// diskFree returns the free bytes of the file system of a folder, and their
// share of it.
func diskFree(dir string) (free uint64, share float64, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, 0, err
	}
	if s.Blocks == 0 {
		return 0, 1, nil
	}
	return s.Bavail * uint64(s.Bsize), float64(s.Bavail) / float64(s.Blocks), nil
}

// fileLimit is how many files this process may have open; the Go runtime has
// raised the soft limit to the hard one already.
func fileLimit() (uint64, error) {
	var r syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r)
	return r.Cur, err
}
