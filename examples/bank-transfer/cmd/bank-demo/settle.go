package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/examples/bank-transfer/audit"
	"github.com/ringmaster-dev/ringmaster/examples/bank-transfer/transfer"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// operate does what a person does who watches for stalled runs, until ctx ends.
//
// A saga may stall at its pivot, when a killed orchestrator may or may not have
// sent a task, and a later attempt was refused: that says nothing of the first,
// and nothing is compensated past a pivot. The bank's books tell.
func (t *town) operate(ctx context.Context) error {
	for sleep(ctx, 500*time.Millisecond) == nil {
		for _, wf := range transfer.All(t.kind) {
			for run, err := range t.d.client.All(ctx, client.Filter{Workflow: wf.Name(), Statuses: []string{"stalled"}}) {
				if err == nil {
					err = t.settle(ctx, run)
				}
				switch {
				case ctx.Err() != nil:
					return nil
				case errors.Is(err, client.ErrUnavailable), errors.Is(err, client.ErrConflict), errors.Is(err, errLookAgain):
					// It was killed just now, or the run has moved on.
				case err != nil:
					return err
				}
			}
		}
	}
	return nil
}

// errLookAgain says that a bank's database is down.
var errLookAgain = errors.New("the books cannot be read now")

// settle looks into the books and says what happened.
func (t *town) settle(ctx context.Context, run rest.Run) error {
	if run.FailedStep != "add" {
		return fmt.Errorf("run %s stalled by %q (%s), which nobody here can settle", run.ID, run.FailedStep, run.Error)
	}
	bank := transfer.West
	if strings.HasSuffix(run.Workflow, transfer.East) {
		bank = transfer.East
	}
	db := t.d.books[bank].DB()
	var entries int
	if err := db.GetContext(ctx, &entries, db.Rebind(`SELECT count(*) FROM entries WHERE transfer = ?`), run.ID); err != nil {
		return fmt.Errorf("%w: %w", errLookAgain, err)
	}
	order := rest.Settle{Step: run.FailedStep, By: "bank-demo", Applied: entries > 0, Reason: "the books of " + bank + " do not have it"}
	if order.Applied {
		order.Reason, order.Output = "the books of "+bank+" have it", []byte(`{}`)
	}
	if _, err := t.d.client.Resolve(ctx, run.ID, order); err != nil {
		return err
	}
	t.mu.Lock()
	t.settled++
	t.mu.Unlock()
	t.out.Say("  operator: %s stalled (%s); resolved: %s", run.ID, run.Error, order.Reason)
	return nil
}

// guard fails when no transfer ends for long, and says which runs are stuck.
func (t *town) guard(ctx context.Context) error {
	ticks := time.NewTicker(stuckAfter)
	defer ticks.Stop()
	for before := -1; ; {
		t.mu.Lock()
		ended := len(t.answers)
		t.mu.Unlock()
		if ended == before {
			return fmt.Errorf("no transfer has ended for %v%s", stuckAfter, t.stuck(ctx))
		}
		before = ended
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (t *town) stuck(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var b strings.Builder
	n := 0
	for _, wf := range transfer.All(t.kind) {
		for run, err := range t.d.client.All(ctx, client.Filter{Workflow: wf.Name(), Statuses: []string{"running", "compensating", "stalled"}}) {
			if err != nil || n == 5 {
				break
			}
			n++
			d, err := t.d.client.Get(ctx, run.ID)
			fmt.Fprintf(&b, "\n  %s is %s, %s: %+v (%v)", run.ID, run.Status, d.Decision, d.Steps, err)
		}
	}
	return b.String()
}

// collect asks the orchestrator how every run has ended.
func (t *town) collect(ctx context.Context) error {
	for i := range t.answers {
		a := &t.answers[i]
		run, err := t.d.client.Get(ctx, a.ID)
		if err != nil && !errors.Is(err, client.ErrNotFound) {
			return err
		}
		a.Final, a.Heuristic, a.Waived = run.Status, run.Heuristic, run.Waived
	}
	return nil
}

// audit prints what was found in the books.
func (t *town) audit(ctx context.Context) (violations int, err error) {
	books := map[string]audit.Books{}
	for _, bank := range transfer.Banks {
		if books[bank], err = audit.Read(ctx, t.d.books[bank].DB()); err != nil {
			return 0, fmt.Errorf("the books of %s: %w", bank, err)
		}
	}
	report := audit.Check(books, t.answers)
	t.out.Say("%s", t.summary())
	_, err = report.WriteTo(t.out)
	return report.Violations(), err
}
