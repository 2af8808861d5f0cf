package transfer

import (
	"testing"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// A workflow of each kind goes from one bank to the other, with the tasks of the
// bank that each side belongs to.
func TestWorkflowsAskTheRightBank(t *testing.T) {
	kinds := map[Kind]definitions.Kind{
		KindTwoPhase: definitions.KindTwoPhase, KindTCC: definitions.KindTCC, KindSaga: definitions.KindSaga,
	}
	names := map[string]bool{}
	for _, kind := range Kinds {
		for _, wf := range All(kind) {
			if wf.Kind() != kinds[kind] || names[wf.Name()] {
				t.Errorf("%s is a %v", wf.Name(), wf.Kind())
			}
			names[wf.Name()] = true
			if wf.Len() != 2 || wf.Step(0).Service == wf.Step(1).Service {
				t.Errorf("%s does not ask both banks", wf.Name())
			}
		}
		if east := Of(kind, East, West); east.Step(0).Service != East {
			t.Errorf("%s begins at %s", east.Name(), east.Step(0).Service)
		}
	}
}

func TestTasksHaveNamesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	tasks := TasksOf(East)
	for _, task := range []definitions.TaskRef{
		tasks.Debit.Prepare, tasks.Debit.Commit, tasks.Debit.Abort,
		tasks.Credit.Prepare, tasks.Credit.Commit, tasks.Credit.Abort,
		tasks.Pay.Try, tasks.Pay.Confirm, tasks.Pay.Cancel,
		tasks.Receive.Try, tasks.Receive.Confirm, tasks.Receive.Cancel,
		tasks.Take, tasks.GiveBack, tasks.Add,
	} {
		if task.TaskService() != East || seen[task.TaskType()] {
			t.Errorf("%s of %s is there twice, or not of the bank", task.TaskType(), task.TaskService())
		}
		seen[task.TaskType()] = true
	}
}
