package audit

import (
	"strings"
	"testing"

	"github.com/ringmaster-dev/ringmaster/examples/bank-transfer/transfer"
)

// world is two banks whose books are in order: t1 was made, t2 was refused, and
// t3 was taken and given back.
func world() (map[string]Books, []Answer) {
	books := map[string]Books{
		transfer.East: {
			Accounts: []Account{{ID: "a", Opening: 100, Balance: 70}, {ID: "b", Opening: 100, Balance: 100}},
			Entries:  []Entry{{"t1", "a", -30}, {"t3", "b", -5}, {"t3", "b", 5}},
		},
		transfer.West: {
			Accounts: []Account{{ID: "c", Opening: 100, Balance: 130}},
			Entries:  []Entry{{"t1", "c", 30}},
		},
	}
	answer := func(id, payer string, amount int64, status string) Answer {
		return Answer{
			ID: id, From: transfer.East, To: transfer.West, Status: status, Final: status,
			Order: transfer.Order{Payer: payer, Payee: "c", Amount: amount},
		}
	}
	return books, []Answer{
		answer("t1", "a", 30, "committed"), answer("t2", "a", 500, "aborted"), answer("t3", "b", 5, "compensated"),
	}
}

func TestBooksInOrderPass(t *testing.T) {
	report := Check(world())
	var text strings.Builder
	if _, err := report.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	if report.Violations() != 0 || strings.Contains(text.String(), "FAIL") {
		t.Errorf("violations in\n%s", &text)
	}
	for _, want := range []string{"300 at the start, 300 at the end", "1, each moved once", "2, none moved in the end; 1 were taken"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, &text)
		}
	}
}

// Every kind of fault is found, by the checks that look for it.
func TestFaultsAreFound(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault func(east, west *Books, answers []Answer)
		want  []string // of the checks
	}{
		{"a lost credit", func(_, west *Books, _ []Answer) {
			west.Entries, west.Accounts[0].Balance = nil, 100
		}, []string{"sum of all money", "it is done"}},
		{"a doubled credit", func(_, west *Books, _ []Answer) {
			west.Entries = append(west.Entries, west.Entries[0])
			west.Accounts[0].Balance += 30
		}, []string{"sum of all money", "it is done"}},
		{"a doubled transfer", func(east, west *Books, _ []Answer) {
			east.Entries, west.Entries = append(east.Entries, Entry{"t1", "a", -30}), append(west.Entries, Entry{"t1", "c", 30})
			east.Accounts[0].Balance -= 30
			west.Accounts[0].Balance += 30
		}, []string{"it is done"}},
		{"another amount", func(east, west *Books, _ []Answer) {
			east.Entries[0].Amount, west.Entries[0].Amount = -31, 31
			east.Accounts[0].Balance--
			west.Accounts[0].Balance++
		}, []string{"it is done"}},
		{"another account", func(east, _ *Books, _ []Answer) {
			east.Entries[0].Account = "b"
			east.Accounts[0].Balance, east.Accounts[1].Balance = 100, 70
		}, []string{"it is done"}},
		{"a refused transfer that was made", func(east, west *Books, _ []Answer) {
			east.Entries, west.Entries = append(east.Entries, Entry{"t2", "a", -500}), append(west.Entries, Entry{"t2", "c", 500})
			east.Accounts[0].Balance -= 500
			west.Accounts[0].Balance += 500
		}, []string{"accounts", "it is not done"}},
		{"an amount taken and not given back", func(east, _ *Books, _ []Answer) {
			east.Entries = east.Entries[:2]
			east.Accounts[1].Balance = 95
		}, []string{"sum of all money", "it is not done"}},
		{"an amount given back twice", func(east, _ *Books, _ []Answer) {
			east.Entries = append(east.Entries, Entry{"t3", "b", 5})
			east.Accounts[1].Balance = 105
		}, []string{"sum of all money", "it is not done"}},
		{"a pair of entries at an aborted transfer", func(_, _ *Books, answers []Answer) {
			answers[2].Status, answers[2].Final = "aborted", "aborted"
		}, []string{"it is not done"}},
		{"a made transfer whose customer was told otherwise", func(_, _ *Books, answers []Answer) {
			answers[0].Status = "aborted"
		}, []string{"it is not done", "answers that changed"}},
		{"a balance that its entries do not explain", func(east, _ *Books, _ []Answer) {
			east.Accounts[0].Balance, east.Accounts[1].Balance = 71, 99
		}, []string{"accounts"}},
		{"an amount that is held for ever", func(east, _ *Books, _ []Answer) {
			east.Accounts[0].Held = 1
		}, []string{"held"}},
		{"an amount that is announced for ever", func(_, west *Books, _ []Answer) {
			west.Accounts[0].Announced = 1
		}, []string{"held"}},
		{"a branch in doubt", func(_, west *Books, _ []Answer) {
			west.InDoubt = []string{"gid"}
		}, []string{"in doubt"}},
		{"entries that nobody ordered", func(east, west *Books, _ []Answer) {
			east.Entries, west.Entries = append(east.Entries, Entry{"t9", "a", -1}), append(west.Entries, Entry{"t9", "c", 1})
			east.Accounts[0].Balance--
			west.Accounts[0].Balance++
		}, []string{"nobody ordered"}},
		{"entries of an account that there is not", func(east, _ *Books, _ []Answer) {
			east.Entries = append(east.Entries, Entry{"t3", "z", 0})
		}, []string{"accounts", "it is not done"}},
		{"a transfer that has not ended", func(_, _ *Books, answers []Answer) {
			answers[1].Status, answers[1].Final = "running", "running"
		}, []string{"it is not done"}},
		{"a transfer that the orchestrator has forgotten", func(_, _ *Books, answers []Answer) {
			answers[0].Final = ""
		}, []string{"answers that changed"}},
		{"a bank that decided by itself", func(_, _ *Books, answers []Answer) {
			answers[0].Heuristic = true
		}, []string{"answers that changed"}},
		{"an undoing that was skipped", func(_, _ *Books, answers []Answer) {
			answers[2].Waived = true
		}, []string{"answers that changed"}},
		{"a transfer with two answers", func(_, _ *Books, answers []Answer) {
			answers[1] = answers[0]
		}, []string{"nobody ordered"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			books, answers := world()
			east, west := books[transfer.East], books[transfer.West]
			tt.fault(&east, &west, answers)
			report := Check(map[string]Books{transfer.East: east, transfer.West: west}, answers)
			var found []string
			for _, f := range report.Checks {
				if len(f.Violations) > 0 {
					found = append(found, f.What)
				}
			}
			if len(found) != len(tt.want) {
				t.Fatalf("found by %q, want %q", found, tt.want)
			}
			for i, want := range tt.want {
				if !strings.Contains(found[i], want) {
					t.Errorf("found by %q, want %q", found, tt.want)
				}
			}
			var text strings.Builder
			if _, err := report.WriteTo(&text); err != nil || !strings.Contains(text.String(), "FAIL") {
				t.Errorf("%v; the report does not say so:\n%s", err, &text)
			}
		})
	}
}

func TestReadsAreCounted(t *testing.T) {
	var r Reads
	for _, deviation := range []int64{0, -5, -30, 0, 7} {
		r.count(deviation)
	}
	if got, want := r, (Reads{N: 5, Wrong: 3, Least: -30, Most: 7, InARow: 1, LongestInARow: 2}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}
