package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// disk is a file system of its own, in memory, that can be full.
type disk struct {
	dir  string
	size uint64 // bytes while it is not full
	made bool
}

// errNoDisk says why there is no disk of its own.
var errNoDisk = errors.New("mounting a file system takes root")

// newDisk mounts a file system at dir, which it makes. Where that is not allowed,
// dir is an ordinary directory that cannot be filled.
func newDisk(dir string, size uint64) (*disk, error) {
	d := &disk{dir: dir, size: size}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 {
		d.made = mount(dir, size, false) == nil
	}
	return d, os.Chmod(dir, 0o755)
}

// fill makes the disk full: it shrinks to what is on it.
func (d *disk) fill() error {
	if !d.made {
		return errNoDisk
	}
	// What is on it may grow between the look and the deed.
	var err error
	for range 100 {
		var used uint64
		if used, err = usage(d.dir); err != nil {
			return err
		}
		if err = mount(d.dir, max(used, 4096), true); err == nil {
			return nil
		}
	}
	return fmt.Errorf("shrink %s: %w", d.dir, err)
}

// clear makes room again.
func (d *disk) clear() error { return mount(d.dir, d.size, true) }

// close takes the file system away, with all that is on it.
func (d *disk) close(keep bool) error {
	if d == nil || !d.made {
		return nil
	}
	d.made = false
	if keep { // on an ordinary disk, to be looked at
		if err := os.CopyFS(d.dir+"-kept", os.DirFS(d.dir)); err != nil {
			return errors.Join(err, unmount(d.dir))
		}
	}
	return unmount(d.dir)
}

// under is a directory on the disk.
func (d *disk) under(name string) string { return filepath.Join(d.dir, name) }
