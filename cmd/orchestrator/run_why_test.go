package main

import (
	"strings"
	"testing"

	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// Why a task waits is told for every reason that its service's workers give.
func TestReasonsWhyATaskWaitsForAWorker(t *testing.T) {
	of := func(types, state string, outstanding int) rest.Worker {
		return rest.Worker{Service: "shop", TaskTypes: strings.Fields(types), State: state, Outstanding: outstanding, Credit: 2}
	}
	incompatible := rest.Worker{Service: "shop", State: "incompatible", Problem: `worker "w-1" speaks protocol version 4, this side speaks version 1 to 2`}
	for _, c := range []struct {
		workers      []rest.Worker
		fact, advice string
	}{
		{nil, "no worker of service shop is connected", "start a worker"},
		{[]rest.Worker{of("ship", "ready", 0)}, "1 worker is of service shop, but none serves pay", "deploy a worker that has a handler"},
		{[]rest.Worker{of("pay", "draining", 0)}, "those that serve pay drain or are not heard of", "start another worker"},
		{[]rest.Worker{of("pay", "ready", 2)}, "all with as many tasks as they take", "start more workers"},
		{[]rest.Worker{incompatible}, incompatible.Problem, "upgrade whichever is older"},
		{[]rest.Worker{incompatible, of("pay", "ready", 2)}, "all with as many tasks as they take", "start more workers"},
	} {
		facts, advice := serviceFacts("shop", "pay", c.workers)
		if !strings.Contains(strings.Join(facts, "\n"), c.fact) || !strings.Contains(advice, c.advice) {
			t.Errorf("%v: %q, %q, want %q, %q", c.workers, facts, advice, c.fact, c.advice)
		}
	}
}
