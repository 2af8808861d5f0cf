package definitions_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// participant adds one that is valid.
func participant(b *definitions.TransactionBuilder, name string) *definitions.ParticipantBuilder {
	return b.Participant(name).Service("bank").Prepare(name + ".prepare").Commit(name + ".commit").Abort(name + ".abort")
}

func TestParticipantsAreCompiledWithTheirDefaults(t *testing.T) {
	for kind, begin := range map[definitions.Kind]func(string) *definitions.TransactionBuilder{
		definitions.KindTwoPhase: definitions.TwoPhase, definitions.KindTCC: definitions.TCC,
	} {
		b := begin("transfer").Service("bank").Deadline(time.Minute).RoutingKey("input.from").
			Output("{'debit': steps.debit.output, 'credit': steps.credit.output.id}")
		b.Participant("debit").Try("debit.try").Confirm("debit.confirm").Cancel("debit.cancel")
		b.Participant("credit").Service("ledger").Prepare("c.p").Commit("c.c").Abort("c.a").Input("{'to': input.to}").
			Timeout(time.Second).CommitTimeout(2 * time.Second).AbortTimeout(3 * time.Second).QueueTimeout(4 * time.Second).
			Retry(definitions.RetryPolicy{MaxAttempts: 7}).PhaseTwoRetry(definitions.RetryPolicy{MaxAttempts: 9}).
			Placement(definitions.Ring)
		wf, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		if wf.Kind() != kind || !wf.Kind().HasParticipants() || wf.Len() != 2 || wf.PivotIndex() != -1 || !wf.HasOutput() {
			t.Fatalf("%+v", wf)
		}
		debit, credit := wf.Step(0), wf.Step(1)
		if debit.Service != "bank" || debit.Prepare != "debit.try" || debit.Commit != "debit.confirm" || debit.Abort != "debit.cancel" ||
			debit.Timeout != definitions.DefaultTimeout || debit.CommitTimeout != definitions.DefaultTimeout ||
			debit.AbortTimeout != definitions.DefaultTimeout || debit.Retry.MaxAttempts != definitions.DefaultPrepareAttempts ||
			debit.PhaseTwoRetry.MaxAttempts != definitions.Unlimited || debit.HasInput || debit.Action != "" {
			t.Errorf("debit: %+v", debit)
		}
		if credit.Service != "ledger" || credit.Timeout != time.Second || credit.CommitTimeout != 2*time.Second ||
			credit.AbortTimeout != 3*time.Second || credit.QueueTimeout != 4*time.Second || credit.Retry.MaxAttempts != 7 ||
			credit.PhaseTwoRetry.MaxAttempts != 9 || !credit.HasInput || credit.Placement != definitions.Ring ||
			len(credit.Preds)+len(credit.Succs) != 0 {
			t.Errorf("credit: %+v", credit)
		}
		again, err := definitions.Parse(wf.JSON())
		if err != nil {
			t.Fatalf("its own JSON: %v\n%s", err, wf.JSON())
		}
		if again.Version() != wf.Version() || !bytes.Equal(again.JSON(), wf.JSON()) {
			t.Errorf("JSON changes when it is read back:\n%s\n%s", wf.JSON(), again.JSON())
		}
	}
}

