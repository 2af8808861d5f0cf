package testkit_test

import (
	"testing"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/testkit"
)

func TestARefusedLockEndsARunWithoutEffect(t *testing.T) {
	b := definitions.TwoPhase("transfer").Service("bank").Lock("['a', 'b']")
	b.Participant("debit").Prepare("p").Commit("c").Abort("x")
	b.Participant("credit").Prepare("p").Commit("c").Abort("x")
	k := testkit.New(t, b.MustBuild())
	k.OnRest(nil)
	k.CrashEverywhere(nil, func(r *testkit.Run) { r.MustCommit() })
	k.LockRefused("b")
	k.CrashEverywhere(nil, func(r *testkit.Run) {
		r.MustAbort()
		if r.Code != "lock_refused" || len(r.Calls) > 0 {
			t.Errorf("code %s, calls %v", r.Code, r.Calls)
		}
	})
}
