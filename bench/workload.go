package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log/slog"
	"math/rand/v2"
	"net/http"
	_ "net/http/pprof" // for --pprof-listen
	"os"
	"time"

	"github.com/google/uuid"

	"github.com/ringmaster-dev/ringmaster/broker/rabbit"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/worker"
)

const (
	service = "bench"
	steps   = 3

	noop = "bench.noop"
	fail = "bench.fail" // finally
	slow = "bench.slow" // takes slowMin to slowMax
	undo = ".undo"      // follows the task type that it compensates; does nothing

	// Of participants; they do nothing.
	prepare = "bench.prepare"
	commit  = "bench.commit"
	abort   = "bench.abort"

	slowMin, slowMax = 20 * time.Millisecond, 50 * time.Millisecond
)

// workload is a workflow and how its runs have to end.
type workload struct {
	workflow *definitions.Workflow
	status   string

	// So many batches of starts are in flight, of so many runs; 0 is as the flags say.
	lanes, batch int
}

var (
	succeeding = workload{workflow: saga("bench", noop, noop), status: "succeeded"}
	failing    = workload{workflow: saga("bench-failing", noop, fail), status: "compensated"}
	slowly     = workload{workflow: saga("bench-slow", slow, slow), status: "succeeded"}
	booking    = workload{workflow: ofTwo(definitions.TCC("bench-tcc")), status: "committed"}
	transfer   = workload{workflow: ofTwo(definitions.TwoPhase("bench-twophase")), status: "committed"}

	bankBooking  = workload{workflow: onDatabases(definitions.TCC("bench-tcc-db"), reserves), status: "committed", lanes: 16, batch: 4}
	bankTransfer = workload{workflow: onDatabases(definitions.TwoPhase("bench-twophase-db"), branches), status: "committed", lanes: 16, batch: 4}

	workloads = []workload{succeeding, failing, slowly, booking, transfer, bankBooking, bankTransfer}
)

// saga is one of three steps, each with a compensation; the last may differ.
func saga(name, action, last string) *definitions.Workflow {
	b := definitions.Saga(name).Service(service)
	b.Step("reserve").Action(action).Compensation(action + undo)
	b.Step("charge").Action(action).Compensation(action + undo)
	b.Step("ship").Action(last).Compensation(last + undo)
	return b.MustBuild()
}

// ofTwo adds two participants to a TCC or a two-phase commit.
func ofTwo(b *definitions.TransactionBuilder) *definitions.Workflow {
	b.Service(service)
	for _, name := range []string{"debit", "credit"} {
		b.Participant(name).Prepare(prepare).Commit(commit).Abort(abort)
	}
	return b.MustBuild()
}

func (w workload) name() string { return w.workflow.Name() }

// output is what every handler answers.
var output = []byte(`{"ok":true}`)

// input is that of every run: an order, as one might be.
var input = json.RawMessage(`{"order":"o-1000042","customer":"c-20017","currency":"EUR","total":12950,` +
	`"items":[{"sku":"chair","n":2},{"sku":"table","n":1}]}`)

// payloadBytes is what a succeeded run was given and gave: its input and the
// outputs of its steps.
func payloadBytes() int { return len(input) + steps*len(output) }

// start asks for a run under an id such as clients make.
func (w workload) start() (rest.Start, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return rest.Start{}, err
	}
	return rest.Start{Workflow: w.name(), ID: id.String(), Input: input}, nil
}

func (w workload) starts(n int) ([]rest.Start, error) {
	out := make([]rest.Start, n)
	for i := range out {
		var err error
		if out[i], err = w.start(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// serveProfiles serves profiles at an address, if there is one, until stop is
// called.
func serveProfiles(address string) (stop func()) {
	if address == "" {
		return func() {}
	}
	server := &http.Server{Addr: address, ReadHeaderTimeout: 5 * time.Second} // the default mux has the profiles
	go func() { _ = server.ListenAndServe() }()
	return func() { _ = server.Close() }
}

// workerMain is a worker process.
func workerMain(ctx context.Context, fs *flag.FlagSet, args []string) error {
	url := fs.String("amqp-url", "", "")
	namespace := fs.String("namespace", "", "")
	name := fs.String("name", "", "")
	concurrency := fs.Int("concurrency", 0, "")
	prefetch := fs.Int("prefetch", 0, "")
	pprofListen := fs.String("pprof-listen", "", "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	defer serveProfiles(*pprofListen)()
	broker, err := rabbit.New(rabbit.Config{URLs: []string{*url}})
	if err != nil {
		return err
	}
	w, err := worker.New(worker.Config{
		Broker: broker, Namespace: *namespace, Name: *name, Service: service,
		Concurrency: *concurrency, Prefetch: *prefetch,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	answer := func(context.Context, []byte) ([]byte, error) { return output, nil }
	for _, t := range []string{noop, noop + undo, fail + undo, slow + undo, prepare, commit, abort} {
		w.HandleFunc(t, answer)
	}
	w.HandleFunc(fail, func(context.Context, []byte) ([]byte, error) {
		return nil, worker.Final("out_of_stock", errors.New("this step always fails"))
	})
	w.HandleFunc(slow, func(ctx context.Context, _ []byte) ([]byte, error) {
		select {
		case <-time.After(slowMin + rand.N(slowMax-slowMin)):
			return output, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	return w.Run(ctx)
}
