//go:build !linux && !darwin

package main

import "errors"

func diskFree(string) (free uint64, share float64, err error) {
	return 0, 0, errors.ErrUnsupported
}

func fileLimit() (uint64, error) { return 0, errors.ErrUnsupported }
