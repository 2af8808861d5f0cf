//go:build !linux

package main

func mount(string, uint64, bool) error { return errNoDisk }

func unmount(string) error { return nil }

func usage(string) (uint64, error) { return 0, errNoDisk }
