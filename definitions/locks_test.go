package definitions_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

func TestLockNamesAreOrderedAndOnce(t *testing.T) {
	b := definitions.Saga("flow").Service("s")
	b.LockShared("'account/' + input.from").Lock("input.more").LockShared("['z', 'a']").Lock("'account/B'")
	step(b, "a")
	wf := b.MustBuild()
	for input, want := range map[string]string{
		`{"from":"B","more":[]}`:              "[{a true} {account/B false} {z true}]",
		`{"from":"C","more":["z","z","y"]}`:   "[{a true} {account/B false} {account/C true} {y false} {z false}]",
		`{"from":"Ä é","more":"account/Ä é"}`: "[{a true} {account/B false} {account/Ä é false} {z true}]",
	} {
		locks, err := wf.EvalLocks([]byte(input))
		if got := fmt.Sprint(locks); err != nil || got != want {
			t.Errorf("%s: locks are %s, error %v, want %s", input, got, err, want)
		}
	}
}

func TestLockNamesThatCannotBe(t *testing.T) {
	b := definitions.TCC("flow").Service("s").Lock("input.name")
	b.Participant("p").Try("t").Confirm("c").Cancel("x")
	wf := b.MustBuild()
	for input, want := range map[string]string{
		`{}`:                    "no such key",
		`{"name":""}`:           "empty",
		`{"name":["a",""]}`:     "[1]",
		`{"name":7}`:            "a string or a list of strings",
		`{"name":[["a"]]}`:      "a string or a list of strings",
		`{"name":"a\nb"}`:       "do not print",
		`{"name":"serial:x/y"}`: "not for locks",
		`{"name":"` + strings.Repeat("x", 256) + `"}`:       "longer than 255",
		`{"name":["` + strings.Repeat(`a","`, 1000) + `"]}`: "more than 256",
	} {
		_, err := wf.EvalLocks([]byte(input))
		var eval *definitions.EvalError
		if !errors.As(err, &eval) || eval.Field != "locks[0].name" || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: error is %v, want one about %q", input, err, want)
		}
	}
}

func TestLockDefinitionsThatCannotBe(t *testing.T) {
	many := definitions.Saga("flow").Service("s")
	for range definitions.MaxLockExpressions + 1 {
		many.Lock("'a'")
	}
	step(many, "a")
	wrong := definitions.Saga("flow").Service("s").Lock("").Lock("1").Lock("[1]").LockShared("[['a']]").Lock("steps.a.output")
	step(wrong, "a")
	serial := definitions.TwoPhase("flow").Service("s").Serial()
	serial.Participant("p").Prepare("p").Commit("c").Abort("a")
	for name, tt := range map[string]struct {
		b interface {
			Build() (*definitions.Workflow, error)
		}
		want []string
	}{
		"too many": {many, []string{" locks limit"}},
		"wrong": {wrong, []string{" locks[0].name required", " locks[1].name expression", " locks[2].name expression",
			" locks[3].name expression", " locks[4].name reference"}},
		"a serial two-phase commit": {serial, []string{" serial value"}},
	} {
		_, err := tt.b.Build()
		if got := faultsOf(t, err); !slices.Equal(got, tt.want) {
			t.Errorf("%s: faults are %q, want %q: %v", name, got, tt.want, err)
		}
	}
}
