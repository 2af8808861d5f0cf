package transfer

import (
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// What the two sides of a transfer do.
const (
	debited  = `{'account': input.payer, 'amount': input.amount}`
	credited = `{'account': input.payee, 'amount': input.amount}`
)

var (
	// patient is for what has to succeed in the end: a bank that is away comes
	// back, and then nobody should wait for long.
	patient = definitions.RetryPolicy{
		Initial: 20 * time.Millisecond, Max: 2 * time.Second, MaxAttempts: definitions.Unlimited,
	}
	// brief is for a prepare. While one bank is prepared its account is locked, so
	// the other is not asked for ever.
	brief = definitions.RetryPolicy{Initial: 50 * time.Millisecond, Max: 500 * time.Millisecond, MaxAttempts: 5}
)

// undecided bounds the time until a transfer is decided. One that could not be
// by then (a bank is away) is aborted, and gives its locks or its hold free.
const undecided = 2 * time.Minute

// TwoPhase is a transfer by two-phase commit.
//
// A bank that is prepared keeps the account's row locked until the decision. Two
// transfers between the same two accounts, in opposite directions, may each have
// locked what the other waits for; but one waits in PostgreSQL and the other in
// MariaDB, and neither database sees a deadlock. So a run first asks for the locks
// of its accounts. They are the orchestrator's, every run takes them in the same
// order, and no transfer meets another one in the databases.
func TwoPhase(from, to string) Workflow {
	b := definitions.TwoPhase(name(KindTwoPhase, from, to)).
		Description("Move money between two databases in one distributed transaction.").
		Lock("'account/' + input.payer").
		Lock("'account/' + input.payee").
		Deadline(undecided)
	debit, credit := TasksOf(from).Debit, TasksOf(to).Credit
	b.Participant("debit").PrepareTask(debit.Prepare).CommitTask(debit.Commit).AbortTask(debit.Abort).
		Input(debited).Retry(brief).PhaseTwoRetry(patient).Timeout(10 * time.Second)
	b.Participant("credit").PrepareTask(credit.Prepare).CommitTask(credit.Commit).AbortTask(credit.Abort).
		Input(credited).Retry(brief).PhaseTwoRetry(patient).Timeout(10 * time.Second)
	return definitions.Typed[Order, Done](b.MustBuild())
}

// TCC is a transfer by reservation: try, then confirm or cancel.
func TCC(from, to string) Workflow {
	b := definitions.TCC(name(KindTCC, from, to)).
		Description("Hold the amount at one bank, announce it at the other, then confirm both.").
		Deadline(undecided)
	pay, receive := TasksOf(from).Pay, TasksOf(to).Receive
	b.Participant("pay").PrepareTask(pay.Try).CommitTask(pay.Confirm).AbortTask(pay.Cancel).
		Input(debited).Retry(patient).PhaseTwoRetry(patient).Timeout(10 * time.Second)
	b.Participant("receive").PrepareTask(receive.Try).CommitTask(receive.Confirm).AbortTask(receive.Cancel).
		Input(credited).Retry(patient).PhaseTwoRetry(patient).Timeout(10 * time.Second)
	return definitions.Typed[Order, Done](b.MustBuild())
}

// Saga is a transfer in two steps. The second is the pivot: what was added may
// be spent by somebody else at once, so it cannot be taken back.
func Saga(from, to string) Workflow {
	b := definitions.Saga(name(KindSaga, from, to)).
		Description("Take the amount, add it at the other bank; if that refuses, give it back.")
	payer, payee := TasksOf(from), TasksOf(to)
	b.Step("take").Do(payer.Take).Undo(payer.GiveBack).
		Input(debited).Retry(patient).CompensationRetry(patient).Timeout(10 * time.Second)
	b.Step("add").Do(payee.Add).Pivot().
		Input(credited).Retry(patient).Timeout(10 * time.Second)
	return definitions.Typed[Order, Done](b.MustBuild())
}
