package worker_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker/memory"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// A participant asks what was decided of runs that it has prepared: of one that
// has ended, and of one that the orchestrator has no record of, since its store
// was lost.
func ExampleWorker_Decision() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	dir, _ := os.MkdirTemp("", "decision")
	defer os.RemoveAll(dir)
	store, err := sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(dir, "ringmaster.db")})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	messages, _ := memory.New(memory.Config{})
	e, _ := engine.New(engine.Config{Store: store, Broker: messages})
	if err := e.Start(ctx); err != nil {
		fmt.Println(err)
		return
	}
	defer e.Stop(context.Background())

	b := definitions.TCC("booking").Service("travel")
	b.Participant("flight").Try("flight.try").Confirm("flight.confirm").Cancel("flight.cancel")
	b.Participant("hotel").Try("hotel.try").Confirm("hotel.confirm").Cancel("hotel.cancel")
	booking := b.MustBuild()

	w, _ := worker.New(worker.Config{Broker: messages, Service: "travel"})
	for _, task := range []string{"flight.try", "flight.confirm", "flight.cancel", "hotel.try", "hotel.confirm", "hotel.cancel"} {
		w.HandleFunc(task, func(context.Context, []byte) ([]byte, error) { return nil, nil })
	}
	left := make(chan error)
	go func() { left <- w.Run(ctx) }()

	_, _ = e.RegisterWorkflow(ctx, booking.JSON())
	_, _ = e.StartRun(ctx, rest.Start{Workflow: "booking", ID: "booking-1"})
	_, _ = e.Wait(ctx, "booking-1", time.Minute)

	d, err := w.Decision(ctx, "booking-1")
	fmt.Println(d, err)
	d, err = w.Decision(ctx, "booking-0")
	fmt.Println(d, err)
	_, err = e.StartRun(ctx, rest.Start{Workflow: "booking", ID: "booking-0"})
	fmt.Println("a late start is refused:", err != nil)

	cancel()
	fmt.Println(<-left)
	// Output:
	// committed <nil>
	// aborted <nil>
	// a late start is refused: true
	// <nil>
}
