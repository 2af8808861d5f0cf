// Command quickstart books two trips; the second cannot be paid for and is undone.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker/memory"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
	"github.com/ringmaster-dev/ringmaster/worker"
)

type Trip struct{ Guest, Hotel string }

var Book = definitions.NewTask[Trip, string]("travel", "book")
var Cancel = definitions.NewTask[Trip, string]("travel", "cancel")
var Pay = definitions.NewTask[Trip, string]("travel", "pay")

func main() {
	ctx := context.Background()
	trip := definitions.Saga("trip").Output("steps.book.output + ', ' + steps.pay.output")
	trip.Step("book").Do(Book).Undo(Cancel)
	trip.Step("pay").Do(Pay).Pivot() // from here on there is no way back

	broker := must(memory.New(memory.Config{})) // or broker/rabbit, and workers in other processes
	store := must(sqlite.Open(ctx, sqlite.Config{Path: must(os.MkdirTemp("", "")) + "/runs.db"}))
	orchestrator := must(engine.New(engine.Config{Store: store, Broker: broker}))
	travel := must(worker.New(worker.Config{Broker: broker, Service: "travel"}))
	worker.Handle(travel, Book, func(_ context.Context, t Trip) (string, error) { return "room at the " + t.Hotel, nil })
	worker.Handle(travel, Cancel, func(_ context.Context, t Trip) (string, error) { return "cancelled", nil })
	worker.Handle(travel, Pay, func(_ context.Context, t Trip) (string, error) {
		if t.Guest == "Bob" { // final: without effect, and trying again does not help
			return "", worker.Final("card_declined", errors.New("no money"))
		}
		return "paid", nil
	})
	go func() { must("work", travel.Run(ctx)) }()
	must("start", orchestrator.Start(ctx))
	defer func() { must("stop", orchestrator.Stop(ctx)) }()
	must(orchestrator.RegisterWorkflow(ctx, trip.MustBuild().JSON()))
	for _, guest := range []string{"Ann", "Bob"} {
		start := rest.Start{Workflow: "trip", ID: "trip-" + guest, Input: must(json.Marshal(Trip{guest, "Ritz"}))}
		must(orchestrator.StartRun(ctx, start)) // it is durable now
		run := must(orchestrator.Run(ctx, must(orchestrator.Wait(ctx, start.ID, time.Minute)).ID))
		fmt.Printf("%s: %s %s%s\n", run.ID, run.Status, run.Output, run.Error)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
