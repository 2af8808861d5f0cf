package testkit_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/testkit"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// failed is what a recorder panics with.
type failed string

// recorder is a test that notes its failure instead of failing.
type recorder struct{ testing.TB }

func (recorder) Helper() {}

func (recorder) Fatalf(format string, args ...any) { panic(failed(fmt.Sprintf(format, args...))) }

// failure returns how f fails its test; empty if it does not.
func failure(t *testing.T, f func(t testing.TB)) (text string) {
	t.Helper()
	defer func() {
		switch v := recover().(type) {
		case nil:
		case failed:
			text = string(v)
		default:
			panic(v)
		}
	}()
	f(recorder{t})
	return ""
}

// kit is a Kit whose handlers all succeed.
func kit(t testing.TB) *testkit.Kit {
	k := testkit.New(t, order)
	k.OnRest(nil)
	k.Answer("payments.charge", Receipt{ID: "r-1"})
	return k
}

func declined(k *testkit.Kit) { k.FailAttempt("pay", 1, worker.Final("card_declined", errNoMoney)) }

func TestAssertionsFailWhenTheyShould(t *testing.T) {
	type run = *testkit.Run
	for _, c := range []struct {
		name    string
		prepare func(k *testkit.Kit)
		assert  func(r run)
		want    string
	}{
		{"succeeded", declined, func(r run) { r.MustSucceed() }, "the run is compensated, want succeeded"},
		{"compensated", nil, func(r run) { r.MustBeCompensated() }, "the run is succeeded, want compensated"},
		{"waived", func(k *testkit.Kit) {
			declined(k)
			k.FailAttempt("reserve/compensate", 1, worker.Final("no", nil))
			k.Skip("reserve", "gone")
		}, func(r run) { r.MustBeCompensated() }, "an effect was waived"},
		{"status", nil, func(r run) { r.MustBe(machine.Stalled) }, "the run is succeeded, want stalled"},
		{"stalled", nil, func(r run) { r.MustStall("pay") }, "want stalled"},
		{"stalled elsewhere", func(k *testkit.Kit) { k.FailAttempt("notify", 1, worker.Final("no", nil)) },
			func(r run) { r.MustStall("ship") }, "stalled by notify, want ship"},
		{"failed step", declined, func(r run) { r.MustHaveFailedAt("ship", "x") }, `failed at "pay", want "ship"`},
		{"failure code", declined, func(r run) { r.MustHaveFailedAt("pay", "x") }, `code "card_declined", want "x"`},
		{"calls", nil, func(r run) { r.MustHaveCalled("payments.charge", 2) }, "payments.charge was called 1 times, want 2"},
		{"no calls", nil, func(r run) { r.MustNotHaveCalled("payments.charge") }, "called 1 times, want 0"},
		{"calls of nothing", nil, func(r run) { r.MustHaveCalled("payment.charge", 0) }, `no task "payment.charge"`},
		{"done", declined, func(r run) { r.MustHaveDone() }, "done: reserve, want nothing"},
		{"undone", declined, func(r run) { r.MustHaveUndone("pay", "reserve") }, "undone: reserve, want pay, reserve"},
		{"output", nil, func(r run) { r.MustHaveOutput(`"r-2"`) }, `the output is "r-1", want "r-2"`},
		{"output that is no JSON", nil, func(r run) { r.MustHaveOutput(`r-2`) }, "not JSON"},
		{"type of output", nil, func(r run) { testkit.OutputOf[int](r) }, `its output "r-1" is no int`},
		{"events", nil, func(r run) { r.MustHaveRecorded(machine.AttemptLost, "pay", 1) }, `0 events attempt_lost of "pay", want 1`},
		{"events of nothing", nil, func(r run) { r.MustHaveRecorded(machine.AttemptLost, "pya", 0) }, `no step "pya"`},
		{"step", nil, func(r run) { r.Step("pya") }, `there is no step "pya"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := failure(t, func(t testing.TB) {
				k := kit(t)
				if c.prepare != nil {
					c.prepare(k)
				}
				c.assert(k.Run(Order{"chair", 80}))
			})
			for _, want := range []string{c.want, "history:\n", "the run starts", "calls:\n", "stock.reserve for reserve/action"} {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in the failure:\n%s", want, text)
				}
			}
		})
	}
}

func TestFaultyTestsAreToldSo(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(t testing.TB, k *testkit.Kit)
		want string
	}{
		{"no workflow", func(t testing.TB, _ *testkit.Kit) { testkit.New(t, nil) }, "no workflow"},
		{"unknown step", func(_ testing.TB, k *testkit.Kit) { k.Lose("pya", 1) }, `has no step "pya"`},
		{"unknown phase", func(_ testing.TB, k *testkit.Kit) { k.Lose("pay/commit", 1) }, `has no phase "commit"`},
		{"negative attempt", func(_ testing.TB, k *testkit.Kit) { k.Lose("pay", -1) }, "counted from 1"},
		{"failure without error", func(_ testing.TB, k *testkit.Kit) { k.FailAttempt("pay", 1, nil) }, "without an error"},
		{"delivered never", func(_ testing.TB, k *testkit.Kit) { k.Deliver("pay", 1, 0) }, "use Lose"},
		{"no queue timeout", func(_ testing.TB, k *testkit.Kit) { k.Expire("pay", 1) }, "no queue timeout"},
		{"no moment", func(_ testing.TB, k *testkit.Kit) { k.CrashAfter(testkit.Moment{}) }, "no moment"},
		{"moment of no step", func(_ testing.TB, k *testkit.Kit) { k.Cancel(testkit.Succeeded("pya"), "") }, `no step "pya"`},
		{"order for any step", func(_ testing.TB, k *testkit.Kit) { k.Skip(testkit.AnyStep, "x") }, "names its step"},
		{"input that is no JSON", func(_ testing.TB, k *testkit.Kit) { k.Run([]byte("{")) }, "not JSON"},
		{"input that cannot be encoded", func(_ testing.TB, k *testkit.Kit) { k.Run(func() {}) }, "encoding func()"},
		{"no handler", func(t testing.TB, _ *testkit.Kit) { testkit.New(t, order).Run(nil) },
			"no handler for stock.reserve of service stock, which step reserve calls"},
		{"refused order", func(_ testing.TB, k *testkit.Kit) {
			k.FailAttempt("ship", testkit.Every, worker.Unknown("no_answer", nil))
			k.Skip("ship", "whatever")
			k.Run(nil)
		}, "the pivot cannot be skipped"},
		{"no end", func(_ testing.TB, k *testkit.Kit) {
			declined(k)
			k.FailAttempt("reserve/compensate", testkit.Every, errors.New("never"))
			k.Run(nil)
		}, "no end after"},
		{"a crash that makes a difference", func(_ testing.TB, k *testkit.Kit) {
			n := 0
			testkit.On(k, Charge, func(context.Context, Order) (Receipt, error) {
				n++
				return Receipt{ID: fmt.Sprint(n)}, nil
			})
			k.BeforeRun(func() { n = 0 })
			k.CrashEverywhere(nil, nil)
		}, `without: succeeded, output "1"`},
		{"a handler that minds being called twice", func(_ testing.TB, k *testkit.Kit) {
			charged := map[string]bool{}
			testkit.On(k, Charge, func(ctx context.Context, _ Order) (Receipt, error) {
				if key := worker.TaskFrom(ctx).IdempotencyKey; charged[key] {
					return Receipt{}, worker.Final("charged_already", nil)
				} else {
					charged[key] = true
				}
				return Receipt{}, nil
			})
			k.CrashEverywhere(nil, nil)
		}, "with:    compensated"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := failure(t, func(t testing.TB) { c.do(t, kit(t)) })
			if !strings.Contains(text, c.want) {
				t.Errorf("no %q in the failure:\n%s", c.want, text)
			}
			if len(text) > 64<<10 {
				t.Errorf("the failure has %d bytes", len(text))
			}
		})
	}
}

// What a handler returns means to the kit what it means to a worker.
func TestOutcomesOfHandlers(t *testing.T) {
	for _, c := range []struct {
		name    string
		handler worker.HandlerFunc
		want    machine.EventKind
		code    string
		again   bool
	}{
		{"plain error", func(context.Context, []byte) ([]byte, error) { return nil, errors.New("x") },
			machine.AttemptFailed, worker.CodeError, true},
		{"wrapped", func(context.Context, []byte) ([]byte, error) {
			return nil, fmt.Errorf("charging: %w", worker.Final("declined", nil))
		}, machine.AttemptFailed, "declined", false},
		{"unknown", func(context.Context, []byte) ([]byte, error) { return nil, worker.Unknown("who_knows", nil) },
			machine.AttemptUnknown, "who_knows", true},
		{"panic", func(context.Context, []byte) ([]byte, error) { panic("x") },
			machine.AttemptUnknown, worker.CodePanic, true},
		{"panic without effect", func(context.Context, []byte) ([]byte, error) {
			return nil, worker.NoEffect(worker.Recovered("x"))
		}, machine.AttemptFailed, worker.CodePanic, true},
		{"out of time", func(ctx context.Context, _ []byte) ([]byte, error) { return nil, testkit.Pass(ctx, time.Hour) },
			machine.AttemptUnknown, worker.CodeTimeout, true},
		{"out of time without effect", func(ctx context.Context, _ []byte) ([]byte, error) {
			return nil, worker.NoEffect(testkit.Pass(ctx, time.Hour))
		}, machine.AttemptFailed, worker.CodeTimeout, true},
		{"no JSON", func(context.Context, []byte) ([]byte, error) { return []byte("{"), nil },
			machine.AttemptUnknown, worker.CodeBadOutput, false},
		{"bad payload", func(context.Context, []byte) ([]byte, error) {
			_, err := worker.Decode[int]([]byte(`"x"`))
			return nil, err
		}, machine.AttemptFailed, worker.CodeBadPayload, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := kit(t)
			k.On("payments.charge", c.handler)
			r := k.Run(nil).MustBeCompensated().MustHaveFailedAt("pay", c.code)
			calls := 1
			if c.again {
				calls = definitions.DefaultMaxAttempts
			}
			r.MustHaveRecorded(c.want, "pay", calls)
		})
	}
}

// Branches take their time side by side, on one clock.
func TestTimeOfBranches(t *testing.T) {
	b := definitions.Saga("branches").Service("s")
	b.Step("left").Action("left").Compensation("left.undo").After()
	b.Step("right").Action("right").Compensation("right.undo").After()
	b.Step("end").Action("end").Pivot().After("left", "right")
	k := testkit.New(t, b.MustBuild())
	takes := func(d time.Duration) worker.HandlerFunc {
		return func(ctx context.Context, _ []byte) ([]byte, error) { return nil, testkit.Pass(ctx, d) }
	}
	k.On("left", takes(10*time.Second))
	k.On("right", takes(5*time.Second))
	var began time.Time
	k.On("end", func(ctx context.Context, _ []byte) ([]byte, error) {
		began = testkit.Now(ctx)
		return nil, nil
	})
	r := k.Run(nil).MustSucceed().MustHaveDone("right", "left", "end")
	if r.Took != 10*time.Second || r.CallsOf("end")[0].At != 10*time.Second || began.Second() != 10 {
		t.Errorf("took %v, the end began at %v\n%s", r.Took, began, r)
	}
}

// Crashes make no difference, whatever else goes wrong.
func TestCrashesEverywhere(t *testing.T) {
	busy := worker.Retryable("busy", nil)
	for _, c := range []struct {
		name    string
		prepare func(k *testkit.Kit)
		want    machine.Status
	}{
		{"nothing", func(*testkit.Kit) {}, machine.Succeeded},
		{"declined", declined, machine.Compensated},
		{"declined by the pivot", func(k *testkit.Kit) { k.FailAttempt("ship", 1, worker.Final("no", nil)) }, machine.Compensated},
		{"retries", func(k *testkit.Kit) { k.FailAttempt(testkit.AnyStep, 1, busy) }, machine.Succeeded},
		{"retries without end", func(k *testkit.Kit) { k.FailAttempt("pay", testkit.Every, busy) }, machine.Compensated},
		{"unknown", func(k *testkit.Kit) { k.FailAttempt("pay", testkit.Every, worker.Unknown("x", nil)) }, machine.Compensated},
		{"lost", func(k *testkit.Kit) { k.Lose(testkit.AnyStep, 1) }, machine.Succeeded},
		{"answers lost", func(k *testkit.Kit) { k.LoseAnswer(testkit.AnyStep, 1) }, machine.Succeeded},
		{"workers killed", func(k *testkit.Kit) { k.KillWorker("pay", testkit.Every) }, machine.Compensated},
		{"expired", func(k *testkit.Kit) { k.Expire("ship", 1) }, machine.Compensated},
		{"late", func(k *testkit.Kit) { k.Delay(testkit.AnyStep, 1, 2*time.Minute) }, machine.Succeeded},
		{"twice", func(k *testkit.Kit) { k.Deliver(testkit.AnyStep, testkit.Every, 2) }, machine.Succeeded},
		{"cancelled", func(k *testkit.Kit) { k.Cancel(testkit.Scheduled("pay"), "no more") }, machine.Compensated},
		{"cancelled too late", func(k *testkit.Kit) { k.Cancel(testkit.Succeeded("ship"), "no more") }, machine.Succeeded},
		{"stalled", func(k *testkit.Kit) { k.FailAttempt("notify", testkit.Every, busy) }, machine.Stalled},
		{"settled", func(k *testkit.Kit) {
			k.FailAttempt("notify", testkit.Every, busy)
			k.Retry("notify", nil)
			k.Skip("notify", "by hand")
		}, machine.Succeeded},
		{"more crashes", func(k *testkit.Kit) {
			k.CrashAfter(testkit.Event(4))
			k.CrashBeforeActing(testkit.Succeeded("ship"))
		}, machine.Succeeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := kit(t)
			c.prepare(k)
			runs := 0
			k.CrashEverywhere(Order{"chair", 80}, func(r *testkit.Run) {
				runs++
				r.MustBe(c.want)
			})
			if runs < 10 {
				t.Errorf("only %d runs", runs)
			}
		})
	}
}

// A withdrawn pivot has not been performed.
func TestCancelOfWhatHasNotBegun(t *testing.T) {
	k := kit(t)
	k.Expire("ship", 1)
	k.Cancel(testkit.Elapsed(time.Second), "no more")
	k.Run(nil).MustBeCompensated().MustHaveRecorded(machine.AttemptWithdrawn, "ship", 1).MustNotHaveCalled("deliveries.ship")
}

// An attempt that was sent again after a crash does not prove by its failure
// that there was no effect.
func TestFailureAfterCrashIsUnknown(t *testing.T) {
	k := kit(t)
	calls := 0
	k.On("payments.charge", func(context.Context, []byte) ([]byte, error) {
		if calls++; calls > 1 {
			return nil, worker.Final("charged_already", nil)
		}
		return nil, nil
	})
	k.CrashAfter(testkit.Scheduled("pay"))
	k.Run(nil).MustBeCompensated().MustHaveRecorded(machine.AttemptUnknown, "pay", 1).MustHaveUndone("pay", "reserve")
}

// The kit's clock, and not the machine's, decides.
func TestHandlersGetTheirTask(t *testing.T) {
	k := kit(t)
	var got worker.TaskInfo
	k.On("payments.refund", func(ctx context.Context, _ []byte) ([]byte, error) {
		got = worker.TaskFrom(ctx)
		return nil, ctx.Err()
	})
	k.FailAttempt("ship", 1, worker.Final("no", nil))
	r := k.Run(Order{"chair", 80}, testkit.ID("order-1"), testkit.RoutingKey("ann")).MustBeCompensated()
	if got.RunID != "order-1" || got.RoutingKey != "ann" || got.Step != "pay" || got.Attempt != 1 || got.Workflow != "order" ||
		got.IdempotencyKey != "order-1/pay/compensate/1" || got.Phase.String() != "compensate" || got.Type != "payments.refund" {
		t.Errorf("the handler got %+v\n%s", got, r)
	}
	if len(r.Effects()) != 0 {
		t.Errorf("effects %q", r.Effects())
	}
}

func BenchmarkSagaTest(b *testing.B) {
	for b.Loop() {
		k := kit(b)
		declined(k)
		k.Run(Order{"chair", 80}).MustBeCompensated().MustHaveUndone("reserve").MustHaveCalled("payments.charge", 1)
	}
}

func BenchmarkCrashEverywhere(b *testing.B) {
	for b.Loop() {
		kit(b).CrashEverywhere(Order{"chair", 80}, nil)
	}
}

func TestAKitTellsVersionsOfATaskTypeApart(t *testing.T) {
	b := definitions.Saga("versions").Service("payments").Output("steps.pay.output")
	b.Step("pay").Action("charge@2").NoCompensation("a test")
	k := testkit.New(t, b.MustBuild())
	k.On("charge", func(context.Context, []byte) ([]byte, error) { return nil, errors.New("the wrong version") })
	k.On("charge@2", func(ctx context.Context, _ []byte) ([]byte, error) {
		return fmt.Appendf(nil, "%q", worker.TaskFrom(ctx).Version), nil
	})
	r := k.Run(nil).MustHaveCalled("charge@2", 1)
	if string(r.Output) != `"2"` {
		t.Errorf("the output is %s", r.Output)
	}
}
