package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/examples/bank-transfer/audit"
	"github.com/ringmaster-dev/ringmaster/examples/bank-transfer/ledger"
	"github.com/ringmaster-dev/ringmaster/examples/bank-transfer/transfer"
	"github.com/ringmaster-dev/ringmaster/internal/stage"
)

const (
	opening = 1000 // money of each account
	// stuckAfter is how long no transfer may end before the demo says that it is
	// stuck. The longest wait by intent is the deadline of a transfer.
	stuckAfter = 3 * time.Minute
	readEvery  = 20 * time.Millisecond
)

// town is the customers of the two banks.
type town struct {
	o    options
	kind transfer.Kind
	d    *deployment
	out  *stage.Screen
	all  []wish

	began time.Time

	mu       sync.Mutex
	ordered  int
	ended    int
	done     int
	refused  map[string]int // by reason
	answers  []audit.Answer
	progress chan struct{} // closed, and made anew, when a transfer has ended
	took     []time.Duration
	kills    map[string]int
	down     []string
	settled  int

	plain, locked audit.Reads
}

// wish is a transfer that a customer wants.
type wish struct {
	id       string
	from, to string
	order    transfer.Order
}

func newTown(o options, kind transfer.Kind, d *deployment, out *stage.Screen) *town {
	t := &town{o: o, kind: kind, d: d, out: out, refused: map[string]int{}, kills: map[string]int{}, progress: make(chan struct{})}
	rng := rand.New(rand.NewPCG(o.seed, 2))
	for i := range o.transfers {
		w := wish{id: fmt.Sprintf("%s-%06d", kind, i+1), from: transfer.East, to: transfer.West}
		if rng.IntN(2) == 0 {
			w.from, w.to = w.to, w.from
		}
		w.order = transfer.Order{
			Payer: account(w.from, rng.IntN(o.accounts)), Payee: account(w.to, rng.IntN(o.accounts)),
			Amount: 1 + rng.Int64N(opening/5),
		}
		switch rng.IntN(20) {
		case 0: // nobody has that much
			w.order.Amount = opening*int64(2*o.accounts) + 1
		case 1: // nobody may be paid there
			w.order.Payee = closedAccount(w.to)
		}
		t.all = append(t.all, w)
	}
	return t
}

func account(bank string, i int) string { return fmt.Sprintf("%s-%03d", bank, i+1) }

func closedAccount(bank string) string { return bank + "-closed" }

// money is how much there is.
func (t *town) money() int64 { return opening * int64(len(transfer.Banks)*(t.o.accounts+1)) }

// open opens the accounts, with their money.
func (t *town) open(ctx context.Context) error {
	for _, bank := range transfer.Banks {
		accounts := []ledger.Account{{ID: closedAccount(bank), Opening: opening, Closed: true}}
		for i := range t.o.accounts {
			accounts = append(accounts, ledger.Account{ID: account(bank, i), Opening: opening})
		}
		l := t.d.books[bank]
		if err := errors.Join(l.Create(ctx), l.Fund(ctx, accounts)); err != nil {
			return fmt.Errorf("open the accounts of %s: %w", bank, err)
		}
	}
	return nil
}

// live has all transfers ordered and answered while chaos goes on, and readers
// read.
func (t *town) live(ctx context.Context, c *chaos) error {
	t.began = time.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var aside, killer sync.WaitGroup
	var killed error
	killer.Go(func() {
		if killed = c.run(ctx); killed != nil {
			cancel(killed)
		}
	})
	aside.Go(func() { t.out.Follow(ctx, t.line) })
	aside.Go(func() { t.watch(ctx) })
	aside.Go(func() {
		if err := t.operate(ctx); err != nil {
			cancel(fmt.Errorf("operator: %w", err))
		}
	})
	aside.Go(func() {
		if err := t.guard(ctx); err != nil {
			cancel(err)
		}
	})
	err := t.orderAll(ctx)
	killer.Wait()
	cause := context.Cause(ctx)
	cancel(nil)
	aside.Wait()
	if err != nil && cause != nil {
		return cause
	}
	return errors.Join(err, killed)
}

