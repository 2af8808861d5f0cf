package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

func TestWhatAHandlersErrorSays(t *testing.T) {
	boom := errors.New("boom")
	late := context.DeadlineExceeded
	wrap := func(err error) error { return fmt.Errorf("charging: %w", err) }
	cases := []struct {
		name      string
		err       error
		ended     error
		cancelled bool
		want      string
	}{
		{"plain", boom, nil, false, "failed, retryable, error"},
		{"final", Final("declined", boom), nil, false, "failed, final, declined"},
		{"final, wrapped", wrap(Final("declined", nil)), nil, false, "failed, final, declined"},
		{"retryable", Retryable("busy", boom), nil, false, "failed, retryable, busy"},
		{"unknown", Unknown("cut", boom), nil, false, "unknown, retryable, cut"},
		{"no code", Final("", boom), nil, false, "failed, final, error"},
		{"plain and late", wrap(late), late, false, "unknown, retryable, timeout"},
		{"plain and cancelled", boom, context.Canceled, true, "unknown, retryable, cancelled"},
		{"final and late: a decision", Final("declined", boom), late, false, "failed, final, declined"},
		{"final of an interrupted call", Final("http", late), late, false, "unknown, final, http"},
		{"retryable and late", Retryable("http", boom), late, false, "unknown, retryable, http"},
		{"panic", &PanicError{Value: 1}, nil, false, "unknown, retryable, panic"},
		{"vouched and late", NoEffect(boom), late, false, "failed, retryable, timeout"},
		{"vouched panic", NoEffect(wrap(&PanicError{Value: 1})), nil, false, "failed, retryable, panic"},
		{"vouched final", wrap(NoEffect(Final("declined", boom))), late, false, "failed, final, declined"},
		{"claims to have succeeded", &Error{Outcome: protocol.OutcomeSucceeded, Code: "x"}, nil, false, "unknown, final, x"},
		{"claims nothing", &Error{Code: "x"}, nil, false, "unknown, final, x"},
	}
	for _, c := range cases {
		v := judge(c.err, c.ended, c.cancelled, protocol.PhaseAction)
		retryable := map[bool]string{true: "retryable", false: "final"}[v.retryable]
		if got := fmt.Sprintf("%v, %s, %s", v.outcome, retryable, v.code); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
	if NoEffect(nil) != nil {
		t.Error("no error became one")
	}
}

func TestAStackBeginsWhereThePanicWasAndIsBounded(t *testing.T) {
	var deep func(n int)
	deep = func(n int) {
		if n == 0 {
			panic("boom")
		}
		deep(n - 1)
	}
	var err *PanicError
	func() {
		defer func() { err = Recovered(recover()) }()
		deep(500)
	}()
	if !strings.HasPrefix(err.Stack, "panic(") || !strings.Contains(err.Stack, "errors_test.go") {
		t.Errorf("stack: %.200s", err.Stack)
	}
	if n := len(err.Stack); n > maxStackBytes || n < maxStackBytes/2 {
		t.Errorf("%d bytes", n)
	}
	if err.Error() != "panic: boom" {
		t.Error(err)
	}
}

func TestTextsAreClippedBetweenCharacters(t *testing.T) {
	for in, want := range map[string]string{"abc": "abc", "abcdé": "abcd", "a\xffb": "a?b"} {
		if got := clip(in, 5); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestAHandlersTimeEndsAMarginBeforeItsLease(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{
		time.Second: 50 * time.Millisecond, 20 * time.Second: time.Second, time.Hour: time.Second,
	} {
		if got := margin(timeout); got != want {
			t.Errorf("%v: %v", timeout, got)
		}
	}
}

func TestConfigurationErrorsNameTheFieldAndTheRule(t *testing.T) {
	cases := map[string]Config{
		"Broker: is required":                          {},
		"Name: at most 191 bytes":                      {Name: "with space"},
		"Service: at most 200 bytes":                   {Service: strings.Repeat("x", 201)},
		"Namespace: at most 64":                        {Namespace: "a b"},
		"Concurrency: must be between 1 and 10000":     {Concurrency: -1},
		"Prefetch: must be between 0 and 20000":        {Prefetch: 50_001},
		"Weight: must be between 1 and 1000":           {Weight: 1_001},
		"MaxPayloadBytes: must be between 1 and 16777": {MaxPayloadBytes: 1 << 30},
		"MaxHeldResults: must be between 1 and 20000":  {MaxHeldResults: -1},
		"MaxHeldBytes: must be at least 1":             {MaxHeldBytes: -1},
		"HeartbeatInterval: must be between":           {HeartbeatInterval: time.Hour},
		"SettleTimeout: must be positive":              {SettleTimeout: -1},
		"ResendAfter: must be positive":                {ResendAfter: -1},
		"Workflows[0]: is nil":                         {Workflows: make([]*definitions.Workflow, 1)},
	}
	for want, c := range cases {
		_, err := New(c)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}
