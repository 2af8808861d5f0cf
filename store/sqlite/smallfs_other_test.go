//go:build !linux

package sqlite_test

import "testing"

func smallFileSystem(*testing.T, string) bool { return false }
