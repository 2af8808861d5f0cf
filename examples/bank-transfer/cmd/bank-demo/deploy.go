package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/examples/bank-transfer/ledger"
	"github.com/ringmaster-dev/ringmaster/examples/bank-transfer/transfer"
	"github.com/ringmaster-dev/ringmaster/internal/stage"
)

// drainGrace is how long a process may take to end in the regular way.
const drainGrace = 45 * time.Second

// deployment is what runs the transfers of one kind: an orchestrator and a worker
// for each bank, on new databases.
type deployment struct {
	servers *servers
	client  *client.Client
	books   map[string]*ledger.Ledger // of each bank

	orchestrator *stage.Process
	banks        map[string]*stage.Process
}

// deploy makes the databases; nothing runs yet.
func deploy(ctx context.Context, o options, s *servers, kind transfer.Kind) (*deployment, error) {
	d := &deployment{servers: s, books: map[string]*ledger.Ledger{}, banks: map[string]*stage.Process{}}
	dir := filepath.Join(o.dir, string(kind))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	listen, err := stage.FreeAddress()
	if err != nil {
		return nil, err
	}
	api := "http://" + listen
	if d.client, err = client.New(client.Config{URL: api, RetryFor: 2 * time.Minute}); err != nil {
		return nil, err
	}
	env := []string{
		"RINGMASTER_AMQP_URL=" + s.rabbit.URL,
		"RINGMASTER_NAMESPACE=bank-" + string(kind), // apart from the other kinds
	}
	process := func(name, program string, args ...string) *stage.Process {
		return &stage.Process{Name: name, Path: filepath.Join(o.bin, program), Args: args, Env: env, Log: filepath.Join(dir, name+".log")}
	}
	d.orchestrator = process("orchestrator", "orchestrator", "serve", "--listen", listen, "--db", filepath.Join(dir, "orchestrator.db"))
	for _, bank := range transfer.Banks {
		address, err := s.createDatabase(ctx, bank, "bank_"+string(kind))
		if err == nil {
			d.books[bank], err = ledger.Open(address)
		}
		if err != nil {
			d.close()
			return nil, err
		}
		d.banks[bank] = process("bank-"+bank, "bank", "--bank", bank, "--database-url", address)
	}
	return d, nil
}

func (d *deployment) processes() []*stage.Process {
	return []*stage.Process{d.banks[transfer.East], d.banks[transfer.West], d.orchestrator}
}

// start starts all processes and waits until the banks are at work.
func (d *deployment) start(ctx context.Context) error {
	for _, p := range d.processes() {
		if err := p.Start(); err != nil {
			return err
		}
	}
	for {
		workers, err := d.client.Workers(ctx)
		if err == nil && len(workers) == len(transfer.Banks) {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("waiting for the banks: %w", context.Cause(ctx)), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// stop ends the banks, and then the orchestrator, in the regular way.
func (d *deployment) stop() error {
	var errs []error
	for _, p := range d.processes() {
		errs = append(errs, p.Stop(drainGrace))
	}
	return errors.Join(errs...)
}

// close leaves nothing behind, whatever happened.
func (d *deployment) close() {
	for _, p := range d.processes() {
		if p != nil && p.Started() {
			_ = p.Kill() // an error says that it has ended
		}
	}
	for _, l := range d.books {
		_ = l.Close()
	}
}
