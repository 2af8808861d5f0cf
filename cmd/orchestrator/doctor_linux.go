package main

import "syscall"

// staUnsync is the kernel's flag for a clock that nobody keeps in time.
const staUnsync = 0x0040

// clockSynchronized tells what the kernel says about its clock.
func clockSynchronized() (synchronized, known bool) {
	var t syscall.Timex
	if _, err := syscall.Adjtimex(&t); err != nil {
		return false, false
	}
	return t.Status&staUnsync == 0, true
}
