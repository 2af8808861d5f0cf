// Package report is what a chaos run has found: each fault, what it hit, when the
// throughput was back, and what of the outcome is wrong.
package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/ringmaster-dev/ringmaster/chaos/internal/fleet"
	"github.com/ringmaster-dev/ringmaster/chaos/internal/plan"
)

// Fault is one fault as it went.
type Fault struct {
	Number int       `json:"number"`
	Strike int       `json:"strike"`
	Role   plan.Role `json:"role"`
	Member string    `json:"member"`
	Kind   plan.Kind `json:"kind"`
	// Time of day, and what it lasted: until the member was back.
	Struck time.Time     `json:"struck"`
	Healed time.Time     `json:"healed"`
	For    time.Duration `json:"for_ns"`
	// InFlight is how much work was at the member when it was struck: tasks,
	// results and runs, by what is told in Busy.
	InFlight int    `json:"in_flight"`
	Busy     string `json:"busy"`
	Note     string `json:"note,omitempty"`
	// Impossible says why the fault could not be made; it then counts neither
	// as one nor as one that did nothing.
	Impossible string `json:"impossible,omitempty"`

	Median   float64       `json:"median_per_bucket"`
	Back     time.Duration `json:"back_ns"`
	Returned bool          `json:"returned"`
	Gap      time.Duration `json:"gap_ns"`
}

// Hit tells whether the fault hit work in flight.
func (f Fault) Hit() bool { return f.Impossible == "" && f.InFlight > 0 }

// Report is everything. Times in JSON are in nanoseconds where the name says so.
type Report struct {
	Seed     uint64 `json:"seed"`
	Topology string `json:"topology"`
	Runs     int    `json:"runs"`

	Began   time.Time     `json:"began"`
	Load    time.Duration `json:"load_ns"`    // from the first start to the last end
	Settled time.Duration `json:"settled_ns"` // from the last fault's end to the last run's

	Acknowledged int            `json:"acknowledged"`
	SlowestStart time.Duration  `json:"slowest_start_ns"`
	MostTries    int            `json:"most_tries"`
	SlowestRun   time.Duration  `json:"slowest_run_ns"`
	Statuses     map[string]int `json:"statuses"`
	Operator     int            `json:"operator_orders"`
	Faults       []Fault        `json:"faults"`
	LongestGap   time.Duration  `json:"longest_gap_ns"`
	GapAt        time.Time      `json:"longest_gap_at"`
	Exits        []fleet.Exit   `json:"exits"`

	Violations []string `json:"violations"`
	Failures   []string `json:"failures"`
}

// Measure fills in what the timeline says of each fault, and the longest gap.
func (r *Report) Measure(t *Timeline, end time.Time) {
	overall := t.Median(r.Began, end)
	slices.SortStableFunc(r.Faults, func(a, b Fault) int { return a.Struck.Compare(b.Struck) })
	for i := range r.Faults {
		f := &r.Faults[i]
		f.Number = i + 1
		until, since := end, r.Began
		for _, other := range r.Faults {
			if other.Strike == f.Strike+1 {
				until = other.Struck
				break
			}
		}
		for _, other := range r.Faults {
			if other.Strike < f.Strike && other.Healed.After(since) {
				since = other.Healed
			}
		}
		if f.Median = t.Median(since, f.Struck); f.Median < overall/2 {
			f.Median = overall
		}
		f.Back, f.Returned = t.Back(f.Struck, until, f.Median)
		f.Gap, _ = t.Gap(f.Struck, until)
	}
	r.LongestGap, r.GapAt = t.Gap(r.Began, end)
}

// Judge says what is wrong, in Failures.
func (r *Report) Judge() {
	fail := func(format string, args ...any) { r.Failures = append(r.Failures, fmt.Sprintf(format, args...)) }
	if n := len(r.Violations); n > 0 {
		fail("%d violations", n)
	}
	if r.Acknowledged != r.Runs {
		fail("%d of %d starts were acknowledged", r.Acknowledged, r.Runs)
	}
	made, hit := r.count()
	if 2*hit < made {
		fail("only %d of %d faults hit work in flight", hit, made)
	}
}

func (r *Report) count() (made, hit int) {
	for _, f := range r.Faults {
		if f.Impossible == "" {
			made++
		}
		if f.Hit() {
			hit++
		}
	}
	return made, hit
}

