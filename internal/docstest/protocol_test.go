package docstest

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker/rabbit"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
)

// The worker on the protocol's page is the one in the repository, and performs
// tasks, also of an orchestrator that was started again meanwhile.
func TestWholeWorkerOfTheProtocolsPage(t *testing.T) {
	const file = "examples/raw-worker/main.go"
	program := read(t, file)
	if !slices.ContainsFunc(fences(read(t, "docs/protocol.md")), func(f fence) bool { return f.text == program }) {
		t.Errorf("the worker in docs/protocol.md is not that in %s", file)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	address, namespace := testenv.RabbitMQ(t).URL, fmt.Sprintf("raw%d", time.Now().UnixNano())
	binary := filepath.Join(t.TempDir(), "raw-worker")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./examples/raw-worker")
	build.Dir = root
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var printed strings.Builder
	command := exec.CommandContext(ctx, binary, "-amqp", address, "-namespace", namespace)
	command.Stdout, command.Stderr = &printed, &printed
	check(t, command.Start())
	defer func() {
		_ = command.Process.Kill()
		_ = command.Wait()
		if t.Failed() {
			t.Log(printed.String())
		}
	}()
	saga := definitions.Saga("greeting").Service("raw").Output("steps.greet.output")
	saga.Step("greet").Action("greet").Pivot()
	db := filepath.Join(t.TempDir(), "test.db")
	for life := range 2 {
		greet(ctx, t, db, address, namespace, saga.MustBuild().JSON(), life)
	}
}

// greet starts an orchestrator, has it run two runs, and stops it.
func greet(ctx context.Context, t *testing.T, db, address, namespace string, workflow []byte, life int) {
	t.Helper()
	b, err := rabbit.New(rabbit.Config{URLs: []string{address}})
	check(t, err)
	store, err := sqlite.Open(ctx, sqlite.Config{Path: db})
	check(t, err)
	e, err := engine.New(engine.Config{Store: store, Broker: b, Namespace: namespace, RecoveryGrace: -1})
	check(t, err)
	check(t, e.Start(ctx))
	_, err = e.RegisterWorkflow(ctx, workflow)
	check(t, err)
	for input, want := range map[string]string{`{"name":"Ann"}`: `succeeded "hello Ann"`, `{}`: "compensated "} {
		started, err := e.StartRun(ctx, rest.Start{Workflow: "greeting", Input: []byte(input)})
		check(t, err)
		_, err = e.Wait(ctx, started.ID, time.Minute)
		check(t, err)
		run, err := e.Run(ctx, started.ID)
		check(t, err)
		if got := run.Status + " " + string(run.Output); got != want {
			t.Errorf("life %d, %s: %s (%s), want %s", life, input, got, run.Error, want)
		}
	}
	check(t, e.Stop(ctx))
	check(t, store.Close())
}
