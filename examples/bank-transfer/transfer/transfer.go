// Package transfer is the transfer of money between two banks, in three kinds:
// everything that the banks' workers, and whoever orders a transfer, have to
// agree on.
//
// A transfer takes an amount from an account of one bank and adds it to an
// account of the other. The kinds differ in what others may see on the way:
//
//   - [TwoPhase]: both banks prepare the change in a transaction of their
//     database, which nobody sees, and commit it together.
//   - [TCC]: both banks reserve (the payer's bank holds the amount, the payee's
//     announces it), and then confirm or cancel.
//   - [Saga]: the payer's bank takes the amount, then the payee's adds it. If the
//     payee's refuses, the amount is given back.
package transfer

import (
	"fmt"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/worker/xa"
)

// The banks, which are also the services of their workers.
const (
	East = "east" // on PostgreSQL
	West = "west" // on MariaDB
)

// Banks are all banks.
var Banks = []string{East, West}

// Kind is a way to make a transfer.
type Kind string

// The kinds.
const (
	KindTwoPhase Kind = "2pc"
	KindTCC      Kind = "tcc"
	KindSaga     Kind = "saga"
)

// Kinds are all kinds.
var Kinds = []Kind{KindTwoPhase, KindTCC, KindSaga}

// Order is the workflows' input.
type Order struct {
	Payer  string `json:"payer"`  // account at the bank that pays
	Payee  string `json:"payee"`  // account at the other
	Amount int64  `json:"amount"` // in the smallest unit of the currency
}

// Change is the input of every task: what becomes of one account.
type Change struct {
	Account string `json:"account"`
	Amount  int64  `json:"amount"` // positive; the task says which way it goes
}

// Done is the output of tasks that have nothing to say.
type Done struct{}

// Codes of the banks' refusals. All are final.
const (
	CodeNoCover = "no_cover"       // the account has less than the amount
	CodeClosed  = "account_closed" // nothing is paid in
	CodeUnknown = "unknown_account"
)

// Tasks are those of one bank.
type Tasks struct {
	// Of a two-phase commit.
	Debit, Credit xa.Tasks[Change, Done]
	// Of a TCC.
	Pay, Receive TCCTasks
	// Of a saga.
	Take, GiveBack, Add definitions.Task[Change, Done]
}

// TCCTasks are the three tasks of a participant of a TCC.
type TCCTasks struct {
	Try, Confirm, Cancel definitions.Task[Change, Done]
}

// TasksOf are the tasks of a bank.
func TasksOf(bank string) Tasks {
	task := func(name string) definitions.Task[Change, Done] {
		return definitions.NewTask[Change, Done](bank, name)
	}
	return Tasks{
		Debit:    xa.NewTasks[Change, Done](bank, "debit"),
		Credit:   xa.NewTasks[Change, Done](bank, "credit"),
		Pay:      TCCTasks{task("pay.hold"), task("pay.confirm"), task("pay.cancel")},
		Receive:  TCCTasks{task("receive.announce"), task("receive.confirm"), task("receive.cancel")},
		Take:     task("take"),
		GiveBack: task("give-back"),
		Add:      task("add"),
	}
}

// Workflow is a workflow that makes transfers.
type Workflow = definitions.TypedWorkflow[Order, Done]

// Of is the workflow of that kind from one bank to another.
func Of(kind Kind, from, to string) Workflow {
	switch kind {
	case KindTwoPhase:
		return TwoPhase(from, to)
	case KindTCC:
		return TCC(from, to)
	case KindSaga:
		return Saga(from, to)
	}
	panic(fmt.Sprintf("there is no kind %q", kind))
}

// All are the workflows of a kind, one for each direction.
func All(kind Kind) []Workflow {
	return []Workflow{Of(kind, East, West), Of(kind, West, East)}
}

func name(kind Kind, from, to string) string {
	return fmt.Sprintf("transfer-%s-%s-%s", kind, from, to)
}