// orderAll has every wish ordered, so many side by side.
func (t *town) orderAll(ctx context.Context) error {
	queue := make(chan wish, len(t.all))
	for _, w := range t.all {
		queue <- w
	}
	close(queue)
	errs := make(chan error, t.o.clients)
	for range t.o.clients {
		go func() {
			for w := range queue {
				if err := t.order(ctx, w); err != nil {
					errs <- fmt.Errorf("transfer %s: %w", w.id, err)
					return
				}
			}
			errs <- nil
		}()
	}
	var first error
	for range t.o.clients {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

// patience is how often a customer orders a transfer that is aborted because the
// banks are busy. Each time is a run of its own.
const patience = 200

// order makes one transfer.
func (t *town) order(ctx context.Context, w wish) error {
	begin := time.Now()
	for try := 1; ; try++ {
		id := w.id
		if try > 1 {
			id = fmt.Sprintf("%s-again-%d", w.id, try)
		}
		a, err := t.ask(ctx, w, id)
		if err != nil {
			return err
		}
		again := busy(a) && try < patience
		t.count(a, time.Since(begin), again)
		if !again {
			return nil
		}
		if err := sleep(ctx, rand.N(min(time.Duration(try)*100*time.Millisecond, time.Second))); err != nil {
			return err
		}
	}
}

// ask orders a transfer under an id, which makes it safe to ask again when the
// answer does not come, and returns what the customer is told.
func (t *town) ask(ctx context.Context, w wish, id string) (audit.Answer, error) {
	a := audit.Answer{ID: id, From: w.from, To: w.to, Order: w.order}
	run, err := client.Start(ctx, t.d.client, transfer.Of(t.kind, w.from, w.to), w.order, client.ID(id))
	if err != nil {
		return a, err
	}
	t.mu.Lock()
	t.ordered++
	t.mu.Unlock()
	result, err := run.Wait(ctx)
	if err != nil && !errors.Is(err, client.ErrNotSucceeded) { // an aborted transfer has ended too
		return a, err
	}
	a.Status = result.Run.Status
	a.Reason, _, _ = strings.Cut(result.Run.Error, ":") // its code
	return a, nil
}

// busy tells whether a transfer was aborted for no fault of its own.
func busy(a audit.Answer) bool {
	switch a.Reason {
	case "", transfer.CodeNoCover, transfer.CodeClosed, transfer.CodeUnknown:
		return false
	}
	return true
}

func (t *town) count(a audit.Answer, took time.Duration, again bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answers = append(t.answers, a)
	if !client.Succeeded(a.Status) {
		t.refused[a.Reason]++
	}
	if again {
		return
	}
	t.ended++
	t.took = append(t.took, took)
	if client.Succeeded(a.Status) {
		t.done++
	}
	close(t.progress)
	t.progress = make(chan struct{})
}

// await waits until so many transfers have ended.
func (t *town) await(ctx context.Context, n int) error {
	for {
		t.mu.Lock()
		ended, progress := t.ended, t.progress
		t.mu.Unlock()
		if ended >= n {
			return nil
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// watch reads the sum of all money while the transfers go on.
func (t *town) watch(ctx context.Context) {
	var banks []*sqlx.DB
	for _, bank := range transfer.Banks {
		banks = append(banks, t.d.books[bank].DB())
	}
	t.plain, t.locked = audit.Watch(ctx, banks, t.money(), readEvery)
}

func (t *town) killed(vs []victim) {
	t.mu.Lock()
	for _, v := range vs {
		t.kills[v.name]++
		t.down = append(t.down, v.name)
	}
	n := t.ordered - len(t.answers)
	t.mu.Unlock()
	t.out.Say("  killed %s (SIGKILL) with %d transfers in flight", names(vs), n)
}

func (t *town) started(vs []victim) {
	t.mu.Lock()
	t.down = nil
	t.mu.Unlock()
	t.out.Say("  started %s again", names(vs))
}

func names(vs []victim) string {
	var all []string
	for _, v := range vs {
		all = append(all, v.name)
	}
	return strings.Join(all, " and ")
}

// line is the live report.
func (t *town) line() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	line := fmt.Sprintf("%5.1fs  %d transfers: %d done, %d refused, %d in flight", time.Since(t.began).Seconds(),
		len(t.all), t.done, t.ended-t.done, t.ordered-len(t.answers))
	if again := len(t.answers) - t.ended; again > 0 {
		line += fmt.Sprintf("; %d ordered again", again)
	}
	if len(t.down) > 0 {
		line += "; down: " + strings.Join(t.down, ", ")
	}
	return line
}

// summary says how it went, beside whether it was right.
func (t *town) summary() string {
	slices.Sort(t.took)
	at := func(part float64) time.Duration {
		return t.took[int(part*float64(len(t.took)-1))].Round(time.Millisecond)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "speed    %.0f transfers/s; median %v, 99 of 100 within %v\n",
		float64(t.ended)/t.took[len(t.took)-1].Seconds(), at(0.5), at(0.99))
	fmt.Fprintf(&b, "refused  %s\n", counts(t.refused))
	fmt.Fprintf(&b, "killed   %s\n", counts(t.kills))
	if t.settled > 0 {
		fmt.Fprintf(&b, "settled  %d stalled runs, from the books\n", t.settled)
	}
	fmt.Fprintf(&b, "readers  plain:      %v\n         with locks: %v", &t.plain, &t.locked)
	return b.String()
}

func counts(m map[string]int) string {
	var all []string
	for k, n := range m {
		all = append(all, fmt.Sprintf("%s %d", k, n))
	}
	if len(all) == 0 {
		return "none"
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
