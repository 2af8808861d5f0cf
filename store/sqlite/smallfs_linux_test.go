package sqlite_test

import (
	"os"
	"syscall"
	"testing"
)

// smallFileSystem mounts one of a few megabytes in a folder, for the time of
// the test, where the user may.
func smallFileSystem(t *testing.T, dir string) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return false
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Logf("mounting: %v", err) // a container's root may not
		return false
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	return true
}
