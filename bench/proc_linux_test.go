package main

import "testing"

func TestOwnCPUAndMemoryCanBeRead(t *testing.T) {
	for {
		cpu, err := cpuSeconds(selfPID)
		if err != nil {
			t.Fatal(err)
		}
		if cpu > 0 { // which grows by 10 ms
			break
		}
	}
	if mb, err := rssMB(selfPID); err != nil || mb < 1 {
		t.Errorf("resident memory: %v MB, %v", mb, err)
	}
}