// Save writes the report as JSON.
func (r *Report) Save(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// shown is how many violations and exits are written in full.
const shown = 20

// WriteTo writes the report for people.
func (r *Report) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	r.writeFaults(&b)
	made, hit := r.count()
	fmt.Fprintf(&b, "faults   %d, of which %d hit work in flight\n", made, hit)
	for _, f := range r.Faults {
		switch {
		case f.Impossible != "":
			fmt.Fprintf(&b, "         %d, %s of %s, could not be made: %s\n", f.Number, f.Kind, f.Member, f.Impossible)
		case !f.Hit():
			fmt.Fprintf(&b, "         %d, %s of %s, did nothing: %s\n", f.Number, f.Kind, f.Member, cmp.Or(f.Busy, "nothing was in flight there"))
		}
	}
	fmt.Fprintf(&b, "runs     %d of %d acknowledged: %s; %d orders of the operator\n", r.Acknowledged, r.Runs, counts(r.Statuses), r.Operator)
	fmt.Fprintf(&b, "starts   the slowest was acknowledged after %v, the most repeated took %d requests\n", r.SlowestStart.Round(time.Millisecond), r.MostTries)
	fmt.Fprintf(&b, "time     %v of load; everything was final %v after the last fault; the slowest run took %v\n",
		r.Load.Round(time.Second), r.Settled.Round(100*time.Millisecond), r.SlowestRun.Round(100*time.Millisecond))
	fmt.Fprintf(&b, "gap      the longest time without an end of a run was %v, from %v on\n",
		r.LongestGap.Round(time.Millisecond), r.GapAt.Sub(r.Began).Round(100*time.Millisecond))
	r.writeExits(&b)
	list(&b, "WRONG", r.Violations)
	if len(r.Failures) == 0 {
		b.WriteString("chaos    passed\n")
	} else {
		fmt.Fprintf(&b, "chaos    FAILED: %s\n", strings.Join(r.Failures, "; "))
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

func (r *Report) writeFaults(b *strings.Builder) {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = text.FormatDefault
	t.AppendHeader(table.Row{"#", "at", "fault", "member", "for", "hit", "what was there", "ends/s before", "back after", "gap"})
	t.SetColumnConfigs([]table.ColumnConfig{
		{Number: 1, Align: text.AlignRight}, {Number: 2, Align: text.AlignRight}, {Number: 5, Align: text.AlignRight},
		{Number: 6, Align: text.AlignRight}, {Number: 8, Align: text.AlignRight}, {Number: 9, Align: text.AlignRight},
		{Number: 10, Align: text.AlignRight},
	})
	for _, f := range r.Faults {
		back := seconds(f.Back)
		if !f.Returned {
			back = "> " + back
		}
		t.AppendRow(table.Row{
			f.Number, seconds(f.Struck.Sub(r.Began)), f.Kind, f.Member, seconds(f.Healed.Sub(f.Struck)), f.InFlight,
			cmp.Or(f.Impossible, f.Busy), fmt.Sprintf("%.0f", f.Median*float64(time.Second/Bucket)), back, seconds(f.Gap),
		})
	}
	b.WriteString(t.Render())
	b.WriteByte('\n')
	for _, f := range r.Faults {
		if f.Note != "" {
			fmt.Fprintf(b, "note     %d, %s of %s: %s\n", f.Number, f.Kind, f.Member, f.Note)
		}
	}
}

func (r *Report) writeExits(b *strings.Builder) {
	var lines []string
	for _, e := range r.Exits {
		lines = append(lines, fmt.Sprintf("%s ended by itself at %v: %s", e.Name, e.At.Sub(r.Began).Round(100*time.Millisecond), e.Status))
	}
	list(b, "exits", lines)
}

func list(b *strings.Builder, word string, lines []string) {
	for i, line := range lines {
		if i == shown {
			fmt.Fprintf(b, "%-8s and %d more\n", word, len(lines)-i)
			return
		}
		fmt.Fprintf(b, "%-8s %s\n", word, line)
	}
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }

func counts(by map[string]int) string {
	var parts []string
	for status, n := range by {
		parts = append(parts, fmt.Sprintf("%d %s", n, status))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
