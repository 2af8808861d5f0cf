// Package audit proves from the books of the banks, after all transfers have
// ended, that each took effect at both banks or at neither, as its customer was
// told, and that no money came or went.
//
// It believes no log or metric: it reads the banks' own databases, and compares
// them with the answers that the customers got.
package audit

import (
	"fmt"
	"maps"
	"slices"

	"github.com/ringmaster-dev/ringmaster/examples/bank-transfer/transfer"
)

// Answer is what the customer of a transfer was told.
type Answer struct {
	ID       string // of the run
	From, To string // banks
	Order    transfer.Order

	Status string // that the run ended with, as the customer was told
	Reason string // code of the refusal, if it was refused

	Final     string // the run's status when all was over, by the orchestrator
	Heuristic bool   // a bank has decided by itself
	Waived    bool   // an undoing was skipped
}

// Books are a bank's own.
type Books struct {
	Accounts []Account
	Entries  []Entry
	InDoubt  []string // branches that are prepared, by name
}

// Account is an account in the books.
type Account struct {
	ID        string `db:"id"`
	Opening   int64  `db:"opening"`
	Balance   int64  `db:"balance"`
	Held      int64  `db:"held"`
	Announced int64  `db:"announced"`
}

// Entry is a change of an account.
type Entry struct {
	Transfer string `db:"transfer"`
	Account  string `db:"account"`
	Amount   int64  `db:"amount"`
}

// Check compares the books of the banks, by name, with the answers. Its report
// is complete also where it found violations.
func Check(books map[string]Books, answers []Answer) *Report {
	a := &auditor{books: books, moves: map[string]map[string][]Entry{}}
	for bank, b := range books {
		a.moves[bank] = map[string][]Entry{}
		for _, e := range b.Entries {
			a.moves[bank][e.Transfer] = append(a.moves[bank][e.Transfer], e)
		}
	}
	a.money()
	a.accounts()
	a.held()
	a.inDoubt()
	a.answers(answers)
	a.strangers(answers)
	a.orchestrator(answers)
	return &a.report
}

type auditor struct {
	books  map[string]Books
	moves  map[string]map[string][]Entry // by bank and transfer
	report Report
}

func (a *auditor) banks() []string { return slices.Sorted(maps.Keys(a.books)) }

func (a *auditor) money() {
	c := a.report.begin("sum of all money")
	var before, after int64
	for _, b := range a.books {
		for _, acc := range b.Accounts {
			before += acc.Opening
			after += acc.Balance
		}
	}
	c.Found = fmt.Sprintf("%d at the start, %d at the end", before, after)
	if before != after {
		c.violate("it began with %d and ended with %d: %+d", before, after, after-before)
	}
}

func (a *auditor) accounts() {
	c := a.report.begin("accounts")
	n := 0
	for _, bank := range a.banks() {
		moved := map[string]int64{}
		for _, e := range a.books[bank].Entries {
			moved[e.Account] += e.Amount
		}
		for _, acc := range a.books[bank].Accounts {
			n++
			if acc.Balance < 0 {
				c.violate("%s of %s is negative: %d", acc.ID, bank, acc.Balance)
			}
			if acc.Opening+moved[acc.ID] != acc.Balance {
				c.violate("%s of %s began with %d, its entries come to %d, its balance is %d",
					acc.ID, bank, acc.Opening, moved[acc.ID], acc.Balance)
			}
			delete(moved, acc.ID)
		}
		for id := range moved {
			c.violate("%s has entries of %s, which is no account", bank, id)
		}
	}
	c.Found = fmt.Sprintf("%d, none negative, each equal to its entries", n)
}

func (a *auditor) held() {
	c := a.report.begin("amounts still held or announced")
	c.Found = "none"
	for _, bank := range a.banks() {
		for _, acc := range a.books[bank].Accounts {
			if acc.Held != 0 || acc.Announced != 0 {
				c.violate("%s of %s holds %d, and %d are announced to it", acc.ID, bank, acc.Held, acc.Announced)
			}
		}
	}
}

func (a *auditor) inDoubt() {
	c := a.report.begin("branches in doubt")
	c.Found = "none (pg_prepared_xacts and XA RECOVER are empty)"
	for _, bank := range a.banks() {
		for _, gid := range a.books[bank].InDoubt {
			c.violate("%s has %s in doubt", bank, gid)
		}
	}
}

// answers holds what each customer was told to what the books say.
func (a *auditor) answers(answers []Answer) {
	yes := a.report.begin(`answers "it is done"`)
	no := a.report.begin(`answers "it is not done"`)
	var done, refused, givenBack int
	for _, t := range answers {
		payer, payee := a.moves[t.From][t.ID], a.moves[t.To][t.ID]
		switch t.Status {
		case "committed", "succeeded":
			done++
			if !only(payer, Entry{t.ID, t.Order.Payer, -t.Order.Amount}) || !only(payee, Entry{t.ID, t.Order.Payee, t.Order.Amount}) {
				yes.violate("%s: %d from %s of %s to %s of %s, but the books have %v and %v", t.ID,
					t.Order.Amount, t.Order.Payer, t.From, t.Order.Payee, t.To, payer, payee)
			}
		case "aborted", "compensated":
			refused++
			undone := t.Status == "compensated" && pair(payer, t)
			if undone {
				givenBack++
			}
			if len(payee) > 0 || len(payer) > 0 && !undone {
				no.violate("%s was %s, but the books have %v and %v", t.ID, t.Status, payer, payee)
			}
		default:
			no.violate("%s has not ended: it is %q", t.ID, t.Status)
		}
	}
	yes.Found = fmt.Sprintf("%d, each moved once at both banks", done)
	no.Found = fmt.Sprintf("%d, none moved at either bank", refused)
	if givenBack > 0 {
		no.Found = fmt.Sprintf("%d, none moved in the end; %d were taken and given back", refused, givenBack)
	}
}

func only(entries []Entry, want Entry) bool { return len(entries) == 1 && entries[0] == want }

// pair tells whether the amount was taken once and given back once.
func pair(entries []Entry, t Answer) bool {
	return len(entries) == 2 && entries[0].Amount == -entries[1].Amount &&
		max(entries[0].Amount, entries[1].Amount) == t.Order.Amount &&
		entries[0].Account == t.Order.Payer && entries[1].Account == t.Order.Payer
}

func (a *auditor) strangers(answers []Answer) {
	c := a.report.begin("entries that nobody ordered")
	c.Found = "none"
	known := map[string]bool{}
	for _, t := range answers {
		if known[t.ID] {
			c.violate("%s has two answers", t.ID)
		}
		known[t.ID] = true
	}
	for _, bank := range a.banks() {
		for _, id := range slices.Sorted(maps.Keys(a.moves[bank])) {
			if !known[id] {
				c.violate("%s has %v", bank, a.moves[bank][id])
			}
		}
	}
}

func (a *auditor) orchestrator(answers []Answer) {
	c := a.report.begin("answers that changed, decisions of a bank's own")
	c.Found = "none"
	for _, t := range answers {
		if t.Final != t.Status {
			c.violate("the customer of %s was told %s, and the orchestrator says %q", t.ID, t.Status, t.Final)
		}
		if t.Heuristic {
			c.violate("at %s a bank has decided by itself", t.ID)
		}
		if t.Waived {
			c.violate("at %s the amount was not given back", t.ID)
		}
	}
}
