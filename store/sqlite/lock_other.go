//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package sqlite

import "errors"

type fileLock struct{}

// lockFile refuses systems without flock: without a lock two daemons could
// write one store.
func lockFile(string) (*fileLock, error) {
	return nil, errors.New("locking a SQLite store is not supported on this operating system")
}

func (l *fileLock) unlock() error { return nil }
