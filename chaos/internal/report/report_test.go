package report

import (
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/chaos/internal/plan"
)

func fault(strike, from, to, inFlight int) Fault {
	return Fault{
		Strike: strike, Role: plan.Worker, Member: "payments-1", Kind: plan.Pause,
		Struck: at(from), Healed: at(to), InFlight: inFlight, Busy: "tasks",
	}
}

func TestAFaultIsMeasuredUntilTheNextStrike(t *testing.T) {
	r := Report{Began: zero, Runs: 400, Acknowledged: 400, Faults: []Fault{fault(2, 7000, 7500, 3), fault(1, 3000, 5000, 8)}}
	r.Measure(NewTimeline(steady(10_000, 3000, 5000)), at(10_000))
	first, second := r.Faults[0], r.Faults[1]
	if first.Number != 1 || first.Strike != 1 || second.Number != 2 {
		t.Fatalf("%+v", r.Faults)
	}
	if !first.Returned || first.Back < time.Second || first.Gap < 1900*time.Millisecond {
		t.Errorf("%+v", first)
	}
	if !second.Returned || second.Back != 0 || second.Gap > 100*time.Millisecond {
		t.Errorf("%+v", second)
	}
	if r.LongestGap != first.Gap {
		t.Errorf("the longest gap is %v, that of the first fault %v", r.LongestGap, first.Gap)
	}
}

func TestWhatFails(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Report)
		want   string
	}{
		{"nothing", func(*Report) {}, ""},
		{"a violation", func(r *Report) { r.Violations = []string{"order-1 was charged twice"} }, "1 violations"},
		{"a start that nobody acknowledged", func(r *Report) { r.Acknowledged-- }, "399 of 400 starts"},
		{"half of the faults idle", func(r *Report) { r.Faults[0].InFlight = 0 }, ""},
		{"more than half of the faults idle", func(r *Report) { r.Faults[0].InFlight, r.Faults[1].InFlight = 0, 0 }, "only 0 of 2 faults hit"},
		{"a fault that is impossible here", func(r *Report) {
			r.Faults[0].InFlight, r.Faults[0].Impossible = 0, "no root"
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Report{Runs: 400, Acknowledged: 400, Faults: []Fault{fault(1, 0, 100, 3), fault(2, 200, 300, 8)}}
			tt.change(&r)
			r.Judge()
			if got := strings.Join(r.Failures, "; "); got == "" != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestTheReportNamesFaultsThatDidNothing(t *testing.T) {
	r := Report{Began: zero, Runs: 400, Acknowledged: 400, Faults: []Fault{fault(1, 3000, 5000, 8), fault(2, 7000, 7500, 0)}}
	r.Faults[1].Busy = ""
	r.Measure(NewTimeline(steady(10_000, 0, 0)), at(10_000))
	r.Judge()
	var b strings.Builder
	if _, err := r.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2, of which 1 hit", "2, pause of payments-1, did nothing: nothing was in flight there", "chaos    passed"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}
