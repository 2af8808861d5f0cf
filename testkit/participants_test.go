package testkit_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/testkit"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// bank holds accounts, and what is prepared on them, as a faithful resource
// manager does.
type bank struct {
	money    map[string]int
	prepared map[string]int // by run
	decided  map[string]bool
}

func (b *bank) serve(k *testkit.Kit, participant, account string, sign int) {
	id := func(ctx context.Context) string { return worker.TaskFrom(ctx).RunID + participant }
	k.On(participant+".prepare", func(ctx context.Context, payload []byte) ([]byte, error) {
		in, err := worker.Decode[Transfer](payload)
		if err != nil || b.decided[id(ctx)] {
			return nil, worker.Final("too_late", err)
		}
		if b.money[account]+sign*in.Amount < 0 {
			return nil, worker.Final("no_cover", nil)
		}
		b.prepared[id(ctx)] = sign * in.Amount
		return nil, nil
	})
	finish := func(commit bool) worker.HandlerFunc {
		return func(ctx context.Context, _ []byte) ([]byte, error) {
			if commit && !b.decided[id(ctx)] {
				b.money[account] += b.prepared[id(ctx)]
			}
			b.decided[id(ctx)] = true
			delete(b.prepared, id(ctx))
			return nil, nil
		}
	}
	k.On(participant+".commit", finish(true))
	k.On(participant+".abort", finish(false))
}

// All or nothing, wherever the orchestrator crashes and whatever gets lost.
func TestTransfersAreAllOrNothing(t *testing.T) {
	for _, c := range []struct {
		name    string
		amount  int
		prepare func(k *testkit.Kit)
		want    machine.Status
	}{
		{"nothing", 10, func(*testkit.Kit) {}, machine.Committed},
		{"no cover", 1000, func(*testkit.Kit) {}, machine.Aborted},
		{"lost", 10, func(k *testkit.Kit) { k.Lose(testkit.AnyStep, 1) }, machine.Committed},
		{"answers lost", 10, func(k *testkit.Kit) { k.LoseAnswer(testkit.AnyStep, 1) }, machine.Committed},
		{"twice", 10, func(k *testkit.Kit) { k.Deliver(testkit.AnyStep, testkit.Every, 2) }, machine.Committed},
		{"vote lost for good", 10, func(k *testkit.Kit) { k.LoseAnswer("debit", testkit.Every) }, machine.Aborted},
		{"queued for too long", 10, func(k *testkit.Kit) { k.Expire("credit", 1) }, machine.Aborted},
		{"commit fails", 10, func(k *testkit.Kit) { k.FailAttempt("debit/commit", 1, worker.Final("no", nil)) }, machine.Committed},
		{"late", 10, func(k *testkit.Kit) { k.Delay(testkit.AnyStep, 1, 2*time.Minute) }, machine.Committed},
		{"cancelled", 10, func(k *testkit.Kit) { k.Cancel(testkit.Scheduled("debit"), "no more") }, machine.Aborted},
		{"cancelled after the decision", 10, func(k *testkit.Kit) { k.Cancel(testkit.Kind(machine.DecidedCommit), "no more") },
			machine.Committed},
		{"deadline", 10, func(k *testkit.Kit) { k.Lose("debit", testkit.Every) }, machine.Aborted},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := testkit.New(t, transfer)
			b := bank{}
			b.serve(k, "debit", "Ann", -1)
			b.serve(k, "credit", "Bob", +1)
			k.BeforeRun(func() {
				b.money = map[string]int{"Ann": 100, "Bob": 100}
				b.prepared, b.decided = map[string]int{}, map[string]bool{}
			})
			c.prepare(k)
			k.CrashEverywhere(Transfer{"Ann", "Bob", c.amount}, func(r *testkit.Run) {
				r.MustBe(c.want)
				moved := 0
				if c.want == machine.Committed {
					moved = c.amount
				}
				if b.money["Ann"] != 100-moved || b.money["Bob"] != 100+moved || len(b.prepared) != 0 {
					t.Fatalf("money %v, in doubt %v\n%s", b.money, b.prepared, r)
				}
			})
		})
	}
}

func TestAssertionsOfParticipants(t *testing.T) {
	text := failure(t, func(t testing.TB) {
		k := testkit.New(t, transfer)
		k.OnRest(nil)
		k.Run(nil).MustAbort()
	})
	if !strings.Contains(text, "the run is committed, want aborted") || !strings.Contains(text, "decided: commit") {
		t.Error(text)
	}
	text = failure(t, func(t testing.TB) {
		k := testkit.New(t, transfer)
		k.OnRest(nil)
		k.Cancel(testkit.Event(1), "")
		k.Run(nil).MustCommit()
	})
	if !strings.Contains(text, "the run is aborted, want committed") {
		t.Error(text)
	}
	text = failure(t, func(t testing.TB) { testkit.New(t, order).VoteReadOnly("pay") })
	if !strings.Contains(text, "pay is no participant") {
		t.Error(text)
	}
}

// One participant alone commits in one phase; a TCC is like a two-phase commit.
func TestSingleParticipant(t *testing.T) {
	b := definitions.TCC("booking").Service("hotel").Output("steps.room.output")
	b.Participant("room").Try("room.try").Confirm("room.confirm").Cancel("room.cancel")
	k := testkit.New(t, b.MustBuild())
	k.Answer("room.confirm", 7)
	k.FailAttempt("room", 1, errors.New("busy"))
	k.Run(nil).MustCommit().MustHaveOutput("7").MustNotHaveCalled("room.try").MustHaveCalled("room.confirm", 2)
}

// A handler's own vote counts, of prepare alone.
func TestReadOnlyVotesOfHandlers(t *testing.T) {
	k := testkit.New(t, transfer)
	k.OnRest(nil)
	k.On("debit.prepare", func(context.Context, []byte) ([]byte, error) { return nil, worker.ErrReadOnly })
	k.Run(nil).MustCommit().MustHaveRecorded(machine.AttemptReadOnly, "debit", 1).MustNotHaveCalled("debit.commit")
}