func TestTheJSONOfATransactionIsCanonical(t *testing.T) {
	b := definitions.TwoPhase("transfer")
	participant(b, "debit").Retry(definitions.RetryPolicy{MaxAttempts: definitions.DefaultPrepareAttempts})
	const want = `{"kind":"2pc","name":"transfer","participants":[{"name":"debit","service":"bank",` +
		`"prepare":"debit.prepare","commit":"debit.commit","abort":"debit.abort"}]}`
	if got := string(b.MustBuild().JSON()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestEveryFaultOfATransactionIsNamed(t *testing.T) {
	task := func(service, name string) definitions.TaskRef { return definitions.NewTask[int, int](service, name) }
	tests := map[string]struct {
		define func(b *definitions.TransactionBuilder)
		want   []string
	}{
		"no participants": {func(*definitions.TransactionBuilder) {}, []string{" participants required"}},
		"all missing": {func(b *definitions.TransactionBuilder) { b.Participant("") }, []string{
			" participants[0].name required", " participants[0].service required", " participants[0].prepare required",
			" participants[0].commit required", " participants[0].abort required"}},
		"a name twice": {func(b *definitions.TransactionBuilder) { participant(b, "a"); participant(b, "a") },
			[]string{"a participants[1].name duplicate"}},
		"one task for two phases": {func(b *definitions.TransactionBuilder) { participant(b, "a").Commit("a.prepare").Abort("a.prepare") },
			[]string{"a participants[0].commit participant", "a participants[0].abort participant"}},
		"commit and abort the same": {func(b *definitions.TransactionBuilder) { participant(b, "a").Abort("a.commit") },
			[]string{"a participants[0].abort participant"}},
		"tasks of several services": {func(b *definitions.TransactionBuilder) {
			b.Participant("a").PrepareTask(task("s", "p")).CommitTask(task("t", "c")).AbortTask(task("u", "x"))
		}, []string{"a participants[0].commit participant", "a participants[0].abort participant"}},
		"typed tasks": {func(b *definitions.TransactionBuilder) {
			b.Participant("a").PrepareTask(task("s", "p")).CommitTask(task("s", "c")).AbortTask(task("s", "x"))
		}, nil},
		"settings": {func(b *definitions.TransactionBuilder) {
			participant(b, "a").Timeout(-1).CommitTimeout(-1).AbortTimeout(-1).QueueTimeout(-1).Placement(9).
				Retry(definitions.RetryPolicy{MaxAttempts: -2}).PhaseTwoRetry(definitions.RetryPolicy{Multiplier: -1})
		}, []string{"a participants[0].retry.max_attempts retry", "a participants[0].phase_two_retry.multiplier retry",
			"a participants[0].timeout duration", "a participants[0].commit_timeout duration", "a participants[0].abort_timeout duration",
			"a participants[0].queue_timeout duration", "a participants[0].placement value"}},
		"input of another's output": {func(b *definitions.TransactionBuilder) {
			participant(b, "a")
			participant(b, "b").Input("steps.a.output")
		}, []string{"b participants[1].input reference"}},
		"output of nobody": {func(b *definitions.TransactionBuilder) { b.Output("steps.z.output"); participant(b, "a") },
			[]string{" output reference"}},
	}
	for name, tt := range tests {
		b := definitions.TCC("t")
		tt.define(b)
		_, err := b.Build()
		if err == nil && tt.want == nil {
			continue
		}
		if got := faultsOf(t, err); strings.Join(got, "; ") != strings.Join(tt.want, "; ") {
			t.Errorf("%s:\ngot  %q\nwant %q", name, got, tt.want)
		}
	}
}

func TestParseKnowsWhichFieldsATransactionHas(t *testing.T) {
	tests := map[string]string{
		`{"kind":"2pc","name":"t","steps":[]}`:                                                                                                 " steps unknown-field;  participants required",
		`{"kind":"saga","name":"t","participants":[]}`:                                                                                         " participants unknown-field;  steps required",
		`{"kind":"3pc","name":"t","steps":[{"name":"a","service":"s","action":"x","compensation":"y"}]}`:                                       " kind value",
		`{"kind":"tcc","name":"t","participants":[{"name":"a","service":"s","prepare":"p","commit":"c","abort":"x","after":[],"pivot":true}]}`: "a participants[0].after unknown-field; a participants[0].pivot unknown-field",
		`{"kind":"tcc","name":"t","participants":[7]}`:                                                                                         " participants[0] type",
	}
	for text, want := range tests {
		_, err := definitions.Parse([]byte(text))
		if got := strings.Join(faultsOf(t, err), "; "); got != want {
			t.Errorf("%s:\ngot  %q\nwant %q", text, got, want)
		}
	}
}
