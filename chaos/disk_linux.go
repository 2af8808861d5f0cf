package main

import (
	"fmt"
	"syscall"
)

func mount(dir string, size uint64, again bool) error {
	var flags uintptr
	if again {
		flags = syscall.MS_REMOUNT
	}
	return syscall.Mount("ringmaster-chaos", dir, "tmpfs", flags, fmt.Sprintf("size=%d", size))
}

// unmount also works while something is open on it.
func unmount(dir string) error { return syscall.Unmount(dir, syscall.MNT_DETACH) }

// usage is how many bytes of the file system at dir are taken.
func usage(dir string) (uint64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return (s.Blocks - s.Bfree) * uint64(s.Bsize), nil
}
